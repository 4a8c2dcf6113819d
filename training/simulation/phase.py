"""Phase of the objects of a batch, rad: what a low-resolution image removes, and what it leaves.

Axes: (batch, y, x).
"""

from __future__ import annotations

import functools
import math

import torch

from training.simulation.draws import Draws
from training.simulation.fields import band_limited, between, cosines, each, positions, smooth, waves
from training.simulation.objects import Brightened
from training.simulation.settings import Simulation

__all__ = ["random_phase"]

Plane = tuple[int, int]
COSINES = 4
"""Along each axis, of 0 to 1.5 cycles, that make the phase of the whole field of view."""


def random_phase(objects: Brightened, draws: Draws, options: Simulation) -> torch.Tensor:
    """Phase of the whole field of view, band-limited fields, tissue contrast, dipoles, fat and flow; (batch, y, x)."""
    phase = _smooth_phase((objects.magnitude.shape[-2], objects.magnitude.shape[-1]), draws, options)
    detail = options.detail_phase * draws.uniform(-1, 1) ** 3
    fat = draws.chance(options.fat_phase) * draws.uniform(-math.pi, math.pi)
    phase.addcmul_(each(detail), objects.detail).addcmul_(each(fat), objects.fat).add_(objects.flow)
    return _with_dipoles(phase, draws, options)


def _smooth_phase(shape: Plane, draws: Draws, options: Simulation) -> torch.Tensor:
    """(batch, y, x): a constant, a few cosines over the whole field of view, and a band-limited field.

    All are sums of products of a function of y and one of x, and are summed in one matrix product.
    """
    most = math.ceil(options.cut_off[1])
    whole = each(draws.uniform(0, options.smooth_phase)) * smooth(draws, COSINES)
    local = band_limited(draws, draws.log_uniform(options.cut_off), most)
    weights = torch.zeros(draws.batch, *(2 * (COSINES + local.shape[-1],)), device=draws.device)
    weights[:, :COSINES, :COSINES] = whole
    weights[:, COSINES:, COSINES:] = each(draws.log_uniform(options.local_phase)) * local
    weights[:, 0, 0] = draws.uniform(-math.pi, math.pi)
    return between(weights, [_basis(n, most, draws.device) for n in shape])


@functools.lru_cache(maxsize=1024)
def _basis(pixels: int, most: int, device: torch.device) -> torch.Tensor:
    """(pixels, functions): the functions of one coordinate that the smooth phase is made of."""
    return torch.cat([cosines(pixels, COSINES, device), waves(pixels, most, device)], 1)


def _with_dipoles(phase: torch.Tensor, draws: Draws, options: Simulation) -> torch.Tensor:
    """`phase`, in place, with fields of small spheres of another susceptibility: a^3 (3 cos^2 - 1) / r^3.

    They lie at any height above the plane.
    """
    count = options.dipoles
    radius = draws.log_uniform((0.01, 0.12), count)
    height = radius * draws.uniform(0, 1.2, count)
    direction = 3**0.5 * torch.nn.functional.normalize(draws.normal(3, count), dim=1)
    shape = (phase.shape[-2], phase.shape[-1])
    y, x = (positions(n, draws.device) - draws.uniform(-0.7, 0.7, count)[..., None] for n in shape)
    along_y, along_x = (
        direction[:, 1, :, None] * y + (direction[:, 2] * height)[..., None],
        direction[:, 0, :, None] * x,
    )
    y2, x2 = y.square() + height.square()[..., None], x.square()
    strength = draws.chance(0.5, count) * draws.sign(count) * draws.log_uniform(options.dipole_phase, count) * radius**3
    for n in range(count):
        distance2 = torch.maximum(y2[:, n, :, None] + x2[:, n, None], each(radius[:, n].square()))
        inverse = distance2.rsqrt_()
        # The square of sqrt(3) times the cosine, less 1.
        factor = (along_y[:, n, :, None] + along_x[:, n, None]).mul_(inverse).square_().sub_(1)
        phase.addcmul_(factor.mul_(each(strength[:, n])), inverse.pow_(3))
    return phase
