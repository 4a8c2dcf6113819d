"""Coil sensitivities without eigenvectors: from images of low resolution, or the same for all coils."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mrnets.physics.arrays import Array, array_namespace, constant, device
from mrnets.physics.checks import require_complex, sizes
from mrnets.physics.fourier import ifftc, resize

__all__ = ["WIDTH", "low_resolution", "rss_maps", "unitary_maps"]

_AXES = "(..., coil, [z,] y, x)"
WIDTH = 24
"""Samples along each axis that are taken from the middle of a calibration block, where it has that many."""


def rss_maps(calibration: Array, shape: Sequence[int], *, width: int = WIDTH) -> Array:
    """Low-resolution coil images over their root sum of squares: (..., coil, *block) to (..., coil, *shape).

    The centre of `calibration` is used, up to `width` samples along each axis. A Hann window over it keeps truncation
    ripples out of the maps. |S|^2 sums to 1 everywhere but where there is no signal at all. S contains the phase of the
    image, at that resolution. Raises InputError for samples that are not complex, and for too few axes.
    """
    shape = sizes("low-resolution maps", shape)
    require_complex("low-resolution maps", calibration, _AXES, len(shape) + 1)
    xp = array_namespace(calibration)
    axes = tuple(range(-len(shape), 0))
    block = resize(calibration, [min(n, width) for n in calibration.shape[-len(shape) :]], axes)
    images = low_resolution(block, shape)
    norm = xp.sqrt(xp.sum(xp.abs(images) ** 2, axis=axes[0] - 1, keepdims=True))
    return images / xp.where(norm > 0, norm, xp.ones_like(norm))


def unitary_maps(calibration: Array, shape: Sequence[int]) -> Array:
    """Every coil counts alike everywhere, S = 1 / sqrt(coils): (..., coil, *block) to (..., coil, *shape).

    The assumption without knowledge of the coils. It is correct for a single coil.
    """
    shape = sizes("unitary maps", shape)
    require_complex("unitary maps", calibration, _AXES, len(shape) + 1)
    xp = array_namespace(calibration)
    lead = calibration.shape[: -len(shape)]
    ones = xp.ones((*lead, *shape), dtype=calibration.dtype, device=device(calibration))
    return ones / lead[-1] ** 0.5


def low_resolution(block: Array, shape: tuple[int, ...]) -> Array:
    """Coil images (..., coil, *shape) of the block, with a Hann window over it."""
    xp = array_namespace(block)
    axes = tuple(range(-len(shape), 0))
    for axis in axes:
        window = constant(_hann, block.shape[axis], like=block, dtype=block.dtype)
        block = block * xp.reshape(window, (-1, *[1] * (-1 - axis)))
    return ifftc(resize(block, shape, axes), axes)


def _hann(samples: int) -> NDArray[np.float64]:
    return np.cos(np.pi * (np.arange(samples) - samples // 2) / (samples + 1)) ** 2
