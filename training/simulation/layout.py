"""Properties that the scans of a batch share, drawn on the host: matrix, grid of the object, coils, folding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from training.simulation.settings import Simulation

__all__ = ["Layout", "draw_layouts", "nearest"]

Plane = tuple[int, int]


def _without(n: int, primes: tuple[int, ...] = (2, 3, 5, 7, 11)) -> int:
    """n divided by these primes as often as it goes."""
    for prime in primes:
        while n % prime == 0:
            n //= prime
    return n


SIZES = tuple(8 * n for n in range(2, 129) if _without(n) == 1)
"""Multiples of 8 whose prime factors are small: with others, fast Fourier transforms take three times as long."""


@dataclass(frozen=True)
class Layout:
    """Sizes (y, x) of a batch."""

    shape: Plane
    """The matrix."""
    wide: int
    """Samples along y for the whole object; more than `shape[0]` where it folds."""
    fine: Plane
    """The grid on which the object is drawn; along y it spans the whole object."""
    coils: int
    rings: int
    """On which the coils lie around the object."""

    @property
    def reach(self) -> float:
        """Half the length of the whole object along y, in half fields of view."""
        return self.wide / self.shape[0]


def draw_layouts(rng: np.random.Generator, options: Simulation) -> tuple[Layout, ...]:
    """`options.layouts` layouts, of `options.shapes` different matrices."""
    shapes = [_shape(rng, options) for _ in range(options.shapes)]
    return tuple(_layout(rng, shapes[n % len(shapes)], options) for n in range(options.layouts))


def _shape(rng: np.random.Generator, options: Simulation) -> Plane:
    low, high = options.matrix
    size = math.exp(rng.uniform(math.log(low), math.log(high)))
    ratio = math.exp(rng.uniform(-0.5, 0.5) * math.log(options.aspect))
    y, x = (min(max(nearest(n), low), high) for n in (size * ratio, size / ratio))
    return y, x


def _layout(rng: np.random.Generator, shape: Plane, options: Simulation) -> Layout:
    coils = round(math.exp(rng.uniform(*np.log(options.coils))))
    rings = int(rng.integers(max(coils // 8, 1))) + 1
    folds = rng.random() < options.folded
    wide = nearest(shape[0] * rng.uniform(1.15, 1.5)) if folds else shape[0]
    pixels = max(wide, shape[1])
    longer = min(max(pixels * rng.uniform(*options.detail), options.grid[0]), options.grid[1])
    stretch = rng.uniform(0.85, 1.18)
    fine = (nearest(longer * wide / pixels * stretch), nearest(longer * shape[1] / pixels / stretch))
    return Layout(shape, wide, (max(fine[0], wide), max(fine[1], shape[1])), coils, rings)


def nearest(size: float) -> int:
    """The one of `SIZES` that is nearest to `size`."""
    return min(SIZES, key=lambda one: abs(one - size))
