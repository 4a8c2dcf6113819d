"""Lines of k-space sampled at uneven positions along the readout, brought to image space.

Positions are in steps of the grid, 0 at the k-space centre. The image is found by the pseudo-inverse of the Fourier
sum (Rosenfeld 1998, MRM 40:14). For samples on the ramps of echo-planar gradients: Bruder 1992, MRM 23:311.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_ERROR", "regridding", "supported", "trapezoid_area"]

MAX_ERROR = 0.01
"""Singular values below this share of the largest one are left out: what the samples hardly see."""


def trapezoid_area(time: NDArray[np.float64], up: float, top: float, down: float) -> NDArray[np.float64]:
    """Return the area of a gradient trapezoid of height 1 from its start to each `time`.

    up, top, down: durations of its parts, in the unit of `time`. Before its start the area is 0, and after its end that
    of all of it."""
    t = np.clip(time, 0.0, up + top + down)
    rising = np.minimum(t, up)
    falling = np.maximum(t - up - top, 0.0)
    area = np.clip(t - up, 0.0, top) + falling
    if up > 0:
        area = area + rising**2 / (2 * up)
    return area - falling**2 / (2 * down) if down > 0 else area


def supported(positions: NDArray[np.float64], size: int) -> int:
    """Return how many pixels in the middle of a grid of `size` the samples can tell apart, by the largest step."""
    largest = float(np.abs(np.diff(positions)).max(initial=0.0))
    return size if largest <= 1.0 else int(size / largest)


def regridding(positions: NDArray[np.float64], size: int, pixels: int) -> NDArray[np.complex128]:
    """Return (pixel, sample): what makes of samples at `positions` the middle `pixels` of a line of `size` pixels.

    The scale is that of the orthonormal transform of `size` samples. All pixels that the samples can tell apart are
    solved for, so that an object beyond the middle does not fold into it."""
    known = max(supported(positions, size), pixels)
    x = np.arange(known) - known // 2
    encoding = np.exp(-2j * np.pi * np.outer(positions, x) / size) / np.sqrt(size)
    first = known // 2 - pixels // 2
    return np.linalg.pinv(encoding, rcond=MAX_ERROR)[first : first + pixels]
