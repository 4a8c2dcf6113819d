"""Predictions of a data set in files: in the units, on the grid and along the axes of its own files.

FOLDER/METHOD/VOLUME.h5 has, where a method gives it:

- `reconstruction` ([slice, echo,] row, column) complex64, without the axis of echoes where there is one;
- `maps/R2*` and so on, (slice, row, column) float32, with the attribute `unit`;
- `segmentation` (slice, class, row, column) uint8, with the attribute `labels`; of several slices in a network, the
  middle one;
- `slices` (slice,): their numbers in the data set. Without it they are 0, 1, 2 and so on, as in files of others.

The attribute `volume` is the path of the volume in the data set. Volumes of one name in several folders have as many of
these folders in the names of their files as make them differ.

Beside it are NIfTI files: VOLUME.nii.gz (magnitude), VOLUME_R2*.nii.gz and VOLUME_seg.nii.gz. They have the grid and
the position of the data set's NIfTI files, where it has any.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mrnets.classes import classes_of, decided
from mrnets.contract import Estimate
from mrnets.errors import InputError
from mrnets.files import make_folder, write_bytes
from mrnets.hdf5 import whole_hdf5
from mrnets.physics.arrays import to_numpy
from mrnets.physics.maps import MAPS, facts
from mrnets.restore import restore
from training.data import Example, Place, within
from training.readers.files import array, hdf5, nifti

__all__ = ["Names", "Saved", "Writer", "as_measured", "restored"]

Planes = dict[str, NDArray[Any]]
"""The results of a method for a slice: "reconstruction", "segmentation", "maps/R2*" and so on, (..., row, column)."""


def restored(estimate: Estimate, example: Example) -> Estimate:
    """Return an estimate of `example` in the units and on the grid of the data. Raises InputError without a way
    back."""
    if example.ready is None:
        raise InputError(f"{example.names[0]}: simulated on the device, so there are no data to go back to")
    return restore(estimate, example.ready)


def as_measured(example: Example) -> Example:
    """Return `example` with its targets in the units and on the grid of the data, for scores of predictions there."""
    known, labels = restored(Estimate(image=example.target, maps=example.maps), example), example.labels
    if labels is not None and labels.ndim == 5:  # of a network on several slices, predictions are the middle one
        labels = labels[:, :, labels.shape[2] // 2]
    return dataclasses.replace(example, target=known.image, maps=known.maps, labels=labels, kspace=None, held=None)


@dataclass(frozen=True)
class Names:
    """The names of the files of volumes."""

    names: Mapping[str, str]
    """By the paths of volumes."""
    data: str | None
    """The folder of the data set."""

    @staticmethod
    def of(paths: Iterable[str], data: str | None) -> Names:
        """Return a name for each volume: that of its file, with as many of its folders as make it differ from all
        others. Raises InputError where its folders in the data set are not enough."""
        depths = dict.fromkeys(paths, 1)
        while True:
            names = {path: _stem(within(path, data), depth) for path, depth in depths.items()}
            times = Counter(names.values())
            alike = [path for path, name in names.items() if times[name] > 1]
            if not alike:
                return Names(names, data)
            longer = [path for path in alike if depths[path] < len(PurePath(within(path, data)).parts)]
            if not longer:
                one, other, *_ = (path for path in alike if names[path] == names[alike[0]])
                raise InputError(f"{one}: predictions of {other} would have the same name, {names[one]}")
            depths.update({path: depths[path] + 1 for path in longer})

    def name(self, place: Place) -> str:
        return self.names.get(place.path) or _stem(place.path, 1)

    def volume(self, place: Place) -> str:
        """Return the path of the volume in its data set, which its file of predictions records."""
        return within(place.path, self.data)


class Writer:
    """Predictions, slice by slice; a volume is written when another one begins.

    Slices that come after their volume was written are left out.
    """

    def __init__(self, folder: Path, names: Names, labels: Sequence[str]) -> None:
        self._folder, self._names, self._labels = folder, names, tuple(labels)
        self._slices: dict[str, dict[int, Planes]] = {}
        self._place: Place | None = None
        self._written: set[str] = set()
        """Paths of volumes."""

    def add(self, method: str, estimate: Estimate, example: Example) -> None:
        """Take the estimate of one slice. Raises InputError where the volume before it cannot be written."""
        (place,) = example.places
        if self._place is not None and place.path != self._place.path:
            self.close()
        if place.path in self._written:
            return
        self._place = place
        planes = _planes(restored(estimate, example), self._labels)
        self._slices.setdefault(method, {})[place.index] = {name: place.stored(p) for name, p in planes.items()}

    def close(self) -> None:
        """Write the volume. Raises InputError where its file has predictions of another volume."""
        for method, slices in self._slices.items():
            assert self._place is not None
            folder, name = make_folder(self._folder / method), self._names.name(self._place)
            numbers = sorted(slices)
            stacked = {what: np.stack([slices[n][what] for n in numbers]) for what in slices[numbers[0]]}
            path, volume = folder / f"{name}.h5", self._names.volume(self._place)
            if path.exists():
                with hdf5(path) as before:
                    _require_volume(before, volume)
            _write_hdf5(path, volume, stacked, numbers, self._labels)
            for ending, image in _niftis(stacked, numbers, self._place):
                write_bytes(folder / f"{name}{ending}.nii.gz", image)
            self._written.add(self._place.path)
        self._slices = {}


class Saved:
    """Predictions in a folder, by method."""

    def __init__(self, folder: Path, names: Names) -> None:
        self._methods = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        if not self._methods:
            raise InputError(f"{folder}: no folder of predictions, with a folder for each method in it")
        self._names = names

    def estimates(self, example: Example, labels: Sequence[str]) -> Iterator[tuple[str, Estimate]]:
        """Yield each method and its estimate of one slice, on the grid of the data. Raises InputError where there is
        none."""
        (place,) = example.places
        for folder in self._methods:
            with hdf5(folder / f"{self._names.name(place)}.h5") as file:
                _require_volume(file, self._names.volume(place))
                yield folder.name, _estimate(file, place, example, labels)


def _planes(estimate: Estimate, labels: Sequence[str]) -> Planes:
    """The results for the first element of a batch."""
    planes: Planes = {f"maps/{name}": to_numpy(m[0].float()) for name, m in estimate.maps.items()}
    if estimate.image is not None:
        image = to_numpy(estimate.image[0].to(torch.complex64))
        planes["reconstruction"] = image[0] if len(image) == 1 else image
    if estimate.logits is not None:
        masks = to_numpy(decided(estimate.logits, classes_of(labels)))[0].astype(np.uint8)
        planes["segmentation"] = masks if masks.ndim == 3 else masks[:, masks.shape[1] // 2]
    return planes


def _stem(path: str, depth: int) -> str:
    """The name of a volume without its ending, after `depth` - 1 of its folders: "patient3_scan"."""
    *folders, name = PurePath(path).parts[-depth:]
    ending = ".nii.gz" if name.endswith(".nii.gz") else PurePath(name).suffix
    return "_".join((*folders, name.removesuffix(ending)))


def _require_volume(file: Any, volume: str) -> None:
    """Raise InputError for a file that says it is of another volume. Files of other software say nothing.

    The one path may begin further down than the other: the data set was then given by a folder within it."""
    found = str(file.attrs.get("volume", volume))
    if any(a != b for a, b in zip(reversed(PurePath(found).parts), reversed(PurePath(volume).parts), strict=False)):
        raise InputError(f"{file.filename}: has predictions of {found}, and not of {volume}; take another folder")


def _write_hdf5(path: Path, volume: str, stacked: Planes, numbers: Sequence[int], labels: Sequence[str]) -> None:
    with whole_hdf5(path) as (file, draft):
        file.attrs["volume"] = volume
        file["slices"] = np.asarray(numbers)
        for name, planes in stacked.items():
            data = file.create_dataset(name, data=planes, compression="gzip" if name == "segmentation" else None)
            if name == "segmentation":
                data.attrs["labels"] = list(labels)
            elif name.startswith("maps/"):
                data.attrs["unit"] = facts(name.removeprefix("maps/")).unit
            draft.check()


def _niftis(stacked: Planes, numbers: Sequence[int], place: Place) -> Iterator[tuple[str, bytes]]:
    """The end of the name and the content of each NIfTI file: (x, y, slice[, echo or class])."""
    import nibabel

    like = nifti(place.grid, ("x", "y", "slice")) if place.grid else None
    for name, planes in stacked.items():
        values = np.abs(planes) if np.iscomplexobj(planes) else planes
        if like is None and not place.transposed:
            values = values.swapaxes(-1, -2)
        volume = np.moveaxis(values, 0, -1)  # ([echo or class,] x, y, slice)
        if volume.ndim == 4:
            volume = np.moveaxis(volume, 0, -1)
        if like is not None:
            whole = np.zeros((*like.shape, *volume.shape[3:]), volume.dtype)
            whole[:, :, list(numbers)] = volume
            volume = whole
        image = nibabel.Nifti1Image(volume, np.eye(4) if like is None else like.affine)
        ending = {"reconstruction": "", "segmentation": "_seg"}.get(name, f"_{name.removeprefix('maps/')}")
        yield ending, _zipped(image.to_bytes())


def _zipped(content: bytes) -> bytes:
    import gzip

    return gzip.compress(content, compresslevel=1, mtime=0)


def _estimate(file: Any, place: Place, example: Example, labels: Sequence[str]) -> Estimate:
    """The prediction of a slice. Raises InputError where the file has none, or none of the data's grid."""
    index = _index(file, place)
    planes = {name: _plane(file, name, index, place) for name in _found(file)}
    if not planes:
        raise InputError(f"{file.filename}: no reconstruction, maps or segmentation in it")
    image, masks = planes.get("reconstruction"), planes.get("segmentation")
    if image is not None and example.target is not None:
        _fit(file, image.shape[-2:], example.target.shape[-2:])
    if masks is not None and example.labels is not None and len(masks) != len(labels):
        raise InputError(f"{file.filename}: segmentation has {len(masks)} classes, the data have {len(labels)}")
    device = example.weight.device
    return Estimate(
        image=None if image is None else torch.from_numpy(image.reshape(1, -1, *image.shape[-2:])).to(device),
        maps={n.removeprefix("maps/"): torch.from_numpy(p)[None].to(device) for n, p in planes.items() if "maps/" in n},
        logits=None if masks is None else torch.from_numpy(masks.astype(np.float32) * 2 - 1)[None].to(device),
    )


