"""Readouts of echo-planar scans whose samples were taken while the gradient rises and falls.

The header's trajectory description tells the times. The parameters are those of siemens_to_ismrmrd, in µs: rampUpTime,
flatTopTime, rampDownTime, acqDelayTime from the start of the gradient, numSamples, dwellTime.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.physics.regrid import regridding, supported, trapezoid_area

__all__ = ["Line", "Ramps", "noise_gain", "operator", "ramps_of"]

MAX_SAMPLES = 8192
_NEEDED = ("rampUpTime", "flatTopTime", "acqDelayTime", "numSamples", "dwellTime")


@dataclass(frozen=True)
class Ramps:
    """The times of a readout, in µs."""

    up: float
    top: float
    down: float
    delay: float
    """From the start of the gradient to that of the first sample."""
    dwell: float
    samples: int

    def positions(self, size: int, centre: int, *, backwards: bool) -> NDArray[np.float64]:
        """(sample,): positions in steps of a grid of `size`, in ascending order, 0 at the sample `centre`.

        All samples together cover the grid. backwards: the samples of a reversed line, after it was turned round."""
        start, end = (self._area(self.delay + n * self.dwell) for n in (0, self.samples))
        middles = self.delay + (np.arange(self.samples) + 0.5) * self.dwell
        area = self._area(middles) * size / (end - start)
        ascending = -area[::-1] if backwards else area
        return np.asarray(ascending - ascending[centre])

    def _area(self, time: Any) -> Any:
        return trapezoid_area(np.asarray(time, np.float64), self.up, self.top, self.down)


def ramps_of(description: Any, name: str) -> Ramps | None:
    """Return the times of an encoding space with samples on ramps; None where there are none.

    description: the header's. Raises InputError where it says that there are such samples, but not where they lie."""
    values = _parameters(description)
    if not all(key in values for key in _NEEDED):
        return None
    up, top, delay, samples, dwell = (values[key] for key in _NEEDED)
    end = delay + samples * dwell
    if delay >= up and end <= up + top + dwell:
        return None
    down = values.get("rampDownTime", -1.0)
    sane = min(up, top, down, delay) >= 0 and dwell > 0 and 2 <= samples <= MAX_SAMPLES
    if not (sane and end <= up + top + down + dwell):
        raise InputError(
            f"{name} has samples on the gradients' ramps: they last from {delay:g} to {end:g} µs, and the flat top "
            f"from {up:g} to {up + top:g} µs; the header does not tell where they lie, so such lines must be regridded "
            f"before"
        )
    return Ramps(up, top, down, delay, dwell, int(samples))


@dataclass(frozen=True)
class Line:
    """The facts on a line that decide how it is regridded."""

    centre: int
    """The sample at the k-space centre."""
    used: tuple[int, int]
    """The first sample, and one past the last."""
    backwards: bool
    """It was reversed, and turned round."""
    shift: float = 0.0
    """Offset of the field of view along the readout, in encoded fields of view, that the receiver took away."""


@functools.lru_cache(maxsize=32)
def operator(ramps: Ramps, sizes: tuple[int, int], line: Line) -> NDArray[np.complex64]:
    """Return (pixel, sample): what makes an image along x of a line with samples on ramps.

    The receiver shifts the field of view by a constant frequency, as if the gradient were constant. The rest of that
    phase is taken away on the ramps, as Gadgetron's EPIReconX does.
    sizes: of the encoded grid, and pixels of the image. Raises InputError where samples lie too far apart."""
    size, pixels = sizes
    positions = ramps.positions(size, line.centre, backwards=line.backwards)
    steady = np.diff(positions).max() * (np.arange(ramps.samples) - line.centre)
    phase = np.exp(-2j * np.pi * line.shift * (positions - steady))
    some = slice(*line.used)
    if (there := supported(positions[some], size)) < pixels:
        raise InputError(
            f"samples on the gradients' ramps are too far apart: they can tell {there} pixels of {size} from each "
            f"other, and the images have {pixels}"
        )
    return np.asarray(regridding(positions[some], size, pixels) * phase[some], np.complex64)


def noise_gain(operator: NDArray[np.complex64]) -> float:
    """The mean variance of noise in the pixels that an operator makes of samples with noise of variance 1."""
    return float(np.mean(np.sum(np.abs(operator) ** 2, axis=1)))


def _parameters(description: Any) -> dict[str, float]:
    if description is None:
        return {}
    pairs = (*(description.userParameterLong or ()), *(description.userParameterDouble or ()))
    return {pair.name: float(pair.value) for pair in pairs if pair.value is not None}
