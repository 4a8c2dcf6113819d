"""FreeSurfer's label maps in memory: what each label is, and the heads of a data set side by side on one device.

Axes: volume (z, y, x), upwards, forwards and to the right. Distances in mm.
"""

from __future__ import annotations

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mrnets.errors import InputError
from training.readers.files import nifti, voxels
from training.settings import Range

__all__ = ["CLASSES", "Head", "Heads", "class_of", "head_of", "heads_of", "tissue_of"]

Name = Literal["background", "csf", "grey", "white"]

CLASSES: tuple[Name, ...] = ("background", "csf", "grey", "white")
AROUND = 24
"""The label of CSF around the brain."""
_SHARES: dict[Name, dict[tuple[int, ...], Range]] = {
    "csf": {
        (4, 5, 14, 15, AROUND, 43, 44, 72, 122, 221): (0.0, 0.05),  # ventricles, sulci
        (30, 31, 62, 63, 136, 137, 163, 164): (0.1, 0.9),  # choroid plexus, vessels
    },
    "grey": {
        (3, 42): (-0.05, 0.05),  # cortex
        (8, 47, 17, 53, 18, 54): (-0.15, 0.3),  # cerebellum, hippocampus, amygdala
        (11, 50, 12, 51, 26, 58): (0.0, 0.5),  # caudate, putamen, accumbens
        (10, 49): (0.2, 0.85),  # thalamus
        (13, 52): (0.4, 1.05),  # pallidum
    },
    "white": {
        (2, 41, 192, *range(250, 256)): (0.95, 1.05),  # cerebrum, corpus callosum
        (7, 46, 16, *range(170, 180)): (0.7, 1.1),  # cerebellum, brain stem
        (28, 60, 85): (0.4, 1.0),  # ventral diencephalon, chiasm
        (25, 57, 77, 78, 79): (-0.5, 1.0),  # lesions
    },
}
"""Labels of each class (FreeSurferColorLUT), and the range of their intensities. That is a share of the way from CSF to
grey matter (csf), or from grey to white matter (the others). Other labels are no brain."""
_PARCELS = {1: 3, 2: 42, 3: 2, 4: 41, 5: 2}
"""Thousands of the labels of parcels, and the labels that they are parts of: cortex and the white matter below."""
MAX_LABEL = 20000
"""Largest label; FreeSurferColorLUT ends below."""
_THREADS = 4
"""Label maps that are read at the same time."""
_POINTS = 4096
"""Voxels of each brain through which slices may go."""


@dataclass(frozen=True)
class Head:
    """A label map, cropped, with a voxel of air around it."""

    labels: NDArray[np.uint16]
    """(z, y, x)."""
    spacing: tuple[float, float, float]
    """(z, y, x), mm."""


@dataclass(frozen=True)
class Heads:
    """Label maps on one device, each in the corner of a common grid."""

    codes: torch.Tensor
    """(head, z, y, x) uint8: numbers of the `values`."""
    values: tuple[int, ...]
    """Labels, ascending, the first is 0."""
    spacing: NDArray[np.float32]
    """(head, 3): z, y, x, mm."""
    brain: NDArray[np.float32]
    """(head, point, 3): places of voxels of the brain, mm."""
    extent: NDArray[np.int64]
    """(head, 3): voxels of each; the outermost are air."""

    @property
    def device(self) -> torch.device:
        """Where the label maps are."""
        return self.codes.device


def class_of(value: int) -> int:
    """Return the number of the class in `CLASSES` of a value of FreeSurfer's table."""
    name, _ = tissue_of(value)
    return CLASSES.index(name)


def tissue_of(value: int) -> tuple[Name, Range]:
    """Return the class of a label, and the range of its share (`_SHARES`)."""
    value = _PARCELS.get(value // 1000, value)
    for name, groups in _SHARES.items():
        for values, share in groups.items():
            if value in values:
                return name, share
    return "background", (0.0, 0.0)


def head_of(path: Path) -> Head:
    """Read a label map. Parcels of cortex and white matter become cortex and white matter.

    Raises InputError for values that are no labels, and for a head without brain.
    """
    from nibabel.orientations import apply_orientation, io_orientation

    image = nifti(path)
    data = voxels(path)
    if not (np.isfinite(data).all() and (data == np.rint(data)).all()):
        raise InputError(f"{path}: expected a label map, got values that are not whole numbers")
    if not 0 <= data.min() <= data.max() <= MAX_LABEL:
        raise InputError(f"{path}: expected labels from 0 to {MAX_LABEL}, got {data.min():g} to {data.max():g}")
    orientation = io_orientation(image.affine)
    volume = apply_orientation(_cropped(data.astype(np.uint16)), orientation).T
    x, y, z = (float(image.header.get_zooms()[int(n)]) for n in np.argsort(orientation[:, 0]))
    merged = np.array([_PARCELS.get(v // 1000, v) for v in range(MAX_LABEL + 1)], np.uint16)[volume]
    if not any(class_of(int(v)) for v in _values(merged, path)):
        raise InputError(f"{path}: none of its labels is of the brain; expected those of FreeSurferColorLUT")
    return Head(np.pad(merged, 1), (z, y, x))


@functools.lru_cache(maxsize=4)
def heads_of(paths: tuple[Path, ...], device: torch.device) -> Heads:
    """Read label maps; once in each process. Raises InputError as `head_of` does, and for more than 256 labels."""
    if device.type != "cpu":
        heads = heads_of(paths, torch.device("cpu"))
        return dataclasses.replace(heads, codes=heads.codes.to(device))
    with ThreadPoolExecutor(_THREADS) as threads:
        read = list(threads.map(head_of, paths))
    values = _values(np.concatenate([_values(head.labels, paths[0]) for head in read]), paths[0].parent)
    table = np.zeros(MAX_LABEL + 1, np.uint8)
    table[values] = np.arange(len(values))
    shape = np.max([head.labels.shape for head in read], axis=0)
    codes = np.zeros((len(read), *shape), np.uint8)
    for place, head in zip(codes, read, strict=True):
        place[tuple(slice(n) for n in head.labels.shape)] = table[head.labels]
    return Heads(
        torch.from_numpy(codes),
        tuple(int(v) for v in values),
        np.array([head.spacing for head in read], np.float32),
        np.stack([_brain(head) for head in read]),
        np.array([head.labels.shape for head in read]),
    )


def _cropped(labels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Without the planes of zeros around a head."""
    some = [np.flatnonzero(labels.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return labels[tuple(slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0) for found in some)]


def _values(labels: NDArray[np.uint16], path: Path) -> NDArray[np.uint16]:
    """The labels that occur, ascending. Raises InputError for more than a byte can number."""
    there = np.zeros(MAX_LABEL + 1, bool)
    there[labels] = True
    values = np.flatnonzero(there).astype(np.uint16)
    if len(values) > 256:
        raise InputError(f"{path}: expected at most 256 labels, got {len(values)}")
    return values


def _brain(head: Head) -> NDArray[np.float32]:
    """(point, 3): places of voxels of the brain, mm, evenly spaced through the list of all."""
    tissue = np.array([class_of(v) > 0 for v in range(MAX_LABEL + 1)])
    index = np.flatnonzero(tissue[head.labels])
    chosen = index[np.arange(_POINTS) * len(index) // _POINTS]
    places = np.stack(np.unravel_index(chosen, head.labels.shape), axis=1) * np.array(head.spacing)
    return np.asarray(places, np.float32)
