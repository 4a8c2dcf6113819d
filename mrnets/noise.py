"""The noise level of a scan as its own calibration lines show it, and what to do where the noise measurement disagrees.

Axes: see `mrnets.contract`.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mrnets.contract import Raw
from mrnets.physics.arrays import Array, to_numpy

__all__ = ["agreed_noise", "unpredictable"]

KERNELS = (4, 3, 2)
"""Widths of patches, in samples; the largest one that there are enough patches for."""
PATCHES_PER_VALUE = 3
"""Patches for each value in one, so that the smallest eigenvalues of their covariance are near the noise."""
MAX_VALUES = 512
"""Values in a patch. More values would only take time."""
SMALLEST = 0.1
"""Share of the eigenvalues that are taken for noise alone."""
SEMICIRCLE = 0.097
"""Where the half of `SMALLEST` of a semicircle's area ends, in diameters: the shape of the eigenvalues of noise."""
FACTOR = 3.0
"""Between both noise levels: 1.0 to 1.1 was seen on real scans, 270 where a converter had scaled noise otherwise."""
NONE = 1e-4
"""Less noise than this share of the measured one is none: simulated data."""


def unpredictable(calibration: Array) -> float | None:
    """Standard deviation of the noise in k-space (coil, y, x): the part that neighbours and other coils do not predict.

    Patches of multi-coil k-space lie in a low-dimensional space (Uecker 2014). The smallest eigenvalues of their
    covariance are therefore those of noise. None: the block is too small to tell.
    """
    block = to_numpy(calibration).astype(np.complex128)
    for kernel in KERNELS:
        y, x = (min(kernel, n) for n in block.shape[-2:])
        values = block.shape[0] * y * x
        patches = sliding_window_view(block, (len(block), y, x))[0]
        if values <= MAX_VALUES and patches.shape[0] * patches.shape[1] >= PATCHES_PER_VALUE * values:
            return _smallest(patches.reshape(-1, values))
    return None


def _smallest(patches: NDArray[np.complex128]) -> float:
    """By the median of the smallest eigenvalues, over what it is of noise with variance 1 (Marchenko, Pastur 1967)."""
    eigenvalues = np.linalg.eigvalsh(patches.conj().T @ patches / len(patches))
    count = max(round(SMALLEST * len(eigenvalues)), 1)
    spread = math.sqrt(patches.shape[1] / len(patches))
    expected = (1 - spread) ** 2 + 4 * spread * SEMICIRCLE
    return math.sqrt(max(float(np.median(eigenvalues[:count])), 0.0) / expected)


def agreed_noise(raw: Raw) -> tuple[Raw, tuple[str, ...]]:
    """`raw` with a noise level that its calibration lines bear out, and a note where its noise measurement does not.

    Only for whitened data, whose noise has the variance `variance` / `averages`. Where both levels differ by more than
    `FACTOR`, `averages` becomes what the calibration lines show.
    """
    if not raw.whitened or raw.calibration is None:
        return raw, ()
    seen = unpredictable(raw.calibration[raw.calibration.shape[0] // 2, 0])
    ratio = 0.0 if seen is None else seen * math.sqrt(raw.averages / raw.variance)
    if ratio < NONE or 1 / FACTOR <= ratio <= FACTOR:
        return raw, ()
    note = (
        f"the noise in the calibration lines is {ratio:.2g} times that of the noise measurement, which is of another "
        "scan or scaled otherwise; the noise level was taken from the calibration lines"
    )
    return dataclasses.replace(raw, averages=raw.averages / ratio**2), (note,)
