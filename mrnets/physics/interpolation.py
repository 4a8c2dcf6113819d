"""Interpolation between centred grids, index n // 2 onto m // 2, as matrices applied along axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mrnets.physics.arrays import Array, array_namespace, asarray_like

__all__ = ["along", "band_limited", "cubic", "cubic_at", "nearest", "trigonometric"]

Matrix = np.ndarray[Any, np.dtype[np.float64]]


def along(matrix: Array, x: Array, axis: int) -> Array:
    """The matrix (m, n) applied to axis `axis` (from the front) of x, which has length n there and gets length m.

    matrix: of NumPy, or a `constant` like x."""
    xp = array_namespace(x)
    matrix = asarray_like(matrix, x, x.dtype)
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    if not after:
        return xp.matmul(x, xp.matrix_transpose(matrix))
    out = xp.matmul(matrix, xp.reshape(x, (math.prod(before), x.shape[axis], math.prod(after))))
    return xp.reshape(out, (*before, matrix.shape[0], *after))


def nearest(x: Array, size: int, axis: int) -> Array:
    """Return x with `size` pixels along an axis, over the same field of view. Each has the value of the nearest pixel.

    Where two pixels are equally near, the one with the larger index counts. For data that are not band-limited: maps,
    labels, logits.
    """
    have = x.shape[axis]
    if have == size:
        return x
    place = ((np.arange(size) - size // 2) * 2 * have + size) // (2 * size) + have // 2  # in integers: exact
    return array_namespace(x).take(x, asarray_like(np.clip(place, 0, have - 1), x), axis=axis)


def trigonometric(points: int, terms: int) -> Matrix:
    """(points, terms): interpolation by the trigonometric polynomial of period 1 with an odd number of terms.
    Its samples are at j / terms, and its values are taken at (i - points // 2) / points."""
    return _dirichlet((np.arange(points) - points // 2)[:, None] / points - np.arange(terms) / terms, terms)


def band_limited(points: Matrix, samples: Matrix, spacing: float) -> Matrix:
    """(point, sample): the band-limited object of period 1, given by its samples at `samples`, at the places `points`.

    The object has no detail finer than the grid of the points or that of the samples. It has only frequencies up to
    half the number of points, and up to half of 1 / spacing. Samples beyond half a period from 0 are left out.
    points: (point,), a grid over the whole period. samples: (sample,), `spacing` from each other.
    """
    terms = 2 * min((len(points) - 1) // 2, math.floor(0.5 / spacing)) + 1
    weights = spacing * terms * _dirichlet(points[:, None] - samples, terms)
    return np.where(np.abs(samples) < 0.5, weights, 0.0)


def _dirichlet(distance: Matrix, terms: int) -> Matrix:
    """The mean of exp(2 pi i m distance) over the `terms` (odd) whole numbers m around 0."""
    distance = distance - np.round(distance)
    return np.sinc(terms * distance) / np.sinc(distance)


def cubic(pixels: int, points: int) -> Matrix:
    """(pixels, points): periodic cubic convolution (Keys 1981, eq. 15) from a coarse grid to a fine one."""
    return cubic_at((np.arange(pixels) - pixels // 2) * points / pixels + points // 2, points)


def cubic_at(places: Matrix, points: int) -> Matrix:
    """(place, points): periodic cubic convolution from a grid of `points` to places, which are indices of it."""
    t = np.abs((places[:, None] - np.arange(points) + points / 2) % points - points / 2)
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return np.where(t < 1, near, np.where(t < 2, far, 0.0))
