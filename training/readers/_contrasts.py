"""Subjects whose contrasts and labels are NIfTI files, for the readers of segmentation data.

Axes: volumes (x, y, slice) or, all contrasts in one file, (contrast, x, y, slice); samples have (..., y, x). In samples
x leads to the left, y to the back and z to the head, as `python -m gadgets segment` shows a network its images. To read
a slice of a .nii.gz, the file must be unpacked up to it. A slice of a .nii is read directly.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mrnets.errors import InputError
from training.data import Place, Sample, Slices
from training.readers.files import examined, nifti, split_problems, to_upright, voxels
from training.split import Part, Split, part_of

__all__ = [
    "ENDINGS",
    "FOUR",
    "THREE",
    "Subject",
    "around",
    "as_sample",
    "block",
    "depth",
    "examined_volumes",
    "label_planes",
    "stem",
    "told",
    "turn_of",
    "volumes",
    "with_anatomy",
]

ENDINGS = (".nii.gz", ".nii")
FOUR = ("contrast", "x", "y", "slice")
THREE = ("x", "y", "slice")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """The files of one scan."""

    path: str
    """Its folder, or its file, as messages name it."""
    patient: str
    """The name that is split: all scans of one patient are for the same part."""
    images: tuple[Path, ...]
    """One file for each contrast; or one of all."""
    labels: Path
    transposed: bool = False
    """Its arrays are (y, x), not (x, y)."""
    elsewhere: tuple[int, ...] = ()
    """Those of `images` that have a grid of their own."""

    @property
    def axes(self) -> tuple[str, ...]:
        return THREE if len(self.images) > 1 else FOUR


def stem(path: Path) -> str:
    """The name without .nii or .nii.gz."""
    ending = next((e for e in ENDINGS if path.name.endswith(e)), "")
    return path.name[: len(path.name) - len(ending)]


def volumes(
    subjects: Sequence[Subject],
    part: Part,
    split: Split,
    load: Callable[[Place], Sample],
    labels: tuple[str, ...],
    count: Callable[[Subject], Sequence[int]] | None = None,
) -> Slices:
    """Return the slices of the subjects of `part`: those that `count` names; None: as many as the volume has.

    Raises InputError where a file is missing, or where the first one of a subject is not as it should be.
    """
    for path in (path for s in subjects for path in (*s.images, s.labels)):
        if not path.is_file():
            raise InputError(f"{path}: there is no such file")
    mine = set(part_of([s.patient for s in subjects], part, split))
    places = [
        Place(s.path, n, s.patient)
        for s in sorted(subjects, key=lambda s: (s.patient, s.path))
        if s.patient in mine
        for n in (count(s) if count else range(depth(s)))
    ]
    return Slices(tuple(places), load, labels)


def depth(subject: Subject) -> int:
    """Slices, from the header."""
    return int(nifti(subject.images[0], subject.axes).shape[-1])


def with_anatomy(subject: Subject, number: int) -> int:
    """Return the slice to take for the `number`-th of the volume. Slices that show nothing are replaced by others.

    To know them, the first contrast is read once in each process. In `Reader.read` this would take minutes.
    """
    first, last, total = _extent(subject.images[0], subject.axes)
    return first + number * (last - first + 1) // total


@lru_cache(maxsize=4096)
def _extent(path: Path, axes: tuple[str, ...]) -> tuple[int, int, int]:
    """The first and the last slice that is not of one value throughout, and the number of slices."""
    values = voxels(path, axes=axes)
    planes = values.reshape(-1, values.shape[-1], order="A")
    shows = np.flatnonzero(~(planes.max(0) == planes.min(0)))
    total = planes.shape[1]
    return (int(shows[0]), int(shows[-1]), total) if len(shows) else (0, total - 1, total)


def around(number: int, total: int, slices: int) -> tuple[slice, list[int]]:
    """Return the slices to read for `slices` neighbours of `number`, and the index of each among them. Edges are
    repeated."""
    wanted = np.clip(np.arange(number - slices // 2, number - slices // 2 + slices), 0, total - 1)
    return slice(int(wanted[0]), int(wanted[-1]) + 1), [int(n - wanted[0]) for n in wanted]


def block(path: Path, axes: tuple[str, ...], number: int, slices: int) -> NDArray[np.float32]:
    """Return `slices` neighbours of slice `number` of a volume, along the last axis."""
    read, which = around(number, int(nifti(path, axes).shape[-1]), slices)
    return voxels(path, (..., read), axes)[..., which]


@dataclass(frozen=True)
class Turn:
    """How slices of a file become axial slices whose x leads to the left and whose y to the back."""

    transposed: bool
    """The arrays of the file are (y, x), not (x, y)."""
    flipped: tuple[bool, bool, bool] = (False, False, False)
    """z, y and x lead the other way in the file."""

    def planes(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(..., x, y, z) of the file, or (..., y, x, z), to (..., z, y, x)."""
        planes = np.moveaxis(values if self.transposed else values.swapaxes(-3, -2), -1, -3)
        return np.flip(planes, tuple(n - 3 for n, flip in enumerate(self.flipped) if flip))


