"""Functions that all readers use: find files, open HDF5 and NIfTI safely, read in blocks, and report faults in one
sentence.

Nothing is kept open: a file is opened, read and closed within one call, in whichever process that runs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar
from zlib import error as ZlibError

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from mrnets.contract import Raw
from mrnets.errors import InputError, unknown
from mrnets.mrd import files
from mrnets.mrd.records import explained
from training.data import Place, Sample, Slices
from training.split import Part, Split, part_of

__all__ = [
    "array",
    "examined",
    "full",
    "hdf5",
    "in_sentences",
    "listed",
    "nifti",
    "one_sentence",
    "read_mask",
    "slices",
    "split_problems",
    "voxels",
]

Kind = Literal["complex", "real", "integer"]
Reader = TypeVar("Reader")
Folder = TypeVar("Folder")

MAX_ALONG_AN_AXIS = 65536
MAX_VALUES = 1 << 28
"""Most values in one slice, and in one NIfTI volume. More would fill the memory of the machine."""
EXAMINED = 8
"""Slices of a data set that `check` reads."""

_KINDS: dict[Kind, tuple[str, str]] = {
    "complex": ("c", "complex numbers"),
    "real": ("fiu", "real numbers"),
    "integer": ("iu", "whole numbers"),
}


def listed(folder: Path, *endings: str) -> dict[str, Path]:
    """Files below `folder` whose names end so (".h5"), by their path in it without the ending: names of subjects.

    Sorted by name. Hidden files are left out. Raises InputError where there is no such folder, or none of the files.
    Raises it also for two files of one name (scan.h5 and scan.mrd).
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        ending = next((e for e in sorted(endings, key=len, reverse=True) if name.lower().endswith(e)), None)
        if ending is not None and path.is_file() and not any(part.startswith(".") for part in Path(name).parts):
            other = found.setdefault(name[: -len(ending)], path)
            if other != path:
                raise InputError(f"{path}: has the name of {other.name}, and one subject has one file; take one out")
    if not found:
        raise InputError(f"{folder}: no files *{' or *'.join(endings)} in it or below")
    return dict(sorted(found.items()))


def slices(
    files: Mapping[str, Path],
    part: Part,
    split: Split,
    count: Callable[[Path], Iterable[int]],
    load: Callable[[Place], Sample],
    labels: tuple[str, ...] = (),
    *,
    transposed: bool = False,
) -> Slices:
    """The slices that `count` names of each subject's file (from its header), of the subjects of `part`.

    transposed: whether the files have their planes as (x, y)."""
    mine = part_of(list(files), part, split)
    places = tuple(Place(str(files[s]), i, s, transposed) for s in mine for i in count(files[s]))
    return Slices(places, load, labels)


def split_problems(subjects: Iterable[str], split: Split) -> Iterator[str]:
    """A sentence for training or validation without a subject."""
    names = list(subjects)
    parts: tuple[Part, ...] = ("train", "validation")
    for part in parts:
        if names and not part_of(names, part, split):
            yield f"{part}: none of the {len(names)} subjects; see reader.split"


def in_sentences(
    check: Callable[[Reader, Folder, Split], Iterator[str]],
) -> Callable[[Reader, Folder, Split], Iterator[str]]:
    """Return `check` of a reader, in which an InputError is the last sentence: a folder without files, for example."""

    @functools.wraps(check)
    def checked(self: Reader, folder: Folder, split: Split) -> Iterator[str]:
        try:
            yield from check(self, folder, split)
        except InputError as error:
            yield str(error)

    return checked


