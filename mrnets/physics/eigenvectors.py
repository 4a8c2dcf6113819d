"""The strongest eigenvectors of many small Hermitian matrices, vectorised over them, unlike a library's solver.

Axes: matrices (..., coil, coil), one for each pixel, with eigenvalues from 0 to 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mrnets.physics.arrays import Array, array_namespace, constant, device

__all__ = ["strongest"]

DAMPED, CHEBYSHEV_STEPS = 0.65, 18
"""Eigenvalues that the search damps, and its steps: converged at signal-to-noise ratios of 20 and more."""
APART = 5
"""Steps after which a search is made orthogonal to the vectors that were found before. Rounding brings a little of them
back, which becomes up to 7.4 times as large with every step."""


def strongest(matrices: Array, start: Array, count: int) -> tuple[Array, Array]:
    """Return the `count` strongest eigenvectors (..., coil, count) of `matrices`, and eigenvalues (..., 1, count).

    From `start` (..., coil, 1), by a Chebyshev polynomial of H^2 (Saad 2011, 7.4): large above `DAMPED`, small below.
    """
    xp = array_namespace(matrices)
    identity = xp.eye(matrices.shape[-1], dtype=matrices.dtype, device=device(matrices))
    doubled = (4 / DAMPED**2) * xp.matmul(matrices, matrices) - 2 * identity
    vectors: list[Array] = []
    for n in range(count):
        if n:
            anywhere = constant(_anywhere, matrices.shape[-1], like=start, dtype=start.dtype)
            start = _without(vectors, xp.zeros_like(start) + anywhere)
        vector = _searched(doubled, start, vectors)
        norm = xp.sqrt(xp.sum(xp.abs(vector) ** 2, axis=-2, keepdims=True))
        vectors.append(vector / xp.where(norm > 0, norm, xp.ones_like(norm)))
    found = xp.concat(vectors, axis=-1)
    return found, xp.sum(xp.real(xp.conj(found) * xp.matmul(matrices, found)), axis=-2, keepdims=True)


def _searched(doubled: Array, start: Array, others: list[Array]) -> Array:
    """The polynomial of half of the matrices `doubled`, times `start` (..., coil, 1), orthogonal to `others`."""
    xp = array_namespace(start)
    previous, vector = start, xp.matmul(doubled, start) / 2
    for step in range(1, CHEBYSHEV_STEPS):
        previous, vector = vector, xp.matmul(doubled, vector) - previous
        if step % APART == 0:
            previous, vector = _without(others, previous), _without(others, vector)
    return _without(others, vector)


def _anywhere(coils: int) -> NDArray[np.complex128]:
    """(coil, 1): a vector that is orthogonal to hardly any."""
    return np.exp(1j * np.arange(coils) ** 2)[:, None]


def _without(vectors: list[Array], x: Array) -> Array:
    """x without its components along the (orthonormal) vectors, (..., coil, 1) each."""
    xp = array_namespace(x)
    for vector in vectors:
        x = x - vector * xp.sum(xp.conj(vector) * x, axis=-2, keepdims=True)
    return x