def turn_of(subject: Subject) -> Turn:
    """Return how the slices of a subject are turned.

    Files with all contrasts in one are converted ones, whose headers do not tell directions: they are taken as stored.
    So are slices that are not axial, with a warning."""
    return Turn(subject.transposed) if subject.axes == FOUR else _turn(subject.labels)


@lru_cache(maxsize=4096)
def _turn(path: Path) -> Turn:
    (x, x_along), (y, y_along), (z, z_along) = to_upright(nifti(path, THREE))
    if z != 2:
        _logger.warning(
            "%s: its slices are not axial; they are taken as stored, but the command gadgets segment shows a network "
            "axial slices",
            path,
        )
        return Turn(transposed=False)
    first, second = (y_along, x_along) if x < y else (x_along, y_along)
    return Turn(x > y, (z_along < 0, first < 0, second < 0))


def label_planes(
    values: NDArray[np.float32], classes: Mapping[str, Sequence[int]], where: str, known: Sequence[int] = ()
) -> NDArray[np.bool_]:
    """Return labels (z, y, x) as one plane for each class, (class, z, y, x).

    Raises InputError for labels that are not 0, not of a class and not among the `known`.
    """
    allowed = sorted({0, *known, *(n for numbers in classes.values() for n in numbers)})
    wrong = values[~np.isin(values, allowed)]
    if wrong.size:
        raise InputError(f"{where}: labels must be of {allowed}, and there is {wrong.flat[0]:g}")
    return np.stack([np.isin(values, list(numbers)) for numbers in classes.values()])


def as_sample(
    subject: Subject,
    number: int,
    values: Sequence[NDArray[np.float32]],
    contrasts: Sequence[str],
    classes: Mapping[str, Sequence[int]],
    slices: int,
) -> Sample:
    """Return the slice `number` and its neighbours of a subject; `values` are the blocks of its images, as in the
    files. Values below 0 become 0, but for converted files, whose values may be normalised.

    Labels are read here. z is left out where `slices` is 1. Raises InputError where files do not fit each other.
    """
    labels = block(subject.labels, THREE, number, slices)
    if subject.axes != FOUR:  # ADC maps and interpolation can be below 0, and the command segment clips them, too
        values = [np.maximum(some, 0) for some in values]
    grids = sorted({v.shape[-3:-1] for v in (*values, labels)})
    if len(grids) > 1:
        raise InputError(f"{subject.path}: contrasts and labels have different grids {grids}")
    turn = turn_of(subject)
    image = turn.planes(np.stack(values) if len(values) > 1 else values[0])
    if len(image) != len(contrasts):
        raise InputError(f"{subject.path}: must have the contrasts {', '.join(contrasts)}, got {len(image)}")
    planes = label_planes(turn.planes(labels), classes, str(subject.labels))
    if slices == 1:
        image, planes = image[:, 0], planes[:, 0]
    return Sample(
        names=(f"{subject.path}, slice {number}",),
        places=(
            Place(subject.path, number, subject.patient, not turn.transposed, str(subject.labels), turn.flipped[1:]),
        ),
        image=torch.from_numpy(np.ascontiguousarray(image, np.float32))[None],
        labels=torch.from_numpy(np.ascontiguousarray(planes))[None],
    )


def examined_volumes(
    subjects: Sequence[Subject], contrasts: int, split: Split, source: Callable[[], Slices]
) -> Iterator[str]:
    """Give a sentence for an empty part, and for each subject whose files cannot be read or do not fit each other.

    Where there is none of these, a few slices of `source` are read, and each that cannot be used gets a sentence.
    """
    found = list(split_problems([s.patient for s in subjects], split))
    for subject in subjects:
        found += _misfits(subject, contrasts)
    yield from found
    if not found:
        yield from examined(source())


def _misfits(subject: Subject, contrasts: int) -> Iterator[str]:
    try:
        shapes = {path: nifti(path, subject.axes).shape for path in subject.images}
        grid = nifti(subject.labels, THREE).shape
    except InputError as error:
        yield str(error)
        return
    for number, (path, shape) in enumerate(shapes.items()):
        if len(shape) == 4 and shape[0] != contrasts:
            yield f"{path}: must have {contrasts} contrasts along its first axis, got the shape {shape}"
        if shape[-3:] != grid and number not in subject.elsewhere:
            yield f"{path}: has the grid {shape[-3:]}, but {subject.labels.name} has {grid}"


def told(left_out: Sequence[str], why: str) -> None:
    """Name in the log what is left out: the first, and the number of the others."""
    if left_out:
        _logger.warning("%s and %d more: %s", left_out[0], len(left_out) - 1, why)
