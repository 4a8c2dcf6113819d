"""Stanford fully sampled 3-D FSE knees of mridata.org (Epperson et al. 2013): 8 coils, 256 slices of 320 x 320.

Either the ISMRMRD files as they are downloaded, whose lines are those of slices (the volume is transformed along z
already), with `rec_std`, the noise of each coil; or HDF5 files made of them, `kspace` (slice, coil, y, x) complex,
centred and orthonormal up to a factor. y = phase encoding, x = readout. Files carry no subjects: each is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mrnets.errors import InputError
from mrnets.mrd.files import is_scan
from training.data import Part, Place, Sample, Slices, Split
from training.readers import ismrmrd
from training.readers._scan import gap, scan
from training.readers.files import array, examined, full, hdf5, listed, slices, split_problems

__all__ = ["check", "read"]

AXES = ("slice", "coil", "y", "x")


def read(folder: Path, part: Part, split: Split, *, trim: tuple[int, int] = (0, 0), cache: str = "") -> Slices:
    """trim: slices left out at the beginning and at the end. cache: as of the reader ismrmrd, for files whose lines are
    those of a volume."""
    return slices(listed(folder, ".h5"), part, split, partial(_kept, trim=trim), partial(_load, cache=cache))


def check(folder: Path, split: Split, *, trim: tuple[int, int] = (0, 0), cache: str = "") -> Iterator[str]:
    """A sentence for everything that is missing or malformed."""
    try:
        files = listed(folder, ".h5")
    except InputError as error:
        yield str(error)
        return
    good, flat = [], []
    for subject, path in files.items():
        try:
            kept = _kept(path, trim)
            if is_scan(path):
                _require_complete(path)
        except InputError as error:
            yield str(error)
            continue
        good.append(subject)
        if not is_scan(path) or not scan(path).encoding.volume:
            flat.append(Place(str(path), kept[len(kept) // 2], subject))
    yield from split_problems(good, split)
    yield from examined(Slices(tuple(flat), partial(_load, cache=cache)))


def _kept(path: Path, trim: tuple[int, int]) -> range:
    if is_scan(path):
        found = scan(path)
        count = found.width if found.encoding.volume else len(found.images)
    else:
        with hdf5(path) as file:
            count = array(file, "kspace", AXES).shape[0]
    kept = range(trim[0], count - trim[1])
    if min(trim) < 0 or not kept:
        raise InputError(f"{path}: has {count} slices, of which reader.options.trim {list(trim)} leaves none")
    return kept


def _require_complete(path: Path) -> None:
    found = scan(path)
    what = next(filter(None, (gap(found, image) for image in found.images)), "")
    if what:
        raise InputError(f"{path}: {what}; cut short?")


def _load(place: Place, cache: str) -> Sample:
    if is_scan(Path(place.path)):
        return ismrmrd.load(place, cache)
    with hdf5(place.path) as file:
        kspace = array(file, "kspace", AXES)[place.index]
    return Sample(names=(f"{place.subject}, slice {place.index}",), raw=full(kspace[None], "x"))
