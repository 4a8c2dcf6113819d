"""Volumes of anatomy (magnitudes) from a folder, and random slices of them as a scanner might see them.

Axes: volume (z, y, x), slice (y, x); spacing in mm, of the same axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from mrnets.errors import InputError
from mrnets.heads import icbm152
from training.readers.files import nifti, voxels

__all__ = [
    "Volume",
    "blurred",
    "draw_image",
    "draw_view",
    "load_folder",
    "load_volume",
    "seen",
]

Image = NDArray[np.float32]

LABELS = 16
"""A file with no more values than this holds labels, not an image."""


@dataclass(frozen=True)
class Volume:
    """An anatomy; `data` is scaled so that bright tissue is 1."""

    name: str
    data: Image
    """(z, y, x), at least 0."""
    spacing: tuple[float, float, float]


def load_folder(data: str | None) -> list[Volume]:
    """Return all volumes below the folder (.nii, .nii.gz, .cfl), without label maps, sorted by path; None: ICBM152.

    Raises InputError where there is none."""
    if data is None:
        return [load_volume(icbm152(), "icbm152")]
    folder = Path(data)
    files = sorted(p for p in folder.rglob("*") if p.name.endswith((".nii", ".nii.gz", ".cfl")))
    volumes = (load_volume(file, file.relative_to(folder).as_posix()) for file in files)
    anatomy = [v for v in volumes if len(np.unique(v.data[:: max(len(v.data) // 8, 1)])) > LABELS]
    if not anatomy:
        raise InputError(f"no anatomy (.nii, .nii.gz, .cfl with more than {LABELS} grey values) below {folder}")
    return anatomy


def load_volume(path: Path, name: str) -> Volume:
    """Return the volume of a file. NIfTI axes are kept as stored, reversed to (z, y, x).

    Raises InputError for NaN and other shapes.
    """
    if path.suffix == ".cfl":
        data, spacing = _cfl(path), (1.0, 1.0, 1.0)
    else:
        data = voxels(path).T
        x, y, z = (float(s) for s in nifti(path).header.get_zooms()[:3])
        spacing = (z, y, x)
    if data.ndim != 3 or not np.isfinite(data).all():
        raise InputError(f"{path}: expected three axes and finite values, got shape {data.shape[::-1]}")
    data = np.maximum(data, 0)
    bright = float(np.percentile(data[data > 0.05 * data.max()], 98)) if data.max() > 0 else 1.0
    return Volume(name, np.minimum(data / bright, 2).astype(np.float32), spacing)


def _cfl(path: Path) -> Image:
    """Magnitude of a BART file, (z, y, x)."""
    header = path.with_suffix(".hdr").read_text(encoding="ascii").splitlines()
    shape = tuple(int(n) for n in header[1].split() if int(n) > 1)
    image: Image = np.abs(np.fromfile(path, dtype=np.complex64).reshape(shape, order="F")).T
    return image[None] if image.ndim == 2 else image


def draw_image(volume: Volume, rng: np.random.Generator, shape: tuple[int, int]) -> torch.Tensor:
    """Return a random slice on a grid of `shape`, (y, x), bright tissue 1: in random orientation, place, size,
    contrast."""
    plane, spacing = _draw_slice(volume, rng)
    view = draw_view(plane, spacing, rng)
    return _contrast(seen(plane[None], view, shape)[0], rng)


def blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return images (n, y, x) convolved with a Gaussian of standard deviation `sigma` pixels."""
    reach = int(3 * sigma) + 1
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / max(sigma, 1e-3)) ** 2)
    line = (weights / weights.sum())[None, None, :, None]
    along_y = functional.conv2d(images[:, None], line, padding=(reach, 0))
    return functional.conv2d(along_y, line.mT, padding=(0, reach))[:, 0]


def _draw_slice(volume: Volume, rng: np.random.Generator) -> tuple[torch.Tensor, tuple[float, float]]:
    """A slice across the thick axis of an anisotropic volume, across any of an isotropic one, with enough in it."""
    spacing = np.array(volume.spacing)
    single = min(volume.data.shape) == 1 or spacing.max() > 1.8 * spacing.min()
    axis = int(np.argmin(volume.data.shape) if single else rng.integers(3))
    for _ in range(20):
        plane = volume.data.take(int(rng.integers(volume.data.shape[axis])), axis=axis)
        if np.mean(plane > 0.15) > 0.1:
            break
    kept = np.delete(spacing, axis)
    return torch.from_numpy(np.ascontiguousarray(plane)), (float(kept[0]), float(kept[1]))


