"""The strength of lines, measured as they come: in the processor's cache that takes a third of the time.

Axes: line, coil, x for lines; z, y for the places of lines. NumPy or CuPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mrnets.physics.arrays import Array, array_namespace, is_numpy_array, to_numpy

__all__ = ["Measures", "Profiles", "Strength", "in_parts", "measures_of", "peaks_of", "profiles_of"]

Profiles: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""The energy of all coils along y, the sum over x, and along x, the sum over y."""

PART_BYTES = 1 << 20
"""That fits a processor's own cache."""


@dataclass(frozen=True)
class Measures:
    """The strength of some lines."""

    peaks: Array
    """(line,): the largest real or imaginary part of each; not finite where a sample is not."""
    energy: Array
    """(line, x): of all coils. None on a device."""


@dataclass(frozen=True)
class Strength:
    """Measures of all samples of a slice or volume, for the checks at its end. Wrong once a place has two lines."""

    peaks: NDArray[np.float32]
    """(z, y): the largest real or imaginary part of each line."""
    along: NDArray[np.float64]
    """(y,): energy."""
    across: NDArray[np.float64]
    """(x,): energy."""

    @classmethod
    def of_none(cls, z: int, y: int, x: int) -> Strength:
        """No lines yet."""
        return cls(np.zeros((z, y), np.float32), np.zeros(y), np.zeros(x))

    def add(self, measures: Measures, which: NDArray[Any], places: tuple[NDArray[Any], NDArray[Any]]) -> None:
        """Take those lines of `measures` that are `which`, at their places (z, y)."""
        energy = measures.energy[which]
        self.peaks[places] = measures.peaks[which]
        np.add.at(self.along, places[1], energy.sum(axis=1, dtype=np.float64))
        self.across[:] += energy.sum(axis=0, dtype=np.float64)

    @property
    def profiles(self) -> Profiles:
        """As `profiles_of`."""
        return self.along, self.across


def in_parts(lines: Array) -> Iterator[slice]:
    """Yield parts of lines that fit a processor's own cache; all lines at once on a device."""
    step = max(1, PART_BYTES // max(lines[:1].nbytes, 1)) if is_numpy_array(lines) else max(1, len(lines))
    return (slice(n, n + step) for n in range(0, len(lines), step))


def peaks_of(lines: Array) -> Array:
    """The largest real or imaginary part of each line (line, coil, x): (line,). NaN where one is NaN."""
    xp = array_namespace(lines)
    if not lines.size:
        return xp.zeros(len(lines), dtype=xp.float32)
    return xp.concat([_peaks(_real(lines[part])) for part in in_parts(lines)])


@np.errstate(over="ignore", invalid="ignore")  # values that are not finite are told elsewhere
def measures_of(lines: Array) -> Measures:
    """Return the measures of lines (line, coil, x), by one pass over their memory."""
    if not is_numpy_array(lines):
        return Measures(peaks_of(lines), None)
    peaks, energy = np.zeros(len(lines), np.float32), np.zeros((len(lines), lines.shape[2]), np.float32)
    for part in in_parts(lines) if lines.size else ():
        values = _real(lines[part])
        peaks[part] = _peaks(values)
        energy[part] = _energy(values)
    return Measures(peaks, energy)


@np.errstate(over="ignore", invalid="ignore")
def profiles_of(kspace: Array) -> Profiles:
    """The energy along y and x of k-space (batch, coil, y, x)."""
    planes = (_real(array_namespace(kspace).moveaxis(one, 0, 1)) for one in kspace)
    energy = sum(np.asarray(to_numpy(_energy(plane)), np.float64) for plane in planes)
    return np.sum(energy, axis=1), np.sum(energy, axis=0)


def _peaks(values: Array) -> Array:
    """(line,): the largest magnitude of real numbers (line, coil, x)."""
    xp = array_namespace(values)
    return xp.maximum(xp.max(values, axis=(1, 2)), -xp.min(values, axis=(1, 2)))


def _energy(values: Array) -> Array:
    """(line, x): the energy of all coils, of real and imaginary parts in turn."""
    squares = array_namespace(values).einsum("lcx,lcx->lx", values, values)  # no copies: a fifth of abs() ** 2
    return squares[:, ::2] + squares[:, 1::2]


def _real(lines: Array) -> Array:
    """Real and imaginary parts in turn; a copy only of lines that run backwards in memory."""
    xp = array_namespace(lines)
    return (lines if lines.strides[-1] == lines.itemsize else xp.ascontiguousarray(lines)).view(xp.float32)
