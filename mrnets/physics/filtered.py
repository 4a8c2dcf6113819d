"""K-space whose edges a scanner or converter has damped (Hamming, Hann, Tukey, Fermi), and the level of its noise.

Axes: batch, echo, coil, y, x. Lines run along x, and lines that were sampled are so without gaps.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mrnets.physics.arrays import Array, array_namespace, asarray_like, to_numpy
from mrnets.physics.fourier import ifftc

__all__ = ["filtered_noise"]

STEEP = 0.2
"""Energy at 0.9 to 1 of the readout's half width, relative to that at 0.7 to 0.8. Filters left 0.18 at most, objects
without noise 0.25 at least."""
LOUDER = 3.0
"""The noise of the background, relative to that of the periphery. Without a filter both are the same."""
FLAT = 1.3
"""Levels of two neighbouring tenths of the background, at most. Noise is the same everywhere, and signal is not."""
LINES = 8
"""Fewer lines tell nothing."""


def filtered_noise(kspace: Array, periphery: float) -> float | None:
    """Return the standard deviation of the noise of filtered k-space; None where it does not seem to be filtered.

    The level is that of the quietest fifth of the field of view along x, the mean over the coils. A filter leaves there
    its root mean square of the noise. kspace: complex64, of any array library. periphery: the level at the periphery of
    k-space, which a filter damps.
    """
    there = to_numpy(array_namespace(kspace).any(kspace != 0, axis=(0, 1, 2)))
    width = there.shape[-1]
    spans = width - np.argmax(there, axis=-1) - np.argmax(there[:, ::-1], axis=-1)
    whole = (there.sum(axis=-1) == spans) & (spans >= width // 2) & there.any(axis=-1)
    lines = kspace[..., asarray_like(np.flatnonzero(whole), kspace), :]
    tenth = width // 10
    if lines.shape[-2] < LINES or not tenth or not _steep(lines):
        return None
    background = np.sort(_energy(ifftc(lines, axes=(-1,))))
    first, second = (float(background[n * tenth : (n + 1) * tenth].mean()) for n in (0, 1))
    level = math.sqrt((first + second) / 2)
    return level if second <= FLAT**2 * first and level > LOUDER * periphery else None


def _steep(lines: Array) -> bool:
    energy, width = _energy(lines), lines.shape[-1]
    distance = np.abs(np.arange(width) - (width - 1) / 2) / (width / 2)
    outer, inner = (energy[(distance >= low) & (distance < low + 0.1) & (energy > 0)] for low in (0.9, 0.7))
    return bool(len(outer) and len(inner) and outer.mean() < STEEP * inner.mean())


def _energy(lines: Array) -> NDArray[np.float64]:
    """Return the mean energy (x,) of lines (batch, echo, coil, y, x), in the host's memory."""
    xp = array_namespace(lines)
    energy: NDArray[np.float64] = to_numpy(xp.mean(xp.astype(xp.abs(lines), xp.float64) ** 2, axis=(0, 1, 2, 3)))
    return energy
