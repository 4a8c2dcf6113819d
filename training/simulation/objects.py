"""Objects of a batch: pieces of anatomy, photographs and phantoms as a scanner might see them. Axes: (batch, y, x).

Bright tissue is 1. Fat below the skin and vessels are up to six times as bright.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from training.simulation.draws import Draws
from training.simulation.fields import constant, each, low_passed, positions
from training.simulation.layout import Layout
from training.simulation.settings import Simulation

__all__ = ["Brightened", "Tiles", "brightened", "seen"]

Plane = tuple[int, int]
KNOTS = 9
SPOTS = 10


@dataclass(frozen=True)
class Tiles:
    """Images as their source has them."""

    greys: torch.Tensor
    """(batch, size, size) uint8, each in the middle; see `images`."""
    extent: torch.Tensor
    """(batch, 2) float32: the pixels along y and x that it takes up."""


@dataclass(frozen=True)
class Brightened:
    """An object with bright fat and vessels, and where those are; (batch, y, x) float32."""

    magnitude: torch.Tensor
    detail: torch.Tensor
    """Detail of the tissue, by a high-pass filter."""
    fat: torch.Tensor
    """0 to 1: the outer layer."""
    flow: torch.Tensor
    """Phase of what flows in vessels, rad."""


def seen(tiles: Tiles, layout: Layout, draws: Draws, options: Simulation) -> torch.Tensor:
    """`tiles`, with another contrast, moved, turned, mirrored and zoomed, on the grid of the layout: (batch, y, x)."""
    grid = _grid(_affine(tiles.extent, layout, draws, options), layout.fine, tiles.greys.shape[-1])
    pixels = _contrast(draws).gather(1, tiles.greys.flatten(1).long()).view(tiles.greys.shape)
    moved = functional.grid_sample(pixels[:, None], grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    images = moved[:, 0].clamp_(min=0)
    return images.div_(each(_level(images)))


def _affine(extent: torch.Tensor, layout: Layout, draws: Draws, options: Simulation) -> torch.Tensor:
    """(batch, 2, 3): from places on the grid, in pixels from its centre, to those of the tile; order (x, y).

    Aligned slices go from pixel to pixel: turned by multiples of 90 degrees, mirrored, moved by whole pixels.
    """
    aligned = draws.chance(options.aligned)
    turns = draws.integers(4)
    angle = (math.pi / 2) * turns + (1 - aligned) * 0.14 * draws.normal()
    turned = torch.where((turns % 2 > 0)[:, None], extent.flip(1), extent)
    free = (1 - aligned)[:, None]
    stretch = torch.exp(free * (torch.log(_zoom(turned, layout, draws, options))[:, None] + 0.05 * draws.normal(2)))
    mirror = draws.sign()
    shear = (1 - aligned) * 0.04 * draws.normal()
    cos, sin = torch.cos(angle), torch.sin(angle)
    along_x = torch.stack([mirror * cos, sin], -1) / stretch[:, :1]
    along_y = torch.stack([-mirror * sin + shear, cos], -1) / stretch[:, 1:]
    shift = torch.round(10 * draws.normal(2))
    return torch.stack([along_x, along_y, shift], -1)


def _zoom(extent: torch.Tensor, layout: Layout, draws: Draws, options: Simulation) -> torch.Tensor:
    """(batch,): pixels of the grid for one of the source, such that the object fills a share of the grid.

    A pixel of the source is hardly larger than one of the scan, because larger ones would blur. It is not much smaller
    than one of the grid, because smaller ones would alias.
    """
    room = constant(layout.fine, draws.device)
    fill = (draws.uniform(*options.fill, 1) * room / extent).amin(1)
    most = 1.2 * max(layout.fine[0] / layout.wide, layout.fine[1] / layout.shape[1])
    return fill.clamp(0.75, most)


def _grid(affine: torch.Tensor, shape: Plane, size: int) -> torch.Tensor:
    """(batch, *shape, 2) for `grid_sample` from tiles of `size` pixels; pixel n // 2 is the centre of either."""
    y, x = (torch.arange(n, device=affine.device, dtype=torch.float32) - n // 2 for n in shape)
    along_x, along_y, shift = (affine * (2 / size)).unbind(-1)
    rows = y[:, None] * along_y[:, None] + (shift[:, None] + (0.5 + size // 2) * (2 / size) - 1)
    return rows[:, :, None] + (x[:, None] * along_x[:, None])[:, None]


def _contrast(draws: Draws) -> torch.Tensor:
    """(batch, 256): brightness of greys, through a random curve from 0: a power, or any curve through nine points."""
    powers = torch.linspace(0, 2, KNOTS, device=draws.device) ** draws.uniform(0.6, 1.7, 1)
    points = draws.uniform(0.05, 1.0, KNOTS)
    points = torch.cat([torch.zeros_like(points[:, :1]), points[:, 1:]], 1)
    straight = torch.linspace(0, 2, KNOTS, device=draws.device)
    points = points + draws.uniform(0, 0.6, 1) * (straight - points)
    curve = torch.where(draws.chance(0.6, 1) > 0, powers, points)
    return curve @ _hats(draws.device)


@functools.lru_cache(maxsize=16)
def _hats(device: torch.device) -> torch.Tensor:
    """(KNOTS, 256): linear interpolation between the knots, which divide the brightness 0 to 2, to that of greys."""
    place = (torch.arange(256, device=device) / 255).square() * (KNOTS - 1)
    return (1 - (place - torch.arange(KNOTS, device=device)[:, None]).abs()).clamp(min=0)


def _level(images: torch.Tensor) -> torch.Tensor:
    """(batch,): the brightness of what is bright, weighted by its energy; above 0 for an empty slice."""
    power = images.square().flatten(1)
    fourth = (power[:, None] @ power[:, :, None])[:, 0, 0]
    return (fourth / power.sum(1).clamp(min=1e-12)).sqrt().clamp(min=1e-6)


def brightened(images: torch.Tensor, draws: Draws, options: Simulation) -> Brightened:
    """`images` with fat below the skin and vessels that outshine tissue, in some of the slices."""
    inside, tissue = (images > 0.1).float(), images.clamp(max=1.0)
    around = low_passed(torch.complex(inside, tissue), draws.log_uniform((5.0, 25.0)))
    # The outer layer is where less than a share of the neighbourhood belongs to the object.
    layer = 25 * draws.uniform(0.55, 0.75)
    fat = torch.sub(each(layer), around.real, alpha=25).sigmoid_().mul_(inside)
    gain = draws.chance(options.bright) * (draws.log_uniform((1.5, 6.0)) - 1)
    vessels, flow = _vessels((images.shape[-2], images.shape[-1]), draws, options)
    magnitude = vessels.mul_(inside).addcmul_(images * fat, each(gain)).add_(images)
    return Brightened(magnitude, tissue.sub_(around.imag), fat, flow.mul_(inside))


def _vessels(shape: Plane, draws: Draws, options: Simulation) -> tuple[torch.Tensor, torch.Tensor]:
    """Signal of small bright spots, and the phase that flow gives them."""
    radius = draws.log_uniform((0.7, 4.0), SPOTS) * (2.0 / max(shape))
    there = draws.chance(0.5, SPOTS) * draws.chance(options.bright, 1)
    y, x = (_profile(positions(n, draws.device), draws.uniform(-0.7, 0.7, SPOTS), radius) for n in shape)
    signal = there * draws.log_uniform((0.5, 6.0), SPOTS)
    phase = there * draws.uniform(-math.pi, math.pi, SPOTS)
    return (signal[:, None] * y.mT) @ x, (phase[:, None] * y.mT) @ x


def _profile(places: torch.Tensor, centre: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """(batch, spot, pixel)."""
    return torch.exp(-0.5 * ((places - centre[..., None]) / radius[..., None]) ** 2)
