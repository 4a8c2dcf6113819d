"""Images with label maps, a folder of NIfTI files for each subject: for segmentation, and as simulated scans for joint
networks.

    folder/SUBJECT/FLAIR.nii.gz  T1.nii.gz ...  lesions.nii.gz

All files of a subject have one grid. Axes: volume (z, y, x), slice (y, x). x leads to the left, y to the back and z to
the head, however a file stores them: `python -m gadgets segment` shows a network its images so.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from mrnets.classes import classes_of, decided
from mrnets.errors import InputError
from mrnets.values import fits
from training.data import Place, Sample, Slices, Source, stacked
from training.readers._variation import varied, weighted
from training.readers.anatomy import draw_view, load_volume, seen
from training.readers.files import examined, in_sentences, nifti, split_problems, to_upright, voxels
from training.readers.simulated import draw_layout, scanned
from training.settings import Simulated
from training.split import Part, Split, part_of

__all__ = ["Drawn", "Reader"]

Axis = Literal["z", "y", "x"]
AXES: tuple[Axis, ...] = ("z", "y", "x")
_ENDINGS = (".nii", ".nii.gz")
_MARGIN = 2.5
"""Largest factor of the field of view that fits what is in a slice."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Slices of the subjects below a folder, as they are, in random fields of view, or as simulated scans."""

    contrasts: tuple[str, ...] = ("FLAIR*",)
    """Names of files, with * and ?; each must match one file of a subject's folder."""
    label_map: str = "*seg*"
    """The same, of the file with labels."""
    classes: dict[str, Any] = field(default_factory=lambda: {"lesion": [1]})
    """Each class by name, and its values in the label map. With "background" first each pixel has exactly one class.
    Else classes may overlap, and 0 belongs to none. Other values are an error."""
    axes: tuple[Axis, ...] = ("z",)
    """The axes across which slices lie."""
    least: float = 0.02
    """Share of a slice that must be brighter than a tenth of bright tissue."""
    empty: float = 1.0
    """In training, the share of the slices without any label that are kept, evenly spaced."""
    drawn: bool = False
    """Rotate, flip, stretch, move and shade training slices at random, on grids of `simulated.matrix`."""
    scans: bool = False
    """Make simulated scans of the first contrast, as `simulated` says, with drawn grids for all parts."""
    scalp: float = 0.0
    """Share of drawn slices that get a scalp around what they show: for heads where only brains are labelled."""
    companion: str = ""
    """Name of a file with which drawn slices are weighted at random, and which is not given itself. A T1-weighted image
    varies FLAIR as scanners and protocols do."""
    slices: int = 1
    """Neighbours, an odd number, that make z where more than 1. Edges are repeated."""
    settings: Simulated = field(default_factory=Simulated)
    """The distributions of simulated scans."""

    def read(self, folder: Path, part: Part, split: Split) -> Source:
        """Return the slices of the subjects of `part`. The volumes are read once now, to know which slices there are.

        Raises InputError for folders, files or classes that are not so.
        """
        vary = self.drawn and part == "train"
        if self.scans and (len(self.contrasts) != 1 or self.slices != 1):
            raise InputError("reader labelled: simulated scans show one contrast and one slice")
        layout = self._layout(mixed=vary)
        folders = _folders(folder)
        places: list[Place] = []
        for name in part_of(list(folders), part, split):
            kept = _kept(_subject(folders[name], layout), layout, self.least, self.empty if part == "train" else 1.0)
            places += [Place(str(folders[name]), index, name) for index in kept]
        fixed = Slices(tuple(places), functools.partial(_load, layout), tuple(layout.classes))
        return Drawn(fixed, layout, self, vary) if self.scans or vary else fixed

    @in_sentences
    def check(self, folder: Path, split: Split) -> Iterator[str]:
        """Give a sentence for each subject whose files are missing, too many or of different grids.

        A few slices are read, too, and get one where they cannot be read or have values of no class.
        """
        layout, folders = self._layout(mixed=self.drawn), _folders(folder)
        yield from split_problems(folders, split)
        good = []
        for name, path in folders.items():
            try:
                good.append(Place(str(path), _length(_subject(path, layout), layout) // 2, name))
            except InputError as error:
                yield str(error)
        yield from examined(Slices(tuple(good), functools.partial(_load, layout), tuple(layout.classes)))

    def _layout(self, *, mixed: bool) -> Layout:
        companion = (self.companion,) if mixed and self.companion else ()
        classes = _classes(self.classes)
        return Layout((*self.contrasts, *companion), self.label_map, classes, self.axes, self.slices)


@dataclass(frozen=True)
class Layout:
    """The files and values that are looked for in a subject's folder."""

    contrasts: tuple[str, ...]
    label_map: str
    classes: Mapping[str, tuple[int, ...]]
    axes: tuple[Axis, ...]
    slices: int


@dataclass(frozen=True)
class Subject:
    """Files of one grid; shape and spacing (mm) are (z, y, x)."""

    images: tuple[Path, ...]
    labels: Path
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class Drawn:
    """Slices in a random field of view, or simulated scans of it."""

    slices: Slices
    layout: Layout
    how: Reader
    vary: bool
    """Whether they are for training, and change more than their field of view."""

    @property
    def labels(self) -> tuple[str, ...]:
        return self.slices.labels

    @property
    def subjects(self) -> tuple[str, ...]:
        return self.slices.subjects

    def __len__(self) -> int:
        return len(self.slices)

    def take(self, numbers: Sequence[int], rng: np.random.Generator) -> Sample:
        layout = draw_layout(self.how.settings, rng)
        if not self.how.scans:
            return stacked([self._one(number, layout.shape, None, rng) for number in numbers])
        drawn = stacked([self._one(number, layout.shape, layout.fine, rng) for number in numbers])
        assert drawn.image is not None
        scan = scanned(drawn.image[:, 0], layout, self.how.settings, rng)
        return dataclasses.replace(scan, names=drawn.names, volumes=drawn.volumes, labels=drawn.labels)

    def _one(
        self, number: int, shape: tuple[int, int], fine: tuple[int, int] | None, rng: np.random.Generator
    ) -> Sample:
        """image on the grid `fine` or, where there is none, `shape`; labels on `shape`."""
        sample = self.slices.take([number], rng)
        assert sample.image is not None
        assert sample.labels is not None
        image, labels = sample.image[0], sample.labels[0]
        stack = image.shape[1:-2]  # neighbouring slices, if any
        view = draw_view(image.flatten(0, -3)[math.prod(stack) // 2], self._spacing(number), rng)
        if self.vary and rng.random() < 0.5:  # the outer slices of a scan have wide margins
            view[:, :2] *= rng.uniform(1, _MARGIN)
        image = seen(image.flatten(0, -3), view, fine or shape)
        if self.vary and self.how.companion:
            *contrasts, companion = image.unflatten(0, (-1, math.prod(stack)))
            image = weighted(torch.stack(contrasts), companion, rng)
        if self.vary:
            image = varied(image, self.how.scalp, rng)
        labels = seen(labels.flatten(0, -3).float(), view, shape, fine)
        labels = _decided(labels.reshape(len(self.labels), *stack, *shape), self.labels)
        return dataclasses.replace(sample, image=image.reshape(1, -1, *stack, *image.shape[-2:]), labels=labels[None])

    def _spacing(self, number: int) -> tuple[float, float]:
        place = self.slices.places[number]
        subject = _subject(Path(place.path), self.layout)
        axis, _ = _where(subject, self.layout, place.index)
        first, second = (s for n, s in enumerate(subject.spacing) if n != axis)
        return first, second


def _classes(classes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name to values. Raises InputError."""
    made = {}
    for name, given in classes.items():
        values = given if isinstance(given, list | tuple) else [given]
        if not values or not all(fits(v, int) for v in values):
            raise InputError(f"reader labelled: class {name} must be a list of whole numbers, got {given!r}")
        made[str(name)] = tuple(values)
    if not made:
        raise InputError("reader labelled: classes names no class")
    every = [v for values in made.values() for v in values]
    if next(iter(made)) == "background" and len(every) > len(set(every)):
        raise InputError("reader labelled: with a background, each value belongs to one class")
    return made


def _folders(folder: Path) -> dict[str, Path]:
    """Name to folder of the subjects: all at or below `folder` that hold NIfTI files. Raises InputError."""
    found = {path.parent for path in folder.rglob("*") if path.name.endswith(_ENDINGS)}
    if not found:
        raise InputError(f"{folder}: no folder below it holds NIfTI files (.nii, .nii.gz)")
    return {path.relative_to(folder).as_posix(): path for path in sorted(found)}


@functools.lru_cache(maxsize=4096)
def _found(folder: Path, patterns: tuple[str, ...]) -> tuple[Path, ...]:
    """The file of each pattern. Raises InputError where it is not one."""
    files = sorted(path for path in folder.iterdir() if path.name.endswith(_ENDINGS))
    chosen = []
    for pattern in patterns:
        matching = [path for path in files if fnmatchcase(path.name, pattern)]
        if len(matching) != 1:
            names = ", ".join(path.name for path in matching or files)
            raise InputError(f"{folder}: expected one NIfTI file {pattern}, found {len(matching)} ({names})")
        chosen += matching
    return tuple(chosen)


def _subject(folder: Path, layout: Layout) -> Subject:
    """The subject's files, by their headers. Raises InputError also where they have different grids."""
    *images, labels = _found(folder, (*layout.contrasts, layout.label_map))
    return _grid(tuple(images), labels)


@functools.lru_cache(maxsize=4096)
def _grid(images: tuple[Path, ...], labels: Path) -> Subject:
    header = nifti(labels)
    for path in images:
        other = nifti(path)
        if other.shape != header.shape or not np.allclose(other.affine, header.affine, atol=1e-2):
            raise InputError(f"{path}: expected the grid of {labels.name}, {header.shape}, got {other.shape}")
    order = np.argsort(to_upright(header)[:, 0])
    x, y, z = (int(header.shape[n]) for n in order)
    dx, dy, dz = (float(header.header.get_zooms()[n]) for n in order)
    return Subject(images, labels, (z, y, x), (dz, dy, dx))


def _length(subject: Subject, layout: Layout) -> int:
    return sum(subject.shape[AXES.index(axis)] for axis in layout.axes)


def _where(subject: Subject, layout: Layout, index: int) -> tuple[int, int]:
    """The axis of a place, and the slice across it. Slices across the first of the axes come first."""
    for axis in layout.axes:
        size = subject.shape[AXES.index(axis)]
        if index < size:
            return AXES.index(axis), index
        index -= size
    raise IndexError(index)


def _kept(subject: Subject, layout: Layout, least: float, empty: float) -> list[int]:
    """The slices with anatomy in them, and a share of those without labels."""
    bright = _image(subject.images[0]) > 0.1
    labelled = ~np.isin(_labels(subject.labels, _values(layout)), layout.classes.get("background", (0,)))
    kept, start, without = [], 0, 0
    for axis in layout.axes:
        others = tuple(n for n in range(3) if n != AXES.index(axis))
        anatomy, some = bright.mean(axis=others) >= least, labelled.mean(axis=others) > 0
        for n in np.flatnonzero(anatomy):
            if not some[n]:
                without += 1
                if int(without * empty) == int((without - 1) * empty):
                    continue
            kept.append(start + int(n))
        start += len(anatomy)
    return kept


def _load(layout: Layout, place: Place) -> Sample:
    """image (1, contrast, [z,] y, x), labels (1, class, [z,] y, x)."""
    subject = _subject(Path(place.path), layout)
    axis, index = _where(subject, layout, place.index)
    around = np.arange(index - layout.slices // 2, index + layout.slices // 2 + 1)
    around = around.clip(0, subject.shape[axis] - 1)  # the outermost slice is its own neighbour

    def cut(volume: NDArray[Any]) -> NDArray[Any]:
        planes = np.moveaxis(volume.take(around, axis=axis), axis, 0)
        return planes[0] if layout.slices == 1 else planes

    image = np.stack([cut(_image(path)) for path in subject.images])
    values = cut(_labels(subject.labels, _values(layout)))
    labels = np.stack([np.isin(values, of) for of in layout.classes.values()])
    name = f"{place.subject} {AXES[axis]} {index}"
    return Sample(names=(name,), image=torch.from_numpy(image)[None], labels=torch.from_numpy(labels)[None])


@functools.lru_cache(maxsize=8)
def _image(path: Path) -> NDArray[np.float32]:
    """(z, y, x), bright tissue 1. Kept: a slice of a compressed file costs as much as all of it."""
    return _upright(path, load_volume(path, path.name).data)


def _upright(path: Path, data: NDArray[Any]) -> NDArray[Any]:
    """The voxels (z, y, x) of a file, turned."""
    from nibabel.orientations import apply_orientation

    turned: NDArray[Any] = apply_orientation(data.T, to_upright(nifti(path))).T
    return turned


def _values(layout: Layout) -> tuple[int, ...]:
    known = {v for values in layout.classes.values() for v in values}
    return tuple(known if "background" in layout.classes else known | {0})


@functools.lru_cache(maxsize=8)
def _labels(path: Path, known: tuple[int, ...]) -> NDArray[np.int16]:
    """(z, y, x). Raises InputError for values that are not known."""
    data = _upright(path, voxels(path).T)
    others = np.setdiff1d(data, known)
    if others.size:
        shown = ", ".join(f"{v:g}" for v in others[:5])
        raise InputError(f"{path}: values of no class ({shown}); classes have {', '.join(map(str, sorted(known)))}")
    return data.astype(np.int16)


def _decided(planes: torch.Tensor, names: tuple[str, ...]) -> torch.Tensor:
    """Make interpolated planes (class, y, x), 0 to 1, bool: the largest where classes exclude each other, else above
    0.5."""
    return cast("torch.Tensor", decided(planes[None] - 0.5, classes_of(names))[0])
