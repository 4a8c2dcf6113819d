"""Images that simulated scans are made of: slices of volumes and photographs, and the file that holds them.

The file (.npz) has `pixels`, uint8, all images one after the other; `shapes` (image, 2), their y and x; `names`, their
sources. A grey u stands for 2 (u / 255)^2, bright tissue 1: dark greys are finer than bright ones.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.files import whole
from mrnets.heads import icbm152
from mrnets.physics.fourier import fftc, ifftc, resize
from training.readers.anatomy import Volume, load_volume

__all__ = ["SIZE", "Images", "greys", "load_images", "save_images"]

Image = NDArray[np.float32]
Greys = NDArray[np.uint8]
SIZE = 384
"""Pixels along each axis, at most."""
VOLUMES, PHOTOGRAPHS = (".nii", ".nii.gz", ".cfl"), (".png", ".jpg", ".jpeg")
EACH = 48
"""Slices of a volume with isotropic voxels along each of its axes, at most."""


@dataclass(frozen=True)
class Images:
    """Grey images, each with the name of its source."""

    pixels: tuple[Greys, ...]
    """(y, x) each."""
    names: tuple[str, ...]

    def of(self, names: frozenset[str]) -> Images:
        """Those from these sources."""
        kept = [n for n, name in enumerate(self.names) if name in names]
        return Images(tuple(self.pixels[n] for n in kept), tuple(self.names[n] for n in kept))


def greys(image: Image) -> Greys:
    """An image, at least 0, bright tissue 1, in 256 greys."""
    return np.uint8(np.rint(255 * np.sqrt(np.clip(image / 2, 0, 1))))


def save_images(path: Path, images: Images) -> None:
    """Write a file. Raises InputError; then the file before it is kept."""
    with whole(path) as file:
        np.savez_compressed(
            file,
            pixels=np.concatenate([image.ravel() for image in images.pixels]),
            shapes=np.array([image.shape for image in images.pixels], np.int32),
            names=np.array(images.names),
        )


def load_images(place: Path | None) -> Images:
    """The images of a file; or of a folder: of all such files, volumes (.nii, .nii.gz, .cfl) and photographs (.png,
    .jpg) below it. None: ICBM152. Raises InputError for files that cannot be read, and where there is no image."""
    if place is None:
        return _joined([_sliced(load_volume(icbm152(), "icbm152"))])
    if place.is_file():
        return _read(place)
    files = sorted(p for p in place.rglob("*") if p.name.lower().endswith((*VOLUMES, *PHOTOGRAPHS, ".npz")))
    found = _joined([_of(file, file.relative_to(place).as_posix()) for file in files])
    if not found.names:
        raise InputError(f"no images (.npz, {', '.join((*VOLUMES, *PHOTOGRAPHS))}) below {place}")
    return found


def _of(file: Path, name: str) -> Images:
    if file.suffix == ".npz":
        return _read(file)
    return _sliced(load_volume(file, name)) if name.endswith(VOLUMES) else _photograph(file, name)


def _joined(parts: list[Images]) -> Images:
    return Images(
        tuple(image for part in parts for image in part.pixels), tuple(name for part in parts for name in part.names)
    )


def _read(path: Path) -> Images:
    try:
        with np.load(path) as file:
            pixels, shapes, names = file["pixels"], file["shapes"], file["names"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a file of images with pixels, shapes and names ({error})") from error
    fits = shapes.ndim == 2 and shapes.shape == (len(names), 2) and pixels.dtype == np.uint8 and len(names) > 0
    if not fits or shapes.min() < 1 or shapes.max() > SIZE or shapes.prod(1).sum() != pixels.size:
        raise InputError(f"{path}: its images do not have the shapes that it gives, or are larger than {SIZE} pixels")
    parts = np.split(pixels, np.cumsum(shapes.prod(1))[:-1])
    return Images(
        tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)),
        tuple(str(name) for name in names),
    )


def _sliced(volume: Volume) -> Images:
    """Slices across the thick axis of an anisotropic volume, across all of an isotropic one; label maps have none."""
    spacing = np.array(volume.spacing)
    single = min(volume.data.shape) == 1 or spacing.max() > 1.8 * spacing.min()
    images: list[Image] = []
    for axis in [int(np.argmin(volume.data.shape))] if single else range(3):
        step = 1 if single else -(-volume.data.shape[axis] // EACH)
        images += _planes(np.moveaxis(volume.data, axis, 0), np.delete(spacing, axis), step)
    return Images(tuple(map(greys, images)), (volume.name,) * len(images))


def _planes(data: Image, spacing: NDArray[np.float64], step: int) -> Iterator[Image]:
    """Every `step`-th plane (y, x) with enough in it, at the resolution at which it was measured, cut to its object."""
    length = len(data)
    finest = measured_share(data[length // 4 : max(3 * length // 4, length // 4 + 1)]) / spacing
    share = np.minimum(finest, 1.25 * finest.min()) * spacing  # pixels of nearly the same size along both axes
    shape = [min(max(round(n * s / 2) * 2, 2), n) for n, s in zip(data.shape[1:], share, strict=True)]
    for plane in data[::step]:
        if np.mean(plane > 0.15) < 0.08:
            continue
        coarse = np.abs(ifftc(resize(fftc(plane + 0j), shape))) * (np.prod(shape) / plane.size) ** 0.5
        cut = _cut(_without_background(np.asarray(coarse, np.float32)))
        if min(cut.shape) >= 32:
            yield cut


def measured_share(planes: Image) -> NDArray[np.float64]:
    """(2,): the share of k-space of `planes` (plane, y, x) along y and x that was measured, and not filled with zeros.

    It ends where the power falls to an eighth of that in the middle of the radius; 1 where it does not.
    """
    power = np.abs(fftc(planes + 0j)) ** 2
    shares = []
    for axis in (1, 2):
        profile = power.mean(axis=tuple({0, 1, 2} - {axis}))
        n = profile.size
        count = (n - 1) // 2
        radius = np.arange(1, count + 1) / (n / 2)
        both = profile[n // 2 + 1 : n // 2 + 1 + count] + profile[n // 2 - count : n // 2][::-1]
        both = np.convolve(np.pad(both, 2, mode="edge"), np.full(5, 0.2), "valid")
        fallen = (radius > 0.5) & (both < both[np.argmin(np.abs(radius - 0.5))] / 8)
        shares.append(float(radius[np.argmax(fallen)]) if fallen.any() else 1.0)
    return np.array(shares)


def _without_background(image: Image) -> Image:
    """`image` without the noise around the object."""
    from scipy.ndimage import uniform_filter

    around = uniform_filter(image, 5)
    return np.asarray(image / (1 + np.exp((0.05 - around) / 0.01)), np.float32)


def _cut(image: Image) -> Image:
    """The rectangle that holds the object, of at most `SIZE` pixels."""
    rows, columns = (np.flatnonzero((image > 0.08).any(axis=axis)) for axis in (1, 0))
    if rows.size == 0:
        return image[:0, :0]
    cut = image[max(rows[0] - 2, 0) : rows[-1] + 3, max(columns[0] - 2, 0) : columns[-1] + 3]
    y, x = (max((n - SIZE) // 2, 0) for n in cut.shape)
    return cut[y : y + SIZE, x : x + SIZE]


def _photograph(path: Path, name: str) -> Images:
    """Three pieces of a photograph, of different scale, some of them with the outline of an ellipse, as heads have."""
    from PIL import Image as pil

    rng = np.random.default_rng(list(name.encode()))
    pieces = []
    try:
        with pil.open(path) as file:
            picture = file.convert("RGB")
    except OSError as error:
        raise InputError(f"{path}: not an image that can be read ({error})") from error
    for _ in range(3):
        short = min(picture.size)
        scale = min(1.0 if short < 600 else 0.75, rng.uniform(340, 900) / short)
        small = picture.resize([max(round(n * scale), 1) for n in picture.size], pil.Resampling.LANCZOS)
        grey = (np.asarray(small, np.float32) / 255 @ rng.dirichlet([2.0, 2.0, 2.0])) ** 1.6
        top, left = (int(rng.integers(max(n - 304, 0) + 1)) for n in grey.shape)
        piece = grey[top : top + 304, left : left + 304]
        y, x = (np.linspace(-1, 1, n) for n in piece.shape)
        if rng.random() < 0.6:
            half_y, half_x = rng.uniform(0.7, 1, 2)
            piece = piece * ((y[:, None] / half_y) ** 2 + (x / half_x) ** 2 < 1)
        bright = piece[piece > 0.02]
        if bright.size and min(piece.shape) >= 32:
            pieces.append(greys(np.asarray(piece / np.percentile(bright, 98), np.float32)))
    return Images(tuple(pieces), (name,) * len(pieces))