def draw_view(plane: torch.Tensor, spacing: tuple[float, float], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a field of view around what is in `plane` (y, x): rotated, flipped, stretched and moved.

    It is an affine (2, 3) as `torch.nn.functional.affine_grid` takes it.
    """
    ny, nx = plane.shape
    angle = np.pi / 2 * rng.integers(4) + np.deg2rad(rng.normal(0, 8))
    flip = rng.choice([-1.0, 1.0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([1.0, flip])
    half = np.array([ny * spacing[0], nx * spacing[1]]) / 2
    rows, columns = np.nonzero(plane.numpy() > 0.1)
    if rows.size == 0:
        rows, columns = np.array([0, ny - 1]), np.array([0, nx - 1])
    where = np.stack([rows / ny * 2 - 1, columns / nx * 2 - 1]) * half[:, None]  # mm
    turned = turn.T @ where
    low, high = np.percentile(turned, [0.5, 99.5], axis=1)
    zoom = rng.uniform(1.05, 1.5) * np.exp(rng.normal(0, 0.06, 2))
    fov = np.maximum(high - low, 20) / 2 * zoom
    centre = (low + high) / 2 + fov * rng.normal(0, 0.04, 2)
    # the sampling grid: [-1, 1] of the field of view -> mm, turned -> mm -> [-1, 1] of the slice
    matrix = np.diag(1 / half) @ turn @ np.diag(fov)
    shift = (turn @ centre) / half
    return np.array([[matrix[1, 1], matrix[1, 0], shift[1]], [matrix[0, 1], matrix[0, 0], shift[0]]])


def seen(
    planes: torch.Tensor, view: NDArray[np.float64], shape: tuple[int, int], fine: tuple[int, int] | None = None
) -> torch.Tensor:
    """Return `planes` (n, y, x) in the field of view, on a grid of `shape`: (n, *shape), zero beyond the planes' edges.

    fine: a larger grid. Its k-space, cropped to `shape`, would give the grid of the result.
    """
    ny, nx = planes.shape[-2:]
    largest = max(shape)
    if max(ny, nx) > 1.25 * largest:  # low-pass first: bilinear sampling of a much finer image aliases
        size = [max(round(1.25 * largest / max(ny, nx) * n), 1) for n in (ny, nx)]
        planes = functional.interpolate(planes[None], size=size, mode="bilinear", antialias=True)[0]
    if fine is not None:  # pixel n // 2 of both grids is the same point
        y, x = (_middle(n) - _middle(m) for n, m in zip(fine, shape, strict=True))
        view = view + np.pad((view[:, :2] @ [x, y])[:, None], ((0, 0), (2, 0)))
    grid = functional.affine_grid(torch.from_numpy(view[None]).float(), [1, 1, *shape], align_corners=False)
    return functional.grid_sample(planes[None], grid, mode="bilinear", align_corners=False)[0]


def _middle(n: int) -> float:
    """Where pixel n // 2 lies on an axis of n pixels that spans [-1, 1]."""
    return (2 * (n // 2) + 1) / n - 1


def _contrast(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Take the background noise of the source out, and remap grey values by a gamma or by any curve through 0."""
    around = functional.avg_pool2d(image[None, None], 5, stride=1, padding=2, count_include_pad=False)[0, 0]
    image = image * torch.sigmoid((around - 0.06) / 0.012)
    knots = np.linspace(0, 2, 9)
    if rng.random() < 0.5:
        curve = knots ** rng.uniform(0.6, 1.7)
    else:
        curve = np.concatenate([[0], rng.uniform(0.05, 1.0, 8)])
        curve = curve + rng.uniform(0, 0.6) * (knots - curve)
    remapped = np.interp(image.numpy(), knots, curve).astype(np.float32)
    return torch.from_numpy(remapped / max(float(np.percentile(remapped, 99.5)), 1e-3))
