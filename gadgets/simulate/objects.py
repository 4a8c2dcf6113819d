"""Objects to scan: band-limited planes of a phantom or of anatomy.

Axes: volume (z, y, x) and plane (y, x) in the axes of the scan. Pixel n // 2 lies at the centre of the field of view.
A plane has no detail beyond its own grid. Its pixels are values of a trigonometric polynomial, and not samples of an
object with sharp edges. The grid of the volume is therefore not seen in the plane, whatever the two spacings are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gadgets.simulate.settings import ORIENTATIONS, Settings
from mrnets.errors import InputError
from mrnets.extras import install
from mrnets.heads import icbm152
from mrnets.physics import simulate
from mrnets.physics.fourier import fftc, ifftc, resize
from mrnets.physics.interpolation import along, band_limited

__all__ = ["planes"]

Real = NDArray[np.float32]
Heights = NDArray[np.float64]

FINENESS = 4
"""The phantom is drawn on a grid this much finer than its planes: its sharp edges alias on every grid."""
BRIGHT = 98
"""Percentile of an anatomy's foreground that is bright tissue."""


def planes(settings: Settings, where: Heights, shape: tuple[int, int]) -> Iterator[Real]:
    """Yield the object at the heights `where` (mm) on grids of `shape` over the field of view; bright tissue is 1.

    In a 3-D scan the heights are an even grid over the slab, and anatomy is band-limited along z, too. In a 2-D scan a
    plane of anatomy is the mean over the thickness of its slice. Raises InputError for a volume that cannot be read.
    """
    if settings.volume is None:
        yield from _phantom(settings, where, shape)
    else:
        yield from _anatomy(settings, _load(settings), where, shape)


def _phantom(settings: Settings, where: Heights, shape: tuple[int, int]) -> Iterator[Real]:
    fine = (FINENESS * shape[0], FINENESS * shape[1])
    for z in where:
        size = math.sqrt(max(1 - (2 * z / settings.fov) ** 2, 1e-4))  # ellipses of an ellipsoid
        ellipses = [(e[0], *(size * np.array(e[1:5])), e[5]) for e in simulate.SHEPP_LOGAN]
        kspace = resize(fftc(simulate.phantom(fine, ellipses, supersampling=2).astype(np.complex64)), shape)
        yield np.asarray(ifftc(kspace).real / FINENESS, np.float32)


def _anatomy(settings: Settings, volume: _Volume, where: Heights, shape: tuple[int, int]) -> Iterator[Real]:
    z, y, x = (_places(n, spacing) for n, spacing in zip(volume.data.shape, volume.spacing, strict=True))
    depth = settings.thickness * settings.slices
    if settings.three_d:
        points, voxels = ((places - settings.offset) / depth for places in (where, z))
        profiles = band_limited(points, voxels, volume.spacing[0] / depth)
    else:
        profiles = _slice_profiles(where, z, volume.spacing[0], settings.thickness)
    rows, columns = (
        band_limited((np.arange(n) - n // 2) / n, voxels / settings.fov, spacing / settings.fov)
        for n, voxels, spacing in zip(shape, (y, x), volume.spacing[1:], strict=True)
    )
    for profile in profiles:
        plane = np.tensordot(profile.astype(np.float32), volume.data, axes=1)
        yield np.asarray(along(columns, along(rows, plane, 0), 1))


def _slice_profiles(where: Heights, z: Heights, spacing: float, thickness: float) -> NDArray[np.float64]:
    """(slice, voxel): the mean over the thickness of what linear interpolation between voxels gives."""
    points = max(5, math.ceil(4 * thickness / spacing))
    inside = ((np.arange(points) + 0.5) / points - 0.5) * thickness
    distance = (where[:, None, None] + inside[:, None] - z) / spacing
    return np.maximum(1 - np.abs(distance), 0).mean(axis=1)


def _places(voxels: int, spacing: float) -> Heights:
    """(voxel,) mm from the middle of the volume."""
    return (np.arange(voxels, dtype=np.float64) - (voxels - 1) / 2) * spacing


@dataclass(frozen=True)
class _Volume:
    data: Real
    """(z, y, x), bright tissue 1."""
    spacing: tuple[float, float, float]
    """mm, of the same axes."""


def _load(settings: Settings) -> _Volume:
    """A NIfTI volume in the axes of the scan."""
    try:
        import nibabel
    except ModuleNotFoundError:
        raise InputError(f"reading NIfTI files needs nibabel, which is not installed: {install('demo')}") from None
    path = icbm152() if settings.volume == "icbm152" else Path(str(settings.volume))
    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        data = np.asarray(image.dataobj, dtype=np.float32)
    except (OSError, nibabel.filebasedimages.ImageFileError) as error:
        raise InputError(f"{path} cannot be read as NIfTI ({' '.join(str(error).split())})") from None
    if data.ndim != 3 or not np.isfinite(data).all():
        raise InputError(f"{path} must have three axes and finite values, it has the shape {data.shape}")
    data, zooms = np.maximum(data[::-1, ::-1], 0), image.header.get_zooms()  # right, anterior -> left, posterior
    read, phase, normal = (int(np.argmax(np.abs(d))) for d in ORIENTATIONS[settings.orientation])
    volume = data.transpose(normal, phase, read)
    for axis, direction in enumerate(reversed(ORIENTATIONS[settings.orientation])):
        if min(direction) < 0:
            volume = np.flip(volume, axis)
    bright = float(np.percentile(data[data > 0.05 * data.max()], BRIGHT)) if data.max() > 0 else 1.0
    spacing = (float(zooms[normal]), float(zooms[phase]), float(zooms[read]))
    return _Volume(np.ascontiguousarray(volume / np.float32(bright)), spacing)
