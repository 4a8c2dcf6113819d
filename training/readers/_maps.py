"""Sensitivities that come with the data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["unit_maps"]


def unit_maps(maps: NDArray[Any]) -> NDArray[np.complex64]:
    """Return maps (coil, y, x) with a sum over coils of |map|^2 = 1 where there are any, 0 elsewhere; NaN stays NaN."""
    norm = np.sqrt(np.sum(np.abs(maps) ** 2, axis=0))
    return np.ascontiguousarray(maps / np.where(norm == 0, 1, norm), np.complex64)
