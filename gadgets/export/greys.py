"""Real pixels as the 16-bit numbers that DICOM stores, with one conversion for a whole series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["GREYS", "Greys"]

GREYS = 32767
"""The brightest stored value of pixels that are no integers: readers that take them as signed are right, too."""


@dataclass(frozen=True)
class Greys:
    """How pixels are stored: value = slope * stored + intercept."""

    slope: float
    intercept: float
    window: tuple[float, float]
    """The values that are black and white."""

    @classmethod
    def of(cls, pixels: NDArray[Any]) -> Greys:
        """Return one conversion for a whole series, so that its images can be compared."""
        finite = pixels[np.isfinite(pixels)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        if pixels.dtype.kind in "ui" and low >= 0 and high <= 65535:
            return cls(1.0, 0.0, (0.0, max(high, 1.0)))
        black, white = (float(v) for v in np.percentile(finite, (0.2, 99.8))) if finite.size else (0.0, 0.0)
        low = min(low, 0.0)
        black = 0.0 if low == 0 else black
        return cls((high - low) / GREYS or 1.0, low, (black, white if white > black else black + 1.0))

    def stored(self, pixels: NDArray[Any]) -> NDArray[np.uint16]:
        """Return stored values. Those that are not finite are stored as the lowest."""
        values = np.where(np.isfinite(pixels), (pixels.astype(np.float64) - self.intercept) / self.slope, 0)
        return np.rint(values).astype(np.uint16)
