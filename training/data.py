"""Samples that readers give, examples that the loop takes, and data sets as lists of slices.

A reader is a file in `training/readers` with a frozen dataclass `Reader`, whose fields are its options. A recipe sets
them under `reader.options`. Axes: see `mrnets.contract`.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from mrnets import plugins
from mrnets.contract import Raw, Scan
from mrnets.errors import InputError, unknown
from mrnets.physics.arrays import Array
from mrnets.restore import Prepared
from training.split import Part, Split
from training.typed import fitted

__all__ = [
    "Example",
    "Place",
    "Preparing",
    "Reader",
    "Sample",
    "Slices",
    "Source",
    "bind",
    "names",
    "stacked",
    "within",
]

_LISTS = ("names", "volumes", "places")
"""Fields of a sample with a value for each of its elements."""
_READERS = Path(__file__).parent / "readers"
_ASIDE = ("anatomy", "files")
"""Modules of that folder that readers use."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a slice lies."""

    path: str
    """The file, or the folder of a subject."""
    index: int
    subject: str
    transposed: bool = False
    """The file has its planes as (x, y)."""
    grid: str = ""
    """The NIfTI file on whose grid (x, y, slice) the slice lies; empty: the data set has no NIfTI files."""
    flipped: tuple[bool, bool] = (False, False)
    """Whether y and x of the slice run against the axes of the file."""

    def stored(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Return a plane (..., y, x) of the slice along the axes of the file."""
        plane = np.flip(plane, self._against)
        return plane.swapaxes(-1, -2) if self.transposed else plane

    def seen(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Return a plane of the file as (..., y, x) of the slice: the inverse of `stored`."""
        return np.flip(plane.swapaxes(-1, -2) if self.transposed else plane, self._against)

    @property
    def _against(self) -> tuple[int, ...]:
        return tuple(n - 2 for n, flip in enumerate(self.flipped) if flip)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Slices of a data set as they were measured: before undersampling and preparing. Tensors in CPU memory.

    Reconstruction has `raw`; quantitative maps `raw` with echo times; segmentation `image` and `labels`; joint tasks
    `raw` and `labels`. A batch axis comes first everywhere; readers give one slice.
    """

    names: tuple[str, ...]
    """For people: file and slice, of each element of the batch."""
    volumes: tuple[str, ...] = ()
    """The volume of each element, its path; outside training all slices of one get the same mask. `Slices` fills it."""
    places: tuple[Place, ...] = ()
    """Where each element lies. `Slices` fills it where the reader, which may have taken another slice, has not."""
    raw: Raw | None = None
    """Fully sampled (mask all true), or as the scanner sampled it. `readout` as of the fully sampled data."""
    coil_images: Array | None = None
    """(batch, echo, coil, y, x) complex64: the coil images of the target. They are given where `raw` is sampled already
    or where the target is noise-free; None: the coil images of `raw`."""
    mask: Array | None = None
    """(batch, 1, 1, y, x) bool: a sampling mask that comes with the data, not yet applied."""
    image: Array | None = None
    """(batch, contrast, [z,] y, x) float32, of any scale."""
    labels: Array | None = None
    """(batch, class, [z,] y, x) bool, one plane for every name in `Source.labels`."""
    region: Array | None = None
    """(batch, y, x) bool: where the result counts (for maps: the brain); None: everywhere."""
    maps: dict[str, Array] = field(default_factory=dict)
    """Name to (batch, y, x), SI units, "S0" in the scale of `raw`: known maps; where there are none they are fitted."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A batch that is masked, prepared and on the device of the network; targets in the scale of `scan`."""

    scan: Scan
    names: tuple[str, ...]
    target: Array | None = None
    """(batch, echo, y, x) complex64."""
    kspace: Array | None = None
    """(batch, echo, coil, y, x) complex64: samples with which predictions are compared where `held` is true."""
    held: Array | None = None
    """(batch, 1, 1, y, x) bool: samples that the network does not get; see `training.selfsupervised`."""
    maps: dict[str, Array] = field(default_factory=dict)
    """Name to (batch, y, x), SI units, "S0" in the scale of `scan`."""
    labels: Array | None = None
    """(batch, class, [z,] y, x) bool."""
    region: Array | None = None
    """(batch, y, x) bool; None: everywhere."""
    weight: Array
    """(batch,) float32: 1, or 0 for a slice that the loss leaves out."""
    places: tuple[Place, ...] = ()
    """As in `Sample`."""
    ready: Prepared | None = None
    """The way back to the units and the grid of the data, without the scan; None in training."""


class Source(Protocol):
    """A data set, or a part of one."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; "background" first where each pixel has exactly one class."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """Whose data these are, for the provenance of weights; no paths of this machine."""

    def __len__(self) -> int:
        """Samples in an epoch."""

    def take(self, numbers: Sequence[int], rng: np.random.Generator) -> Sample:
        """Return the samples of these numbers, from 0 on and below the length, as one batch."""


class Reader(Protocol):
    """How the files of a data set are read.

    The fields `settings` and `slices` of a reader are filled from the recipe's simulated scans and preparation.
    """

    def read(self, folder: Path | None, part: Part, split: Split) -> Source:
        """Return a part of the data set. Only names and headers are read; data follow slice by slice in `Source.take`,
        in the loader's processes. Raises InputError."""

    def check(self, folder: Path | None, split: Split) -> Iterator[str]:
        """Give a sentence for everything that is missing or malformed, within seconds: mostly from headers."""


@runtime_checkable
class Preparing(Protocol):
    """A source that also makes training batches on the device of the network, masked and prepared.

    What it makes is prepared as the default values of `Preparation` say.
    """

    def prepared(self, number: int, size: int, seed: int, device: torch.device) -> Example:
        """Return batch `number` of the run with this seed, of at most `size` slices."""


@dataclass(frozen=True)
class Slices:
    """A data set whose slices are read one at a time; picklable.

    A slice with values that are not finite is reported, and the next good one is taken instead. After the last comes
    the first. Outside training no slice counts twice: see `training.batches.once`.
    """

    places: tuple[Place, ...]
    load: Callable[[Place], Sample]
    """A function of a module, a method of a reader, or a `functools.partial` of one, so that other processes can have
    it. Raises InputError for malformed files."""
    labels: tuple[str, ...] = ()

    @property
    def subjects(self) -> tuple[str, ...]:
        return tuple(sorted({place.subject for place in self.places}))

    def __len__(self) -> int:
        return len(self.places)

    def take(self, numbers: Sequence[int], rng: np.random.Generator) -> Sample:
        return stacked([self._good(n) for n in numbers])

    def _good(self, number: int) -> Sample:
        for n in range(number, number + len(self)):
            place = self.places[n % len(self)]
            sample = self.load(place)
            if _finite(sample):
                return dataclasses.replace(sample, volumes=(place.path,), places=sample.places or (place,))
            _logger.warning("%s, slice %d: values that are not finite; left out", place.path, place.index)
        raise InputError(f"{self.places[0].path} and all other files: no slice has only finite values")


def within(path: str, folder: str | None) -> str:
    """Return a path of a data set relative to the data set's folder, wherever that lies: "train/file1.h5"."""
    if folder is None or not PurePath(path).is_relative_to(folder):
        return path
    return PurePath(path).relative_to(folder).as_posix()


def stacked(samples: Sequence[Sample]) -> Sample:
    """Return samples as one batch. Raises InputError where they differ in shape, in noise or in echo times."""
    if len(samples) == 1:
        return samples[0]
    first = samples[0]
    values = {
        f.name: _joined(f.name, [getattr(s, f.name) for s in samples], samples)
        for f in dataclasses.fields(Sample)
        if f.name not in (*_LISTS, "raw", "maps")
    }
    raws = [s.raw for s in samples if s.raw is not None]
    if len({(s.raw is None, *sorted(s.maps)) for s in samples}) > 1:
        held = [", ".join(("no k-space" if s.raw is None else "k-space", *s.maps)) for s in samples]
        raise _differ("what they hold", held, samples)
    raw = None
    if raws:
        parts = ("kspace", "mask", "calibration", "sens")
        joined = {name: _joined(name, [getattr(r, name) for r in raws], samples) for name in parts}
        rest = [f.name for f in dataclasses.fields(Raw) if f.name not in parts]
        alike = {name: _same(name, [getattr(r, name) for r in raws], samples) for name in rest}
        raw = Raw(**joined, **alike)
    maps = {name: torch.cat([s.maps[name] for s in samples]) for name in first.maps}
    lists: dict[str, Any] = {f: tuple(one for s in samples for one in getattr(s, f)) for f in _LISTS}
    return Sample(**lists, raw=raw, maps=maps, **values)


def names() -> list[str]:
    """Return the names of all readers: the files of `training/readers`."""
    return sorted(p.stem for p in _READERS.glob("*.py") if not p.stem.startswith("_") and p.stem not in _ASIDE)


def bind(name: str, options: Mapping[str, Any], /, **given: Any) -> Reader:
    """Return the reader `name` with its options, and with those of `given` that it knows and that `options` leave open.

    Raises InputError for an unknown reader or option, and for a value of another type.
    """
    reader = _class(name)
    hints = typing.get_type_hints(reader)
    for key in options:
        if key not in hints:
            raise unknown(f"option of reader {name}", key, hints)
    values = {key: fitted(hints[key], value, f"{key} of reader {name}") for key, value in options.items()}
    made: Reader = reader(**{**{key: value for key, value in given.items() if key in hints}, **values})
    return made


def _class(name: str) -> Any:
    """The dataclass of a reader, in this package or another one. Raises InputError."""
    if name in names():
        return importlib.import_module(f"training.readers.{name}").Reader
    if plugins.find("reader", name) is None:
        raise unknown("reader", name, [*names(), *plugins.registered("reader")])
    found = plugins.load("reader", name)
    if not (dataclasses.is_dataclass(found) and callable(getattr(found, "read", None))):
        raise InputError(f"the reader {name} is no dataclass with the methods read and check")
    return found


def _joined(name: str, arrays: Sequence[Any], samples: Sequence[Sample]) -> Any:
    shapes = [None if a is None else tuple(a.shape) for a in arrays]
    if len(set(shapes)) > 1:
        raise _differ(name, shapes, samples)
    return None if arrays[0] is None else torch.cat(list(arrays))


def _same(name: str, values: Sequence[Any], samples: Sequence[Sample]) -> Any:
    """The one value of a field that a batch has once. Slices of scans with other noise would be whitened wrongly."""
    first = values[0]
    for value in values[1:]:
        if isinstance(first, torch.Tensor) and isinstance(value, torch.Tensor):
            alike = torch.equal(first, value)
        else:
            alike = not isinstance(value, torch.Tensor) and first == value
        if not alike:
            raise _differ(name, ["one" if v is first else "another" for v in values], samples)
    return first


def _differ(what: str, values: Sequence[Any], samples: Sequence[Sample]) -> InputError:
    each = ", ".join(f"{s.names[0]}: {value}" for s, value in zip(samples, values, strict=True))
    return InputError(f"a batch needs slices that are alike, and {what} differs ({each}); use batch=1 and accumulate")


def _finite(sample: Sample) -> bool:
    raw = sample.raw
    arrays = (sample.image, sample.coil_images, *((raw.kspace, raw.sens) if raw is not None else ()))
    return all(a is None or bool(torch.isfinite(torch.view_as_real(a) if a.is_complex() else a).all()) for a in arrays)
