"""Calibration blocks: the fully sampled centre of k-space, of an image's own lines or of separate ones.

Axes: batch, echo, coil, y, x as in `mrnets.contract.Raw`, whose k-space centre is at n // 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, count

import numpy as np
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.mrd.encoding import Encoding
from mrnets.mrd.images import Key
from mrnets.physics.arrays import Array, array_namespace, asarray_like
from mrnets.physics.fourier import fftc, ifftc, resize
from mrnets.physics.masks import LEAST_CALIBRATION, calibration_region

__all__ = [
    "MAX_WINDOW",
    "Mean",
    "Middle",
    "centre_block",
    "for_later",
    "has_centre_block",
    "middle_of",
    "nearest",
    "on_spacing_of",
    "window_mean",
]

KEPT = 32
"""Lines of a calibration block that are kept for later repetitions without calibration lines of their own."""
ENOUGH = 16
"""Lines along each axis with which a mean over repetitions is complete."""
MAX_WINDOW = 32
"""Images in such a mean, at most. Random sampling of a beating heart has every central line once in 10 to 20 images."""


def nearest(references: Iterable[Key], key: Key) -> Key | None:
    """The image of separate calibration lines that belongs to image `key`.

    It is of the same slice, and of the same encoding space, repetition, set and phase or the nearest to them. None:
    no calibration lines came for the slice."""
    same_slice = [reference for reference in references if reference.slice == key.slice]
    return min(same_slice, key=lambda other: _distance(other, key), default=None)


def _distance(a: Key, b: Key) -> tuple[int, ...]:
    return (a.encoding != b.encoding, *(abs(m - n) for m, n in zip(a[:3], b[:3], strict=True)))


def has_centre_block(mask: NDArray[np.bool_]) -> bool:
    """Return whether the fully sampled block around the centre of mask (..., y, x) is large enough for calibration."""
    return min(calibration_region(mask)) >= LEAST_CALIBRATION


def centre_block(kspace: Array, mask: Array) -> Array | None:
    """The largest fully sampled block around the centre, (batch, 1, coil, y', x'); None if it is too small.

    mask (..., y, x) bool, of any library: the block is sampled in all of it."""
    region = calibration_region(mask)
    return resize(kspace[:, :1], region) if min(region) >= LEAST_CALIBRATION else None


def on_spacing_of(block: Array, source: Encoding, target: Encoding) -> Array:
    """Return a calibration block of `source` on the k-space spacing of `target`. Its images get the same field of view.

    block: (..., y, x), or (x, ..., z, y) of a volume. Raises InputError if one is 3-D and the other is not."""
    if source.volume != target.volume:
        raise InputError(f"calibration lines of {source.name} are 2-D and {target.name} is 3-D, or the reverse")

    def side(n: int, axis: int) -> int:
        a, b = source.reduced.fov[axis], target.reduced.fov[axis]
        return max(round(n * b / a), 1) if a and b else n

    sides = [side(n, axis) for n, axis in zip(block.shape[-2:], (2, 1) if target.volume else (1, 0), strict=True)]
    if sides != list(block.shape[-2:]):
        block = fftc(resize(ifftc(block), sides))
    if not target.volume:
        return block
    block = resize(block, (side(block.shape[0], 0),), axes=(0,))
    if block.shape[0] != target.reduced.matrix[0]:
        block = ifftc(resize(fftc(block, axes=(0,)), (target.reduced.matrix[0],), axes=(0,)), axes=(0,))
    return block


def for_later(block: Array, *, volume: bool) -> Array:
    """A copy of the middle of a calibration block (…, y, x), for images without calibration lines of their own."""
    height, width = block.shape[-2:]
    shape = (min(height, KEPT), min(width, KEPT) if volume else width)
    return array_namespace(block).asarray(resize(block, shape), copy=True)


@dataclass(frozen=True)
class Middle:
    """The middle of the k-space of one image."""

    kspace: Array
    """(batch, 1, coil, y, x), a copy."""
    mask: NDArray[np.bool_]
    """(y, x)."""


@dataclass(frozen=True)
class Mean:
    """A calibration block of one image, or from the mean over images that sampled different lines."""

    block: Array | None
    """(batch, 1, coil, y', x'); None where the images together do not sample the centre."""
    images: int = 1
    """How many there are in the mean."""
    of: str = "repetition"
    """The counter in which they differ."""
    faults: tuple[str, ...] = ()
    """Sentences on separate calibration lines that were left out."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the comment of the images."""
        mean = (f"calibration lines are the mean over {self.images} {self.of}s",) if self.images > 1 else ()
        return (*mean, *(f"calibration: {fault}" for fault in self.faults))


def middle_of(kspace: Array, mask: NDArray[np.bool_], *, volume: bool) -> Middle:
    """The middle of the first echo of k-space (batch, echo, coil, y, x) with mask (y, x)."""
    kept = for_later(kspace[:, :1], volume=volume)
    return Middle(kept, resize(mask, kept.shape[-2:]))


def window_mean(get: Callable[[int], Middle | None], at: int, *, ended: bool) -> Mean | None:
    """The calibration of image `at` of a series: the mean over the fewest images that together sample the centre.

    The images follow each other, and image `at` is the last of them. Where that is too early, they are the first images
    of the series. Returns None where more images must come. Source: TGRAPPA (Breuer 2005).
    get: the middle of an image by its number; None where the image did not come yet.
    ended: no more images come.
    """
    window: list[Middle] = []
    for number in chain(range(at, -1, -1), count(at + 1)):
        found = get(number) if len(window) < MAX_WINDOW else None
        if found is None:
            break
        window.append(found)
        if _samples_centre(window):
            return _mean(window)
    return _mean(window) if ended or len(window) == MAX_WINDOW else None


def _samples_centre(window: Sequence[Middle]) -> bool:
    mask = np.logical_or.reduce([middle.mask for middle in window])
    return all(n >= min(ENOUGH, side) for n, side in zip(calibration_region(mask), mask.shape, strict=True))


def _mean(window: Sequence[Middle]) -> Mean:
    xp = array_namespace(window[0].kspace)
    counts = np.sum([middle.mask for middle in window], axis=0)
    total = sum(middle.kspace for middle in window)
    mean = total * asarray_like(1 / np.maximum(counts, 1), total, dtype=xp.float32)
    return Mean(centre_block(mean, counts > 0), len(window))
