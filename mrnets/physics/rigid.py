"""Rigid motion of images in the plane, by Fourier transforms: unitary, without interpolation.

Axes: image (..., y, x), the centre of rotation at (y // 2, x // 2). Pixels are square. What leaves the field of view
comes in again at the other side.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrnets.physics.arrays import Array, array_namespace, asarray_like, constant
from mrnets.physics.fourier import fftc, ifftc

__all__ = ["moved", "moved_back"]


def moved(image: Array, turn: float | Array, shift: tuple[float, float]) -> Array:
    """Return complex `image` turned, and then shifted.

    turn: rad, from the axis x towards the axis y, less than pi in magnitude; an array (..., 1, 1) has one for each
    image. shift: (y, x), pixels. A turn is three shears (Larkin 1997, Opt Commun 139:99).
    """
    half, whole = _shears(turn)
    sheared = _sheared(_sheared(_sheared(image, half, -1), whole, -2), half, -1)
    return _shifted(sheared, shift)


def moved_back(image: Array, turn: float | Array, shift: tuple[float, float]) -> Array:
    """Return the inverse of `moved`, which is its adjoint."""
    half, whole = _shears(-turn)
    back = _shifted(image, (-shift[0], -shift[1]))
    return _sheared(_sheared(_sheared(back, half, -1), whole, -2), half, -1)


def _shears(turn: float | Array) -> tuple[Any, Any]:
    """How far the first and the second shear of a turn go."""
    xp: Any = math if isinstance(turn, float) else array_namespace(turn)
    return -xp.tan(turn / 2), xp.sin(turn)


def _sheared(image: Array, amount: float | Array, axis: int) -> Array:
    """Shift each line along `axis` by `amount` times its position on the other axis."""
    shape = (image.shape[-2], image.shape[-1])
    if isinstance(amount, float):
        phase = _turns(image, -amount * _slopes(shape, axis))
    else:
        xp = array_namespace(image)
        phase = xp.exp(-2j * math.pi * amount * constant(_slopes, shape, axis, like=image, dtype=xp.float32))
    return ifftc(fftc(image, (axis,)) * phase, (axis,))


def _shifted(image: Array, shift: tuple[float, float]) -> Array:
    if shift == (0.0, 0.0):
        return image
    y, x = (_positions(image.shape[axis], axis) / image.shape[axis] for axis in (-2, -1))
    return ifftc(fftc(image) * _turns(image, -(shift[0] * y + shift[1] * x)))


def _slopes(shape: tuple[int, int], axis: int) -> NDArray[np.float64]:
    """Cycles by which a shear of 1 along `axis` turns the spectrum of each line, (y, x)."""
    along, across = _positions(shape[axis], axis), _positions(shape[-3 - axis], -3 - axis)
    return along / shape[axis] * across


def _positions(size: int, axis: int) -> NDArray[np.float64]:
    """Pixels from the centre: (y, 1) for the axis -2, (1, x) for the axis -1."""
    index: NDArray[np.float64] = np.arange(size, dtype=np.float64) - size // 2
    return index[:, None] if axis == -2 else index[None, :]


def _turns(image: Array, cycles: NDArray[np.float64]) -> Array:
    """exp(2 pi i cycles), complex64, for `image`."""
    return asarray_like(np.exp(2j * np.pi * cycles).astype(np.complex64), image)
