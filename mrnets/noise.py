"""The noise level of a scan as its own calibration lines show it, and what to do where the noise measurement disagrees.

Axes: see `mrnets.contract`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mrnets.contract import Raw
from mrnets.physics.arrays import Array, array_namespace, to_numpy
from mrnets.physics.patches import windows

__all__ = ["agreed_noise", "agreed_together", "levels", "unpredictable"]

KERNELS = (4, 3, 2)
"""Widths of patches, in samples; the largest one that there are enough patches for."""
PATCHES_PER_VALUE = 3
"""Patches for each value in one, so that the smallest eigenvalues of their covariance are near the noise."""
MAX_VALUES = 512
"""Values in a patch. More values would only take time."""
AT_ONCE = 1 << 23
"""Values of patches that are in memory at once."""
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
    (found,) = levels(calibration[None])
    return found


def levels(calibration: Array) -> list[float | None]:
    """`unpredictable` of blocks (batch, coil, y, x). A device is asked once, for the covariances of their patches."""
    batch, coils, height, width = calibration.shape
    for kernel in KERNELS:
        y, x = min(kernel, height), min(kernel, width)
        values, count = coils * y * x, (height - y + 1) * (width - x + 1)
        if values <= MAX_VALUES and count >= PATCHES_PER_VALUE * values:
            return [_smallest(covariance, count) for covariance in to_numpy(_covariances(calibration, (y, x)))]
    return [None] * batch


def _covariances(blocks: Array, kernel: tuple[int, int]) -> Array:
    """(batch, value, value) complex128, of all patches of each block (batch, coil, y, x)."""
    xp = array_namespace(blocks)
    step = max(1, AT_ONCE // (math.prod(blocks.shape[1:]) * math.prod(kernel)))

    def covariance(some: Array) -> Array:
        patches = windows(xp.astype(some, xp.complex128), kernel)
        return xp.matmul(xp.conj(xp.matrix_transpose(patches)), patches) / patches.shape[1]

    return xp.concat([covariance(blocks[n : n + step]) for n in range(0, len(blocks), step)])


def _smallest(covariance: NDArray[np.complex128], patches: int) -> float:
    """By the median of the smallest eigenvalues, over what it is of noise with variance 1 (Marchenko, Pastur 1967).

    Without noise it is what rounding of the largest eigenvalue leaves, and 0 only without signal.
    """
    eigenvalues = np.linalg.eigvalsh(covariance)
    count = max(round(SMALLEST * len(eigenvalues)), 1)
    spread = math.sqrt(len(eigenvalues) / patches)
    expected = (1 - spread) ** 2 + 4 * spread * SEMICIRCLE
    rounding = float(np.finfo(np.float64).eps * eigenvalues[-1])
    return math.sqrt(max(float(np.median(eigenvalues[:count])), rounding, 0.0) / expected)


def agreed_noise(raw: Raw) -> tuple[Raw, tuple[str, ...]]:
    """`raw` with a noise level that its calibration lines bear out, and a note where its noise measurement does not.

    Only for whitened data, whose noise has the variance `variance` / `averages`. Where both levels differ by more than
    `FACTOR`, `averages` becomes what the calibration lines show. Those of one coil show more than noise,
    because no other coil predicts their signal. They tell only where the measured noise is too strong.
    """
    (found,) = agreed_together([raw])
    return found


def agreed_together(raws: Sequence[Raw]) -> list[tuple[Raw, tuple[str, ...]]]:
    """`agreed_noise` of each of `raws`, whose arrays have the same shapes and lie on the same device.

    A device is asked once."""
    blocks = [_middle(raw) for raw in raws]
    there = [block for block in blocks if block is not None]
    found = iter(levels(array_namespace(*there).stack(there)) if there else ())
    return [(raw, ()) if block is None else _agreed(raw, next(found)) for raw, block in zip(raws, blocks, strict=True)]


def _middle(raw: Raw) -> Array | None:
    """The calibration lines (coil, y, x) of the middle slice; None where they are not known or not whitened."""
    if not raw.whitened or raw.calibration is None:
        return None
    return raw.calibration[raw.calibration.shape[0] // 2, 0]


def _agreed(raw: Raw, seen: float | None) -> tuple[Raw, tuple[str, ...]]:
    ratio = 0.0 if seen is None else seen * math.sqrt(raw.averages / raw.variance)
    signal = ratio > FACTOR and raw.kspace.shape[-3] == 1
    if ratio < NONE or 1 / FACTOR <= ratio <= FACTOR or signal:
        return raw, ()
    note = (
        f"the noise in the calibration lines is {ratio:.2g} times that of the noise measurement, which is of another "
        "scan or scaled otherwise; the noise level was taken from the calibration lines"
    )
    return dataclasses.replace(raw, averages=raw.averages / ratio**2), (note,)
