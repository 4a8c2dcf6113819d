"""Phase of the objects of a batch, rad: what a low-resolution image removes, and what it leaves.

Axes: (batch, y, x).
"""

from __future__ import annotations

import math

import torch

from training.simulation.draws import Draws
from training.simulation.fields import band_limited, each, positions, smooth
from training.simulation.objects import Brightened
from training.simulation.settings import Simulation

__all__ = ["random_phase"]

Plane = tuple[int, int]


def random_phase(objects: Brightened, draws: Draws, options: Simulation) -> torch.Tensor:
    """Phase of the whole field of view, band-limited fields, tissue contrast, dipoles, fat and flow; (batch, y, x)."""
    shape = (objects.magnitude.shape[-2], objects.magnitude.shape[-1])
    whole = each(draws.uniform(0, options.smooth_phase)) * smooth(draws, shape)
    cut_off = draws.log_uniform(options.cut_off)
    local = each(draws.log_uniform(options.local_phase)) * band_limited(draws, shape, cut_off, options.cut_off[1])
    detail = options.detail_phase * draws.uniform(-1, 1) ** 3
    fat = draws.chance(options.fat_phase) * draws.uniform(-math.pi, math.pi)
    offset = draws.uniform(-math.pi, math.pi)
    known = torch.addcmul(each(fat) * objects.fat + objects.flow, each(detail), objects.detail)
    return whole + local + known + _dipoles(shape, draws, options) + each(offset)


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
        squared = (d_y.square() + height.square()[:, None])[:, :, None] + d_x.square()[:, None]
        inverse = torch.maximum(squared, each(radius.square())).rsqrt()
        along_y = direction[:, 1:2] * d_y + (direction[:, 2] * height)[:, None]
        cosine = (along_y[:, :, None] + (direction[:, :1] * d_x)[:, None]) * inverse
        strength = draws.chance(0.5) * draws.log_uniform(options.dipole_phase) * (1 - 2 * draws.chance(0.5))
        cosine2 = cosine.square_()
        total += (inverse * inverse * inverse) * cosine2.mul_(each(3 * strength * radius**3)).sub_(
            each(strength * radius**3)
        )
    return total