def examined(source: Slices) -> Iterator[str]:
    """A sentence for each of a few slices, evenly spaced through `source`, that cannot be read or is not finite."""
    for n in sorted({i * len(source) // EXAMINED for i in range(EXAMINED)} if len(source) else ()):
        place = source.places[n]
        try:
            with one_sentence(place.path):
                sample = source.load(place)
        except InputError as error:
            yield str(error)
            continue
        raw = sample.raw
        for name, values in (
            ("k-space", None if raw is None else raw.kspace),
            ("sensitivities", None if raw is None else raw.sens),
            ("image", sample.image),
        ):
            if values is not None and not bool(torch.isfinite(values).all()):
                yield f"{place.path}, slice {place.index}: {name} with values that are not finite"


@contextmanager
def one_sentence(path: str | Path) -> Iterator[None]:
    """Raises whatever a file makes the libraries raise that read it as InputError, so that `check` goes on."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be read ({type(error).__name__}: {reason})") from error


def full(kspace: NDArray[Any], readout: Literal["x", "batch", None], **more: Any) -> Raw:
    """Fully sampled k-space (echo, coil, y, x), centred and orthonormal, of one slice, as `Raw`; more: other fields."""
    data = torch.from_numpy(np.ascontiguousarray(kspace, np.complex64))[None]
    return Raw(kspace=data, mask=torch.ones((1, 1, 1, *data.shape[-2:]), dtype=torch.bool), readout=readout, **more)


# HDF5


@contextmanager
def hdf5(path: str | Path) -> Iterator[h5py.File]:
    """The file, open for reading. InputError, also while it is read: no such file, not HDF5, cut short, corrupt."""
    with explained(path), files.hdf5(path) as file:
        yield file


def array(file: h5py.File, key: str, axes: Sequence[str], kind: Kind = "complex") -> h5py.Dataset:
    """The data set `key`, not yet read; `axes` names its axes.

    Raises InputError for a missing key (it names the nearest), another rank, another type of numbers, or data stored in
    other files. Raises it for an empty or absurdly long axis, and for too many values at one index of the first axis.
    """
    where = f"{file.filename}: {key}"
    found = file.get(key, getlink=True)
    if isinstance(found, h5py.ExternalLink):
        raise InputError(f"{where} is a link to another file, which is not followed")
    data = file.get(key)
    if not isinstance(data, h5py.Dataset):
        raise InputError(f"{file.filename}: {unknown('data set', key, _keys(file))}")
    if data.external or data.is_virtual:
        raise InputError(f"{where} lies in other files, which are not followed")
    if data.ndim != len(axes):
        raise InputError(f"{where} must have the axes ({', '.join(axes)}), got the shape {data.shape}")
    if not all(1 <= n <= MAX_ALONG_AN_AXIS for n in data.shape) or math.prod(data.shape[1:]) > MAX_VALUES:
        raise InputError(f"{where} has the shape {data.shape}, which is empty or absurdly large")
    letters, name = _KINDS[kind]
    if data.dtype.kind not in letters and not (kind == "integer" and data.dtype.kind == "b"):
        raise InputError(f"{where} must be {name}, got {data.dtype}")
    return data


def _keys(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
    return names


def read_mask(path: Path, number: int, key: str) -> NDArray[np.bool_]:
    """Mask `number` (y, x) of a .npy file, or of the data set `key` of an HDF5 file, (mask, y, x) or (y, x).
    Beyond the last mask the count starts again. Only this mask is read. Raises InputError."""
    if path.suffix == ".npy":
        try:
            return _one_mask(np.lib.format.open_memmap(path, mode="r"), number, str(path))
        except (OSError, EOFError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: cannot be read as .npy ({' '.join(str(error).split())})") from None
    with hdf5(path) as file:
        held = file.get(key)
        if not isinstance(held, h5py.Dataset):
            raise InputError(f"{path}: {unknown('data set', key, _keys(file))}")
        return _one_mask(held, number, f"{path}: {key}")


def _one_mask(held: Any, number: int, where: str) -> NDArray[np.bool_]:
    if held.dtype.kind not in "biuf":
        raise InputError(f"{where}: masks must be numbers, got {held.dtype}")
    if len(held.shape) not in (2, 3) or min(held.shape) < 1 or math.prod(held.shape[-2:]) > MAX_VALUES:
        raise InputError(f"{where}: masks must have the axes (y, x) or (mask, y, x), got the shape {held.shape}")
    mask = np.asarray(held[number % held.shape[0]] if len(held.shape) == 3 else held[...])
    if not np.isfinite(mask).all():
        raise InputError(f"{where}: a mask with values that are not finite")
    return mask != 0


# NIfTI


def nifti(path: str | Path, axes: Sequence[str] = ("x", "y", "z")) -> Any:
    """The nibabel image with its header read and its voxels not. Raises InputError: no such file, not NIfTI, other axes
    than (names of) `axes`, absurdly large."""
    import nibabel

    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such file")
    with _nifti_explained(path):
        image: Any = nibabel.load(path)
    if len(image.shape) != len(axes):
        raise InputError(f"{path}: must have the axes ({', '.join(axes)}), got the shape {image.shape}")
    if not all(n >= 1 for n in image.shape) or math.prod(image.shape) > MAX_VALUES:
        raise InputError(f"{path}: has the shape {image.shape}, which is empty or absurdly large")
    if str(path).endswith((".nii", ".nii.gz")):  # .mgz files have more behind their voxels
        state = Path(path).stat()
        _require_end(str(path), state.st_size, state.st_mtime_ns)
    return image


@functools.lru_cache(maxsize=65536)
def _require_end(path: str, size: int, changed: int) -> None:
    """Raise InputError for a NIfTI file that was cut short. Its voxels are read only where its size is not as usual.

    size, changed: of the file, so that another one of this name is looked at anew. A .gz file ends with the size of
    what it holds (RFC 1952), for all of it in one piece."""
    import nibabel

    with _nifti_explained(path):
        image: Any = nibabel.load(path)
        voxel_count = math.prod(int(n) for n in image.shape)
        need = int(image.dataobj.offset) + voxel_count * image.get_data_dtype().itemsize
        with Path(path).open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(-min(size, 4), 2)
            whole = int.from_bytes(file.read(), "little") == need % 2**32 if packed else size >= need
        if not whole:
            np.asarray(image.dataobj[..., -1])


def voxels(path: str | Path, where: Any = ..., axes: Sequence[str] = ("x", "y", "z")) -> NDArray[np.float32]:
    """The voxels `where` (indices and slices, as NumPy's) as float32, scaled as the header says. Raises InputError."""
    image = nifti(path, axes)
    with _nifti_explained(path):
        return np.asarray(image.dataobj[where], dtype=np.float32)


def to_upright(image: Any) -> NDArray[np.float64]:
    """How axes (x, y, z) of a nibabel image are turned so that x leads to the left, y to the back and z to the head.

    The result is nibabel's orientation (axis, [new axis, 1 or -1]). `python -m gadgets segment` turns images alike."""
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    turn: NDArray[np.float64] = ornt_transform(io_orientation(image.affine), axcodes2ornt("LPS"))
    return turn


@contextmanager
def _nifti_explained(path: str | Path) -> Iterator[None]:
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        yield
    except (OSError, EOFError, ValueError, ZlibError, ImageFileError, HeaderDataError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read; it is cut short, corrupt or not NIfTI ({reason})") from None
