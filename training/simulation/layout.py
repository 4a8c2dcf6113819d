"""What the scans of a batch have in common, drawn on the host: matrix, grid of the object, coils, folding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from training.simulation.settings import Simulation

__all__ = ["Layout", "draw_layout", "draw_shapes"]

Plane = tuple[int, int]
STEP = 8
"""Sizes are multiples of this."""


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


def draw_shapes(rng: np.random.Generator, options: Simulation) -> tuple[Plane, ...]:
    """`options.shapes` different matrices (y, x)."""
    low, high = options.matrix
    found: dict[Plane, None] = {}
    for _ in range(100 * options.shapes):
        size = math.exp(rng.uniform(math.log(low), math.log(high)))
        ratio = math.exp(rng.uniform(-0.5, 0.5) * math.log(options.aspect))
        y, x = (int(np.clip(round(n / STEP) * STEP, low, high)) for n in (size * ratio, size / ratio))
        found[y, x] = None
        if len(found) == options.shapes:
            break
    return tuple(found)


def draw_layout(rng: np.random.Generator, shape: Plane, options: Simulation) -> Layout:
    """The rest of a layout with this matrix."""
    coils = round(math.exp(rng.uniform(*np.log(options.coils))))
    folds = rng.random() < options.folded
    wide = _step(shape[0] * rng.uniform(1.15, 1.5)) if folds else shape[0]
    longer = rng.uniform(*options.grid)
    stretch = rng.uniform(0.85, 1.18)
    pixels = max(wide, shape[1])
    fine = (_step(longer * wide / pixels * stretch), _step(longer * shape[1] / pixels / stretch))
    return Layout(shape, wide, (max(fine[0], wide), max(fine[1], shape[1])), coils)


def _step(size: float) -> int:
    return round(size / STEP) * STEP
