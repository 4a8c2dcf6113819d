"""Stanford fully sampled 3-D FSE knees of mridata.org (Epperson et al. 2013): 8 coils, 256 slices of 320 x 320.

The files are ISMRMRD as they are downloaded, or HDF5 files made of these. The lines of ISMRMRD files are those of
slices, since the volume is transformed along z already; their `rec_std` is the noise of each coil. HDF5 files have
`kspace` (slice, coil, y, x) complex, centred and orthonormal up to a factor. y is the phase encoding and x the readout.
Files name no subjects: each is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mrnets.errors import InputError
from mrnets.mrd.files import is_scan
from training.data import Place, Sample, Slices
from training.readers import ismrmrd
from training.readers._scan import gap, scan
from training.readers.files import array, examined, full, hdf5, in_sentences, listed, slices, split_problems
from training.split import Part, Split

__all__ = ["Reader"]

AXES = ("slice", "coil", "y", "x")


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Slices of the files below a folder; a scan of 3-D lines gives its readout positions."""

    trim: tuple[int, int] = (0, 0)
    """Slices left out at the beginning and at the end."""
    cache: str = ""
    """The folder for 3-D scans as slices, as of the reader ismrmrd."""

    def read(self, folder: Path, part: Part, split: Split) -> Slices:
        """Return the slices of the subjects of `part`. Raises InputError."""
        return slices(listed(folder, ".h5"), part, split, self._kept, self._load)

    @in_sentences
    def check(self, folder: Path, split: Split) -> Iterator[str]:
        """Give a sentence for everything that is missing or malformed."""
        files = listed(folder, ".h5")
        good, flat = [], []
        for subject, path in files.items():
            try:
                kept = self._kept(path)
                if is_scan(path):
                    _require_complete(path)
            except InputError as error:
                yield str(error)
                continue
            good.append(subject)
            if not is_scan(path) or not scan(path).encoding.volume:
                flat.append(Place(str(path), kept[len(kept) // 2], subject))
        yield from split_problems(good, split)
        yield from examined(Slices(tuple(flat), self._load))

    def _kept(self, path: Path) -> range:
        if is_scan(path):
            found = scan(path)
            count = found.width if found.encoding.volume else len(found.images)
        else:
            with hdf5(path) as file:
                count = array(file, "kspace", AXES).shape[0]
        kept = range(self.trim[0], count - self.trim[1])
        if min(self.trim) < 0 or not kept:
            raise InputError(f"{path}: has {count} slices, of which reader.options.trim {list(self.trim)} leaves none")
        return kept

    def _load(self, place: Place) -> Sample:
        if is_scan(Path(place.path)):
            return ismrmrd.load(place, self.cache)
        with hdf5(place.path) as file:
            kspace = array(file, "kspace", AXES)[place.index]
        return Sample(names=(f"{place.subject}, slice {place.index}",), raw=full(kspace[None], "x"))


def _require_complete(path: Path) -> None:
    found = scan(path)
    what = next(filter(None, (gap(found, image) for image in found.images)), "")
    if what:
        raise InputError(f"{path}: {what}; cut short?")
