"""Random phantoms: ellipses in a body with a rim, bottles, patches of bars of all widths. Axes: (y, x)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mrnets.physics.simulate import phantom

__all__ = ["draw_phantom"]

Image = NDArray[np.float32]


def draw_phantom(rng: np.random.Generator, size: int) -> Image:
    """A phantom on a square of `size` pixels, 0 to 2, most of it at most 1."""
    half = rng.uniform(0.6, 0.95, 2)
    rim, inside = rng.uniform(0.005, 0.06), rng.choice([1.0, rng.uniform(0.1, 0.9)])
    turn = rng.uniform(0, 360)
    body = [(1.0, *half, 0.0, 0.0, turn), (inside - 1.0, *(half - rim), 0.0, 0.0, turn)]
    parts = [
        (rng.uniform(-inside, 1.5 - inside), *rng.uniform(0.008, 0.3, 2), *rng.uniform(-0.5, 0.5, 2), turn * n)
        for n in range(rng.integers(0, 16))
    ]
    image = np.clip(phantom((size, size), [*body, *parts], supersampling=2), 0, 2)
    return np.asarray(image * _bars(rng, size) if rng.random() < 0.4 else image, np.float32)


def _bars(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """A factor: patches of parallel bars, 1 to 8 pixels wide; 1 elsewhere."""
    y, x = np.mgrid[:size, :size]
    factor = np.ones((size, size))
    for _ in range(rng.integers(1, 5)):
        top, left = rng.integers(size // 4, size * 3 // 4, 2)
        patch = np.s_[top : top + rng.integers(24, 80), left : left + rng.integers(24, 80)]
        angle, width = rng.choice([0.0, math.pi / 2, rng.uniform(0, math.pi)]), rng.uniform(1, 8)
        across = (np.cos(angle) * x + np.sin(angle) * y)[patch]
        factor[patch] = np.where(np.mod(across, 2 * width) < width, 1.0, rng.uniform(0, 0.8))
    return factor
