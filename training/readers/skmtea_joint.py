"""SKM-TEA, raw data track: k-space of knees (qDESS, two echoes), sensitivities, sampling masks and tissue labels.

files_recon_calib-24/MTR_005.h5 has:

- kspace (x, ky, kz, echo, coil), inverse-transformed along the readout x; the transform is centred and orthonormal. The
  middle 416 x 80 of 512 x 160 samples were acquired, and the rest is zero;
- maps (x, ky, kz, coil, map), JSENSE sensitivities of the image;
- masks/poisson_{4,6,8,10,12,16}.0x, of the acquired shape (ky, kz).

segmentation_masks/raw-data-track/MTR_005.nii.gz has labels from 0 to 6 on the grid (x, y, z) of the image.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.physics.fourier import resize
from training.data import Place, Sample, Slices
from training.readers._contrasts import label_planes
from training.readers._maps import unit_maps
from training.readers._skmtea import CLASSES, TISSUES, Classes, files, root
from training.readers.files import array, examined, full, hdf5, in_sentences, nifti, read_mask, split_problems, voxels
from training.readers.files import slices as slices_of
from training.split import Part, Split

__all__ = ["Reader"]

TRACK = "files_recon_calib-24"
KSPACE = ("x", "ky", "kz", "echo", "coil")
MAPS = ("x", "ky", "kz", "coil", "map")


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Axial slices, positions along the readout: fully sampled raw data with given maps, and a plane for each class.

    y is encode step 2 (kz) and x encode step 1 (ky), as the sort gadget has them. Labels of a subject are read once in
    each process, and kept packed.
    """

    echo: int | Literal["sum", "both"] = 1
    """From 1 on; "sum": the sum of all echoes, as ATOMMIC's reconstruction has it; "both": echoes of one scan."""
    acceleration: float | tuple[float, ...] | None = 4.0
    """Which mask of the file, filled up to the size of k-space as this is; slices take several in turn. None: none.
    `masks.kspace_crop` takes both to what was acquired."""
    classes: Classes = "paper"
    """See `training.readers._skmtea`."""
    labels: bool = True
    """False: k-space alone, for reconstruction; the files of labels need not be there."""

    @property
    def accelerations(self) -> tuple[float, ...]:
        """Those of the masks that slices take in turn."""
        several = self.acceleration if isinstance(self.acceleration, tuple) else (self.acceleration,)
        return tuple(one for one in several if one is not None)

    def read(self, folder: Path, part: Part, split: Split) -> Slices:
        """Return the slices of the subjects of `part`. Raises InputError."""
        found, split = files(folder, TRACK, split)
        labels = {str(path): str(_labels_of(folder, path)) for path in found.values()} if self.labels else {}
        load = partial(self._load, labels=labels)
        classes = tuple(CLASSES[self.classes]) if labels else ()
        return slices_of(found, part, split, self._numbers, load, classes, transposed=True)

    @in_sentences
    def check(self, folder: Path, split: Split) -> Iterator[str]:
        """Give a sentence for everything that is missing or malformed, from headers and a few slices."""
        found, own = files(folder, TRACK, split)
        problems = list(split_problems(found, own))
        for path in found.values():
            try:
                self._numbers(path)
                for acceleration in self.accelerations:
                    _mask(str(path), acceleration)
                problems += _misfit(path, _labels_of(folder, path)) if self.labels else []
            except InputError as error:
                problems.append(str(error))
        yield from problems
        if not problems:
            yield from examined(self.read(folder, "train", split))

    def _numbers(self, path: Path) -> range:
        """The positions along the readout, from the headers. Raises InputError where these do not fit each other."""
        with hdf5(path) as file:
            kspace, maps = array(file, "kspace", KSPACE), array(file, "maps", MAPS)
            expected = (*kspace.shape[:3], kspace.shape[4])
            if maps.shape[:4] != expected:
                raise InputError(f"{path}: maps must have the shape {(*expected, 1)} to fit kspace, got {maps.shape}")
            if isinstance(self.echo, int) and not 1 <= self.echo <= kspace.shape[3]:
                raise InputError(f"{path}: option echo must be from 1 to {kspace.shape[3]}, got {self.echo}")
            return range(kspace.shape[0])

    def _load(self, place: Place, labels: dict[str, str]) -> Sample:
        self._numbers(Path(place.path))
        chosen = slice(self.echo - 1, self.echo) if isinstance(self.echo, int) else slice(None)
        with hdf5(place.path) as file:
            kspace = np.asarray(file["kspace"][place.index, :, :, chosen], np.complex64).T.swapaxes(0, 1)
            maps = np.asarray(file["maps"][place.index, ..., 0], np.complex64).T
        if self.echo == "sum":
            kspace = kspace.sum(axis=0, keepdims=True)
        shape = (kspace.shape[-2], kspace.shape[-1])
        planes = None
        if self.labels:
            tissue = _tissues(labels[place.path], place.index, shape)
            planes = label_planes(tissue, CLASSES[self.classes], labels[place.path], range(1, TISSUES + 1))
        return Sample(
            names=(f"{place.path}, slice {place.index}",),
            raw=full(kspace, "batch", sens=torch.from_numpy(unit_maps(maps))[None, None], sens_method="given"),
            mask=self._sampled(place, shape),
            labels=None if planes is None else torch.from_numpy(planes)[None],
        )

    def _sampled(self, place: Place, shape: tuple[int, int]) -> torch.Tensor | None:
        """The mask (1, 1, 1, y, x) of a slice, of its size; None: none."""
        if not self.accelerations:
            return None
        sampled = _mask(place.path, self.accelerations[place.index % len(self.accelerations)])
        if any(n > m for n, m in zip(sampled.shape, shape[::-1], strict=True)):
            raise InputError(f"{place.path}: its mask {sampled.shape} is larger than its k-space {shape[::-1]}")
        return torch.from_numpy(np.ascontiguousarray(resize(sampled.T, shape)))[None, None, None]


