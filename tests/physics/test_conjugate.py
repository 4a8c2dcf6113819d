"""Conjugate gradients against dense solutions, on every array library."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from mrnets.physics.arrays import to_numpy
from mrnets.physics.conjugate import conjugate_gradients


def test_solves_every_problem_of_a_batch_however_different_their_scales(
    xp: ModuleType, rng: np.random.Generator
) -> None:
    factor = rng.standard_normal((3, 12, 12)) + 1j * rng.standard_normal((3, 12, 12))
    matrix = factor @ np.conj(factor).swapaxes(-1, -2) + np.eye(12)
    rhs = rng.standard_normal((3, 12, 1)) + 1j * rng.standard_normal((3, 12, 1))
    rhs *= np.array([1e-6, 1.0, 0.0])[:, None, None]
    operator = xp.asarray(matrix)
    x = conjugate_gradients(lambda v: operator @ v, xp.asarray(rhs), iterations=60, tolerance=1e-12)
    np.testing.assert_allclose(to_numpy(x), np.linalg.solve(matrix, rhs), rtol=1e-8, atol=1e-16)


def test_begins_where_it_is_told_to(xp: ModuleType, rng: np.random.Generator) -> None:
    solution = xp.asarray(rng.standard_normal((2, 3, 4)) + 0j)
    x = conjugate_gradients(lambda v: 2 * v, 2 * solution, iterations=0, start=solution)
    np.testing.assert_array_equal(to_numpy(x), to_numpy(solution))


def test_a_direction_without_curvature_is_not_followed(xp: ModuleType) -> None:
    rhs = xp.ones((1, 2, 2), dtype=xp.complex64)
    x = conjugate_gradients(lambda v: 0 * v, rhs, iterations=3)
    assert not np.any(to_numpy(x))
