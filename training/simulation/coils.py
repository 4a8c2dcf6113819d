"""Receive coils of a batch: the law of Biot and Savart for loops, after prewhitening. Axes: (batch, coil, y, x).

Lengths are in half fields of view. See `mrnets.physics.simulate`, which has the same loops for one scan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from training.simulation.draws import Draws
from training.simulation.fields import constant
from training.simulation.layout import Layout
from training.simulation.settings import Simulation

__all__ = ["NODES", "Loops", "biot_savart", "coil_fields"]

NODES = 20
"""Chebyshev points along each axis where the coils' fields are evaluated."""
SEGMENTS = 24
WIRE = 0.1**2
"""Radius of the wire, squared."""


@dataclass(frozen=True)
class Loops:
    """Circular receive coils around the objects of a batch."""

    centre: torch.Tensor
    """(batch, coil, 3): x, y, z."""
    normal: torch.Tensor
    """(batch, coil, 3), unit vectors."""
    radius: torch.Tensor
    """(batch, coil)."""


def coil_fields(draws: Draws, layout: Layout, options: Simulation) -> torch.Tensor:
    """(batch, coil, NODES, NODES) complex64: prewhitened sensitivities at the Chebyshev points of the plane.

    Coupled coils, whose noise is correlated, become these by prewhitening: mixtures of neighbours, of different gains.
    """
    loops = _loops(draws, layout, options)
    received = biot_savart(loops, _field_direction(draws), draws.uniform(-0.4, 0.4), layout.reach)
    received = received / received.abs().square().sum(1, keepdim=True).mean((-2, -1), keepdim=True).sqrt()
    mixed = _whitener(draws, layout.coils, options.coupling) @ received.flatten(-2)
    return mixed.unflatten(-1, (NODES, NODES))


def _whitener(draws: Draws, coils: int, coupling: float) -> torch.Tensor:
    """(batch, coil, coil): what prewhitening multiplies the coils of a covariance (W^H W)^-1 with."""
    number = torch.arange(coils, device=draws.device)
    apart = (number[:, None] - number).abs()
    apart = torch.minimum(apart, coils - apart)
    near = torch.exp(1.0 - apart) * (apart > 0)
    strength = draws.uniform(0, coupling, 1, 1)
    gains = torch.exp(0.2 * draws.normal(coils, 1))
    return gains * (torch.eye(coils, device=draws.device) + strength * near * draws.complex_normal(coils, coils))


def biot_savart(loops: Loops, direction: torch.Tensor, height: torch.Tensor, reach: float) -> torch.Tensor:
    """(batch, coil, NODES, NODES) complex64: B . (e1 - i e2) of unit currents, up to a common factor.

    direction (batch, 3): of the main field, to which e1 and e2 are orthogonal; height (batch,): of the plane.
    """
    device = direction.device
    e1, e2 = _orthogonal(direction)
    first, second = _orthogonal(loops.normal)
    angle = 2 * math.pi * torch.arange(SEGMENTS, device=device) / SEGMENTS
    cos, sin = torch.cos(angle)[:, None], torch.sin(angle)[:, None]
    size = loops.radius[..., None, None]
    place = loops.centre[:, :, None] + size * (cos * first[:, :, None] + sin * second[:, :, None])
    current = size * (cos * second[:, :, None] - sin * first[:, :, None])
    # (dl x d) . e = d . (e x dl); axes (batch, coil, segment, e1 or -e2, 3)
    weight = torch.stack([torch.linalg.cross(e[:, None, None].expand_as(current), current) for e in (e1, -e2)], 3)
    points = reach * torch.cos(math.pi * (torch.arange(NODES, device=device) + 0.5) / NODES)
    d_x = points - place[..., 0, None]
    d_y = points - place[..., 1, None]
    d_z = height[:, None, None] - place[..., 2]
    # Axes (batch, coil, y, segment, x): the sum over the segments is a matrix product for each row and for each column.
    rest2 = d_y.square() + (d_z.square() + WIRE)[..., None]
    cubes = (rest2.mT[..., None] + d_x.square()[:, :, None]).rsqrt_().pow_(3)
    along_y = weight[..., 1, None] * d_y[..., None, :] + (weight[..., 2] * d_z[..., None])[..., None]
    along_x = weight[..., 0, None] * d_x[..., None, :]
    rows = along_y.movedim(-1, 2).mT @ cubes
    columns = along_x.movedim(-1, 2).mT @ cubes.permute(0, 1, 4, 3, 2)
    return torch.complex(*(rows.movedim(-2, 0) + columns.movedim(-2, 0).mT))


def _loops(draws: Draws, layout: Layout, options: Simulation) -> Loops:
    """Loops on rings around the z axis, or on arcs of them, about touching each other, displaced and tilted."""
    coils, rings = layout.coils, layout.rings
    number = torch.arange(coils, device=draws.device)
    ring = number % rings
    count = constant(tuple(max(len(range(r, coils, rings)), 3) for r in range(rings)), draws.device)[ring]
    distance = draws.log_uniform(options.distance, 1)
    jitter = 0.15
    arc = 1 - draws.chance(options.arcs, 1) * draws.uniform(0.2, 0.6, 1)
    angle = 2 * math.pi * arc * (number // rings + ring / 2) / count + draws.uniform(0, 2 * math.pi, 1)
    angle = angle + jitter * draws.normal(coils) * math.pi / count
    radius = torch.clamp(math.pi * arc * distance / count, max=0.9) * draws.uniform(0.85, 1.15, coils)
    outward = torch.stack([torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)], -1)
    height = (ring - (rings - 1) / 2) * radius.mean(1, keepdim=True) * 1.6 + jitter * draws.normal(coils)
    centre = outward * (distance * draws.uniform(1, 1 + jitter, coils))[..., None]
    centre = torch.cat([centre[..., :2], height[..., None]], -1)
    normal = outward + jitter * draws.normal(coils, 3)
    return Loops(centre, normal / normal.norm(dim=-1, keepdim=True), radius)


def _field_direction(draws: Draws) -> torch.Tensor:
    """(batch, 3): of the main field; along z in half of the slices."""
    random = draws.normal(3)
    along_z = constant((0.0, 0.0, 1.0), draws.device)
    chosen = torch.where(draws.chance(0.5, 1) > 0, random, along_z)
    return chosen / chosen.norm(dim=-1, keepdim=True)


def _orthogonal(direction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two unit vectors for each unit vector (..., 3), right-handed with it (Duff 2017)."""
    x, y, z = direction.unbind(-1)
    sign = torch.where(z >= 0, 1.0, -1.0)
    a = -1 / (sign + z)
    b = x * y * a
    first = torch.stack([1 + sign * x * x * a, sign * b, -sign * x], -1)
    second = torch.stack([b, sign + y * y * a, -y], -1)
    return first, second
