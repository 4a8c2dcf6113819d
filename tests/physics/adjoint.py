"""Requirements on every linear operator, on NumPy, torch and CuPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from mrnets.physics.arrays import to_numpy


def random_complex(xp: ModuleType, rng: np.random.Generator, shape: Sequence[int]) -> Any:
    """Complex64 array of independent normal numbers, of variance 1."""
    values = rng.standard_normal((*shape, 2)).view(np.complex128)[..., 0] / np.sqrt(2)
    return xp.asarray(values.astype(np.complex64))


def dot(a: Any, b: Any) -> complex:
    """Sum of conj(a) b, in double precision."""
    return complex(np.vdot(to_numpy(a).astype(np.complex128), to_numpy(b).astype(np.complex128)))


def assert_adjoint(forward: Callable[[Any], Any], adjoint: Callable[[Any], Any], x: Any, y: Any) -> None:
    """<A x, y> = <x, A^H y>; and A x has the shape of y, A^H y that of x, and complex64 stays complex64."""
    ax, ahy = forward(x), adjoint(y)
    assert ax.shape == y.shape
    assert ahy.shape == x.shape
    assert to_numpy(ax).dtype == to_numpy(ahy).dtype == np.complex64
    size = np.sqrt(abs(dot(ax, ax)) * abs(dot(y, y)))
    assert size > 0
    assert abs(dot(ax, y) - dot(x, ahy)) < 1e-5 * size


def assert_linear(operator: Callable[[Any], Any], x: Any, y: Any) -> None:
    """A(a x + y) = a A x + A y, with a complex."""
    a = 0.3 - 1.7j
    assert_close(operator(a * x + y), a * operator(x) + operator(y))


def assert_unitary(operator: Callable[[Any], Any], inverse: Callable[[Any], Any], x: Any) -> None:
    """A keeps the norm and `inverse` takes it back."""
    ax = operator(x)
    assert abs(dot(ax, ax) / dot(x, x) - 1) < 1e-5
    assert_close(inverse(ax), x)


def assert_close(a: Any, b: Any, tolerance: float = 1e-5) -> None:
    """||a - b|| <= tolerance ||b||, and the same shape."""
    a, b = to_numpy(a), to_numpy(b)
    assert a.shape == b.shape
    assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)
