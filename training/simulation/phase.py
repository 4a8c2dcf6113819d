"""Phase of the objects of a batch, rad: what a low-resolution image removes, and what it leaves.

Axes: (batch, y, x).
"""

from __future__ import annotations

import math

import torch

from training.simulation.draws import Draws
from training.simulation.fields import band_limited, each, low_passed, positions
from training.simulation.objects import Brightened
from training.simulation.settings import Simulation

__all__ = ["random_phase"]

Plane = tuple[int, int]


def random_phase(objects: Brightened, draws: Draws, options: Simulation) -> torch.Tensor:
    """Phase of the whole field of view, band-limited fields, tissue contrast, dipoles, fat and flow; (batch, y, x)."""
    shape = (objects.magnitude.shape[-2], objects.magnitude.shape[-1])
    whole = each(draws.uniform(0, options.smooth_phase)) * band_limited(draws, shape, draws.uniform(1.2, 2.2))
    local = each(draws.log_uniform(options.local_phase)) * band_limited(
        draws, shape, draws.log_uniform(options.cut_off)
    )
    fat = draws.chance(options.fat_phase) * draws.uniform(-math.pi, math.pi)
    return (
        each(draws.uniform(-math.pi, math.pi))
        + whole
        + local
        + _detail(objects.magnitude, draws, options)
        + _dipoles(shape, draws, options)
        + each(fat) * objects.fat
        + objects.flow
    )


def _detail(images: torch.Tensor, draws: Draws, options: Simulation) -> torch.Tensor:
    """Tissue contrast: proportional to the image after a high-pass."""
    tissue = images.clamp(max=1.0)
    high = tissue - low_passed(tissue, draws.log_uniform((5.0, 40.0)))
    return each(options.detail_phase * draws.uniform(-1, 1) ** 3) * high


def _dipoles(shape: Plane, draws: Draws, options: Simulation) -> torch.Tensor:
    """Fields of small spheres of another susceptibility, at any height above the plane: a^3 (3 cos^2 - 1) / r^3."""
    y, x = (positions(n, draws.device) for n in shape)
    total = torch.zeros(draws.batch, *shape, device=draws.device)
    for _ in range(options.dipoles):
        radius = draws.log_uniform((0.01, 0.12))
        height = radius * draws.uniform(0, 1.2)
        direction = draws.normal(3)
        direction = direction / direction.norm(dim=1, keepdim=True)
        d_y, d_x = y - draws.uniform(-0.7, 0.7, 1), x - draws.uniform(-0.7, 0.7, 1)
        squared = each(height.square()) + d_y.square()[:, :, None] + d_x.square()[:, None]
        along = (direction[:, :1] * d_x)[:, None] + ((direction[:, 1:2] * d_y) + (direction[:, 2] * height)[:, None])[
            :, :, None
        ]
        strength = draws.chance(0.5) * draws.log_uniform(options.dipole_phase) * (1 - 2 * draws.chance(0.5))
        squared = torch.maximum(squared, each(radius.square()))
        fall = each(strength * radius**3) * squared**-1.5
        total = total + fall * (3 * along.square() / squared - 1)
    return total
