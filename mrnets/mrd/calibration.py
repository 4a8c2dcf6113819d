"""Calibration blocks: the fully sampled centre of k-space, of an image's own lines or of separate ones.

Axes: batch, echo, coil, y, x as in `mrnets.contract.Raw`, whose k-space centre is at n // 2.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.mrd.encoding import Encoding
from mrnets.mrd.images import Key
from mrnets.physics.arrays import Array, array_namespace
from mrnets.physics.fourier import fftc, ifftc, resize
from mrnets.physics.masks import LEAST_CALIBRATION, calibration_region

__all__ = ["centre_block", "for_later", "has_centre_block", "nearest", "on_spacing_of"]

KEPT = 32
"""Lines of a calibration block that are kept for later repetitions without calibration lines of their own."""


def nearest(references: Iterable[Key], key: Key) -> Key | None:
    """Of images of separate calibration lines the one that belongs to image `key`: of its slice, and of its encoding
    space, repetition, set and phase or the nearest to them. None where no calibration lines came for the slice."""
    same_slice = [reference for reference in references if reference.slice == key.slice]
    return min(same_slice, key=lambda other: _distance(other, key), default=None)


def _distance(a: Key, b: Key) -> tuple[int, ...]:
    return (a.encoding != b.encoding, *(abs(m - n) for m, n in zip(a[:3], b[:3], strict=True)))


def has_centre_block(mask: NDArray[np.bool_]) -> bool:
    """Whether there is a fully sampled block around the centre that is worth the name."""
    return min(calibration_region(mask)) >= LEAST_CALIBRATION


def centre_block(kspace: Array, mask: NDArray[np.bool_]) -> Array | None:
    """The largest fully sampled block around the centre, (batch, 1, coil, y', x'); None if it is too small."""
    return resize(kspace[:, :1], calibration_region(mask)) if has_centre_block(mask) else None


def on_spacing_of(block: Array, source: Encoding, target: Encoding) -> Array:
    """A calibration block of `source` on the k-space spacing of `target`: in image space, to the same field of view.

    Raises InputError if one is 3-D and the other is not."""
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
