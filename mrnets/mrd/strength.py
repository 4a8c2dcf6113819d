"""The strength of lines, measured as they come: in the processor's cache that takes a third of the time.

Axes: line, coil, x for lines; z, y for the places of lines. NumPy or CuPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mrnets.physics.arrays import Array, array_namespace, is_numpy_array

__all__ = ["Profiles", "Strength", "in_parts", "peaks_of", "profiles_of", "squares_of"]

Profiles: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""The energy of all coils along y, the sum over x, and along x, the sum over y."""

PART_BYTES = 1 << 20
"""That fits a processor's own cache."""


@dataclass(frozen=True)
class Strength:
    """Measures of all samples of a slice or volume, for the checks at its end. Wrong once a place has two lines."""

    peaks: NDArray[np.float32]
    """(z, y): the largest real or imaginary part of each line."""
    along: NDArray[np.float64]
    """(y,): energy."""
    across: NDArray[np.float64]
    """(x, 2): energy of the real and of the imaginary parts."""

    @classmethod
    def of_none(cls, z: int, y: int, x: int) -> Strength:
        """No lines yet."""
        return cls(np.zeros((z, y), np.float32), np.zeros(y), np.zeros((x, 2)))

    @np.errstate(over="ignore", invalid="ignore")  # values that are not finite are told elsewhere
    def put(self, lines: NDArray[np.complex64], kspace: Array, z: NDArray[Any], y: NDArray[Any]) -> None:
        """Put lines (line, coil, x) to places (z, y) of k-space (z, y, coil, x), and measure their energy on the way.

        A part of them is measured and put to its places while the processor's cache has it."""
        energy = np.empty(len(lines), np.float32)
        for part in in_parts(lines):
            squares = _squares(lines[part])
            squares.sum(axis=1, out=energy[part])
            self.across[:] += squares.sum(axis=0).reshape(-1, 2)
            kspace[z[part], y[part]] = lines[part]
        np.add.at(self.along, y, energy)

    @property
    def profiles(self) -> Profiles:
        """As those of `profiles_of`."""
        return self.along, self.across.sum(axis=1)


def in_parts(lines: Array) -> Iterator[slice]:
    """Yield parts of lines that fit a processor's own cache; all lines at once on a device."""
    step = max(1, PART_BYTES // max(lines[:1].nbytes, 1)) if is_numpy_array(lines) else max(1, len(lines))
    return (slice(n, n + step) for n in range(0, len(lines), step))


def peaks_of(lines: Array) -> Array:
    """The largest real or imaginary part of each line (line, coil, x): (line,). NaN where one is NaN."""
    xp = array_namespace(lines)
    if not lines.size:
        return xp.zeros(len(lines), dtype=xp.float32)
    parts = (_real(lines[part]) for part in in_parts(lines))
    return xp.concat([xp.maximum(xp.max(part, axis=(1, 2)), -xp.min(part, axis=(1, 2))) for part in parts])


@np.errstate(over="ignore", invalid="ignore")  # values that are not finite are told elsewhere
def squares_of(kspace: Array) -> Array:
    """Return the energy of k-space (batch, coil, y, x): (y, 2 x) float32, of real and imaginary parts in turn."""
    return reduce(add, (_squares(array_namespace(kspace).moveaxis(one, 0, 1)) for one in kspace))


@np.errstate(over="ignore", invalid="ignore")
def profiles_of(energy: NDArray[Any], width: int) -> Profiles:
    """Return the energy along y and x.

    energy: of samples (y, x), or of their real and imaginary parts in turn (y, 2 x). width: that of x."""
    energy = np.asarray(energy, np.float64)
    return energy.sum(axis=1), energy.sum(axis=0).reshape(width, -1).sum(axis=1)


def _squares(lines: Array) -> Array:
    """(line, 2 x): the energy of all coils, of real and imaginary parts in turn."""
    parts = _real(lines)
    return array_namespace(lines).einsum("lcx,lcx->lx", parts, parts)  # no copies: a fifth of abs() ** 2


def _real(lines: Array) -> Array:
    """Real and imaginary parts in turn; a copy only of lines that run backwards in memory."""
    xp = array_namespace(lines)
    return (lines if lines.strides[-1] == lines.itemsize else xp.ascontiguousarray(lines)).view(xp.float32)
