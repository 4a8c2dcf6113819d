"""The phase encodings that are measured, and their counters.

Axes: masks (z, y) of a 3-D scan, (1, y) of slices.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gadgets.simulate.settings import Settings
from mrnets.errors import InputError
from mrnets.physics import masks

__all__ = ["calibration_block", "centre", "imaged", "left_out", "require_more_than_centre"]

Mask = NDArray[np.bool_]


def imaged(settings: Settings) -> Mask:
    """The phase encodings of the image. Raises InputError where the mask cannot be had."""
    ny, nz = settings.matrix, settings.slices if settings.three_d else 1
    rng = np.random.default_rng([settings.seed, 1])
    width, kind = _width(settings), masks.kind(settings.mask)
    if kind.axes == 1:
        lines = kind.draw((ny, 1), settings.acceleration, rng, centre=width)
        return np.repeat(masks.partial_fourier(lines, settings.partial_fourier).T, nz, axis=0)
    mask = kind.draw((nz, ny), settings.acceleration, rng, centre=min(width, nz))
    return np.ascontiguousarray(masks.partial_fourier(mask.T, settings.partial_fourier).T)


def require_more_than_centre(settings: Settings) -> None:
    """Raise InputError where undersampling leaves nothing but the fully sampled centre of k-space.

    `make_scan` takes such settings, which are right for a quick test; their images are no more than blurred."""
    mask, width = imaged(settings), _width(settings)
    nz = len(mask)
    centre = width * nz if masks.kind(settings.mask).axes == 1 else min(width, nz) ** 2
    if mask.sum() == centre < mask.size:
        raise InputError(
            f"{settings.acceleration:g}-fold acceleration leaves {centre} phase encodings to sample, and the "
            "fully sampled centre has all of them: make it smaller, or accelerate less"
        )


def _width(settings: Settings) -> int:
    """Return the fully sampled width of the image itself, which always has the centre of k-space."""
    return 1 if settings.separate else settings.calibration


def calibration_block(settings: Settings, mask: Mask) -> Mask:
    """The fully sampled centre."""
    block = np.zeros_like(mask)
    (nz, ny), width = mask.shape, settings.calibration
    both = masks.kind(settings.mask).axes == 2 or settings.separate
    height = min(width, nz) if both else nz
    top, left = nz // 2 - height // 2, ny // 2 - width // 2
    block[top : top + height, left : left + width] = True
    return block


def left_out(settings: Settings) -> int:
    """Lines before the first one of a partial Fourier scan. Counters start after them, as on scanners."""
    return math.floor(settings.partial_fourier * settings.matrix)


def centre(settings: Settings) -> tuple[int, int]:
    """Line and partition of the centre of k-space, as the counters count."""
    return settings.matrix // 2 - left_out(settings), settings.slices // 2 if settings.three_d else 0
