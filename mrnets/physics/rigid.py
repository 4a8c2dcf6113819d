"""Rigid motion of images in the plane, by Fourier transforms: unitary, without interpolation.

Axes: image (..., y, x), the centre of rotation at (y // 2, x // 2). Pixels are square. What leaves the field of view
comes in again at the other side.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mrnets.physics.arrays import Array, asarray_like
from mrnets.physics.fourier import fftc, ifftc

__all__ = ["moved", "moved_back"]


def moved(image: Array, turn: float, shift: tuple[float, float]) -> Array:
    """Return complex `image` turned, and then shifted.

    turn: rad, from the axis x towards the axis y, less than pi in magnitude. shift: (y, x), pixels. A turn is three
    shears (Larkin 1997, Opt Commun 139:99).
    """
    half, whole = -math.tan(turn / 2), math.sin(turn)
    sheared = _sheared(_sheared(_sheared(image, half, -1), whole, -2), half, -1)
    return _shifted(sheared, shift)


def moved_back(image: Array, turn: float, shift: tuple[float, float]) -> Array:
    """Return the inverse of `moved`, which is its adjoint."""
    half, whole = math.tan(turn / 2), -math.sin(turn)
    back = _shifted(image, (-shift[0], -shift[1]))
    return _sheared(_sheared(_sheared(back, half, -1), whole, -2), half, -1)


def _sheared(image: Array, amount: float, axis: int) -> Array:
    """Shift each line along `axis` by `amount` times its position on the other axis."""
    along, across = _positions(image, axis), _positions(image, -3 - axis)
    frequency = along / image.shape[axis]
    return ifftc(fftc(image, (axis,)) * _turns(image, -amount * frequency * across), (axis,))


def _shifted(image: Array, shift: tuple[float, float]) -> Array:
    y, x = (_positions(image, axis) / image.shape[axis] for axis in (-2, -1))
    return ifftc(fftc(image) * _turns(image, -(shift[0] * y + shift[1] * x)))


def _positions(image: Array, axis: int) -> NDArray[np.float64]:
    """Pixels from the centre: (y, 1) for the axis -2, (1, x) for the axis -1."""
    index = np.arange(image.shape[axis]) - image.shape[axis] // 2.0
    return index[:, None] if axis == -2 else index[None, :]


def _turns(image: Array, cycles: NDArray[np.float64]) -> Array:
    """exp(2 pi i cycles), complex64, for `image`."""
    return asarray_like(np.exp(2j * np.pi * cycles).astype(np.complex64), image)
