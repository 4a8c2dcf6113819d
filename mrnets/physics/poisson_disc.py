"""Poisson-disc sampling: random samples that are never close to each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["poisson_disc"]

Mask = NDArray[np.bool_]


def poisson_disc(allowed: Mask, growth: Any, count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """`count` flat indices of `allowed`, any two p, q of them at least r * min(growth[p], growth[q]) apart, r large.

    `room[q]` is the least of |p - q| / growth[p] over the samples p so far. So q is free at radius r if room[q] >= r.
    """
    if count == 0:
        return np.zeros(0, dtype=np.intp)
    # Random discs of diameter r jam at 0.547 of the area: N discs need the sum of (pi/4) (r growth)^2 / 0.547.
    radius = 1.15 * math.sqrt(0.696 * float(np.sum(growth[allowed] ** -2.0)) / count)
    reach = math.ceil(min(radius * float(growth.max()), max(allowed.shape)))
    padded = np.pad(allowed, reach)  # discs never leave the padded array: no index checks, no wrapping
    room, scale = np.where(padded, np.inf, -1.0).ravel(), np.pad(growth, reach).ravel()
    steps, distances = _disc(reach, padded.shape[1])
    chosen: list[NDArray[np.intp]] = []
    while count > 0:
        free = np.flatnonzero(room >= radius)
        if free.size == 0:
            radius *= 0.97
            continue
        darts = rng.permutation(free)[: max(count // 2, 64)]
        darts = darts[_without_conflict(darts, scale, radius, steps, distances)][:count]
        origin, step = _pairs(radius * scale[darts], distances)
        np.minimum.at(room, darts[origin] + steps[step], distances[step] / scale[darts][origin])
        chosen.append(darts)
        count -= darts.size
    rows, columns = np.divmod(np.concatenate(chosen), padded.shape[1])
    return (rows - reach) * allowed.shape[1] + columns - reach


def _disc(reach: int, stride: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Steps in a flat array of rows of `stride` to all positions within `reach`, nearest first, and their distances."""
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    distance = np.hypot(y, x).ravel()
    nearest = np.argsort(distance, kind="stable")[: int(np.sum(distance <= reach))]
    return (y * stride + x).ravel()[nearest], distance[nearest]


def _pairs(radii: NDArray[np.float64], distances: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """For each disc all steps shorter than its radius, as two flat index arrays: which disc, which step."""
    sizes = np.searchsorted(distances, radii)
    origin = np.repeat(np.arange(radii.size), sizes)
    return origin, np.arange(origin.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _without_conflict(darts: Any, scale: Any, radius: float, steps: Any, distances: Any) -> Mask:
    """Which of the darts to keep so that none is too close to another: of each such pair the one thrown first."""
    rank = np.full(scale.size, darts.size)
    rank[darts] = np.arange(darts.size)
    origin, step = _pairs(radius * scale[darts], distances)
    other = rank[darts[origin] + steps[step]]
    hit = other < darts.size
    keep = np.ones(darts.size + 1, dtype=bool)
    keep[np.maximum(origin[hit], other[hit])[origin[hit] != other[hit]]] = False
    return keep[:-1]