def _found(file: Any) -> list[str]:
    return [name for name in ("reconstruction", "segmentation", *(f"maps/{m}" for m in MAPS)) if name in file]


def _index(file: Any, place: Place) -> int:
    """The position of a slice in the file. Raises InputError."""
    if "slices" not in file:
        return place.index
    numbers = array(file, "slices", ("slice",), "integer")[()]
    (where,) = np.nonzero(numbers == place.index)
    if not len(where):
        raise InputError(f"{file.filename}: there is no prediction of slice {place.index} in it")
    return int(where[0])


def _plane(file: Any, name: str, index: int, place: Place) -> NDArray[Any]:
    """(..., y, x) of a slice."""
    rank = getattr(file.get(name), "ndim", 0)
    axes = ("slice", "echo", "row", "column") if rank == 4 else ("slice", "row", "column")
    data = file.get(name)
    data = array(file, name, axes, "complex" if getattr(data, "dtype", np.dtype(float)).kind == "c" else "real")
    if index >= data.shape[0]:
        raise InputError(f"{file.filename}: {name} has {data.shape[0]} slices, and slice {place.index} was expected")
    kind = np.complex64 if data.dtype.kind == "c" else np.float32
    plane = np.asarray(data[index], kind)
    return np.ascontiguousarray(place.seen(plane))


def _fit(file: Any, got: Any, wanted: Any) -> None:
    if tuple(got) != tuple(wanted):
        raise InputError(
            f"{file.filename}: reconstruction is {got[0]} x {got[1]} (y, x), the data {wanted[0]} x {wanted[1]}"
        )
