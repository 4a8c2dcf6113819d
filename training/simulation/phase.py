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
    count = options.dipoles
    radius = draws.log_uniform((0.01, 0.12), count)
    height = radius * draws.uniform(0, 1.2, count)
    direction = torch.nn.functional.normalize(draws.normal(3, count), dim=1)
    y, x = (positions(n, draws.device) - draws.uniform(-0.7, 0.7, count)[..., None] for n in shape)
    along_y, along_x = (
        direction[:, 1, :, None] * y + (direction[:, 2] * height)[..., None],
        direction[:, 0, :, None] * x,
    )
    y2, x2 = y.square() + height.square()[..., None], x.square()
    strength = draws.chance(0.5, count) * draws.sign(count) * draws.log_uniform(options.dipole_phase, count) * radius**3
    total = torch.zeros(draws.batch, *shape, device=draws.device)
    for n in range(count):
        distance2 = torch.maximum(y2[:, n, :, None] + x2[:, n, None], each(radius[:, n].square()))
        inverse = distance2.rsqrt_()
        cosine = (along_y[:, n, :, None] + along_x[:, n, None]).mul_(inverse)
        factor = cosine.square_().mul_(3).sub_(1)
        total.add_(factor.mul_(inverse).mul_(inverse).mul_(inverse).mul_(each(strength[:, n])))
    return total
