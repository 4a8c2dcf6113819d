"""Images from volumes of anatomy and from photographs: what a file for simulated scans is gathered from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.heads import icbm152
from mrnets.physics.fourier import fftc, ifftc, resize
from training.readers.anatomy import Volume, load_volume
from training.simulation.images import SIZE, Images, greys, load_images

__all__ = ["gathered", "measured_share"]

Image = NDArray[np.float32]
VOLUMES, PHOTOGRAPHS = (".nii", ".nii.gz", ".cfl"), (".png", ".jpg", ".jpeg")
EACH = 48
"""Slices of a volume with isotropic voxels along each of its axes, at most."""


def gathered(folder: Path | None) -> Images:
    """Images of the volumes (.nii, .nii.gz, .cfl), the photographs (.png, .jpg) and the files of images (.npz) below a
    folder; None: of ICBM152. Raises InputError for files that cannot be read, and where there is no image."""
    if folder is None:
        return _joined([_sliced(load_volume(icbm152(), "icbm152"))])
    files = sorted(p for p in folder.rglob("*") if p.name.lower().endswith((*VOLUMES, *PHOTOGRAPHS, ".npz")))
    found = _joined([_of(file, file.relative_to(folder).as_posix()) for file in files])
    if not found.names:
        raise InputError(f"no images (.npz, {', '.join((*VOLUMES, *PHOTOGRAPHS))}) below {folder}")
    return found


def _of(file: Path, name: str) -> Images:
    if file.suffix == ".npz":
        return load_images(file)
    return _sliced(load_volume(file, name)) if name.endswith(VOLUMES) else _photograph(file, name)


def _joined(parts: list[Images]) -> Images:
    return Images(
        tuple(image for part in parts for image in part.pixels), tuple(name for part in parts for name in part.names)
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