def _labels_of(folder: Path, path: Path) -> Path:
    return root(folder, TRACK) / "segmentation_masks" / "raw-data-track" / f"{path.stem}.nii.gz"


def _misfit(path: Path, labels: Path) -> list[str]:
    """A sentence where labels have another grid than k-space."""
    with hdf5(path) as file:
        grid = file["kspace"].shape[:3]
    shape = nifti(labels).shape
    return [] if shape == grid else [f"{labels}: has the grid {shape}, but k-space of {path.name} {grid}"]


def _mask(path: str, acceleration: float) -> NDArray[np.bool_]:
    """(ky, kz)"""
    mask = read_mask(Path(path), 0, f"masks/poisson_{float(acceleration)}x")
    if mask.ndim != 2:
        raise InputError(f"{path}: masks/poisson_{float(acceleration)}x must be (ky, kz), got the shape {mask.shape}")
    return mask


def _tissues(path: str, number: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """Labels (kz, ky) of a position along the readout."""
    (ky, kz), packed = _packed(path)
    if (kz, ky) != shape or number >= len(packed):
        raise InputError(f"{path}: its slices have the grid {(ky, kz)}, but those of k-space {shape[::-1]}")
    return np.frombuffer(zlib.decompress(packed[number]), np.uint8).reshape(ky, kz).T


@lru_cache(maxsize=256)
def _packed(path: str) -> tuple[tuple[int, int], tuple[bytes, ...]]:
    """Return all labels of a subject, by position along the readout, packed.

    Unpacking the file takes seconds, so it is done once. Packed by themselves the labels take about 1 MB.
    """
    values = voxels(path)
    with np.errstate(invalid="ignore"):
        small = values.astype(np.uint8)
    if not (small == values).all():
        raise InputError(f"{path}: labels must be whole numbers from 0 to {TISSUES}")
    packed = tuple(zlib.compress(np.ascontiguousarray(plane).tobytes(), 1) for plane in small)
    return (small.shape[1], small.shape[2]), packed
