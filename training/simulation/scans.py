"""Scans of a batch of objects: encoded by coils, sampled with noise, and prepared as a network gets them.

Axes: see `mrnets.contract`; before the end without the echo axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.fft import fft2, ifft2

from mrnets.contract import Scan
from mrnets.physics.fourier import resize
from training.simulation.coils import NODES, coil_fields
from training.simulation.draws import Draws
from training.simulation.fields import between, chebyshev, checkerboard, each, energy, refined
from training.simulation.layout import Layout, nearest
from training.simulation.maps import calibrated, low_resolution
from training.simulation.objects import brightened
from training.simulation.phase import random_phase
from training.simulation.sampling import Masks
from training.simulation.settings import Simulation

__all__ = ["Measured", "Simulated", "measured", "simulated"]

MARGIN = 32
"""Samples, about, by which the grid exceeds the matrix when coils and object are multiplied. Coil sensitivities move
object k-space from beyond the matrix into it."""


@dataclass(frozen=True)
class Simulated:
    """Prepared scans, and the images that a network should make of them."""

    scan: Scan
    """As of a Preparation with the normalisation "max": the zero-filled combined image has the maximum 1."""
    target: torch.Tensor
    """(batch, 1, y, x) complex64: the noise-free, fully sampled coil images, combined with `scan.sens`."""
    unexplained: torch.Tensor
    """(batch,) float32: share of the coil images' energy that the maps do not explain."""

    @property
    def noise(self) -> Any:
        """(batch,) float32: standard deviation of complex noise, in the scale of the scan."""
        return self.scan.noise


@dataclass(frozen=True)
class Measured:
    """Signals that coils receive from a batch of objects, in all of k-space."""

    kspace: torch.Tensor
    """(batch, coil, y, x) complex64, signed: with noise."""
    coil_images: torch.Tensor
    """(batch, coil, y, x) complex64, signed: without noise."""
    energy: torch.Tensor
    """(batch,) float32: of `coil_images`."""
    fields: torch.Tensor | None
    """(batch, coil, NODES, NODES) complex64: the sensitivities at Chebyshev points, up to a factor for each point; None
    where the object folds."""
    sigma: torch.Tensor
    """(batch,) float32: standard deviation of the complex noise."""


@torch.no_grad()
def measured(images: torch.Tensor, layout: Layout, draws: Draws, options: Simulation) -> Measured:
    """The scans that a scanner measures of `images` (batch, *layout.fine) float32, bright tissue 1, with random
    physics."""
    objects = brightened(images, draws, options)
    phase = random_phase(objects, draws, options)
    kspace, fields = _encoded(_signed(objects.magnitude, phase, layout), layout, draws, options)
    kspace = kspace * _point_spread(layout.shape, draws)
    coil_images = ifft2(kspace, norm="ortho")
    power = energy(coil_images)
    sigma = _level(power) / draws.log_uniform(options.snr)
    noise = draws.complex_normal(*kspace.shape[1:])
    torch.view_as_real(kspace).addcmul_(torch.view_as_real(noise), sigma[:, None, None, None, None])
    return Measured(kspace, coil_images, power.sum((1, 2)), fields, sigma)


@torch.no_grad()
def simulated(images: torch.Tensor, masks: Masks, layout: Layout, draws: Draws, options: Simulation) -> Simulated:
    """A random scan of `images` (batch, *layout.fine) float32, bright tissue 1, with `masks`, one for each slice.

    Draws are on the device of the images. Nothing waits for the device.
    """
    scan = measured(images, layout, draws, options)
    low, gain = low_resolution(scan.kspace, masks.calibration)
    maps = calibrated(low, scan.fields, gain * scan.sigma.square(), layout.shape, draws, options)
    combined = maps.combined(scan.coil_images)
    unexplained = 1 - energy(combined[:, None]).sum((1, 2)) / scan.energy.clamp(min=1e-20)
    kspace = scan.kspace.mul_(masks.sampled[:, None].float())
    zero_filled = maps.combined(ifft2(kspace, norm="ortho"))
    scale = energy(zero_filled[:, None]).amax((1, 2)).sqrt().clamp(min=1e-20)
    signs = checkerboard(layout.shape, draws.device) / each(scale)
    prepared = Scan(
        kspace=kspace.mul_(signs[:, None])[:, None],
        mask=masks.sampled[:, None, None],
        sens=maps.sens()[:, None],
        noise=scan.sigma / scale,
    )
    return Simulated(prepared, (combined * signs)[:, None], unexplained)


def _signed(magnitude: torch.Tensor, phase: torch.Tensor, layout: Layout) -> torch.Tensor:
    """(batch, *layout.fine) complex64, signed: objects whose values are right once k-space is cropped to the matrix."""
    # An image keeps its values where k-space is cropped, if it is multiplied with the root of the share that is kept.
    share = (layout.wide * layout.shape[1] / math.prod(layout.fine)) ** 0.5
    signed = magnitude * (share * checkerboard(layout.fine, magnitude.device))
    return torch.complex(torch.cos(phase).mul_(signed), torch.sin(phase).mul_(signed))


def _encoded(
    objects: torch.Tensor, layout: Layout, draws: Draws, options: Simulation
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Noise-free signed k-space (batch, coil, y, x) of signed objects, and the sensitivities; None where they fold."""
    whole = (layout.wide, layout.shape[1])
    grid = (min(nearest(whole[0] + MARGIN), layout.fine[0]), min(nearest(whole[1] + MARGIN), layout.fine[1]))
    fields = coil_fields(draws, layout, options)
    flat = 0.5 * draws.uniform(1 - options.shading[1], 1 - options.shading[0])
    shading = _on(_power(fields), grid, layout.reach).clamp(min=1e-6) ** -each(flat)
    coarse = ifft2(resize(fft2(objects, norm="ortho"), grid), norm="ortho") * shading
    kspace = resize(fft2(_on(fields, grid, layout.reach).mul_(coarse[:, None]), norm="ortho"), whole)
    if layout.wide == layout.shape[0]:
        return kspace, fields
    return fft2(_folded(ifft2(kspace, norm="ortho"), layout.shape[0]), norm="ortho"), None


def _power(fields: torch.Tensor) -> torch.Tensor:
    """(batch, 2 NODES, 2 NODES): the energy of fields at Chebyshev points, at as many as its polynomial has."""
    return energy(between(fields, 2 * [refined(2 * NODES, NODES, fields.device)]))


def _on(fields: torch.Tensor, shape: tuple[int, int], reach: float) -> torch.Tensor:
    """From the Chebyshev points to a grid that spans the whole object along y and the field of view along x."""
    nodes = fields.shape[-1]
    rows = chebyshev(shape[0], nodes, fields.device)
    columns = chebyshev(shape[1], nodes, fields.device, reach=reach)
    return between(fields, (rows, columns))


def _folded(images: torch.Tensor, size: int) -> torch.Tensor:
    """Images seen in a field of view of `size` (even) pixels along y; what lies beyond comes in at the other side."""
    tripled = resize(images, (3 * size,), (-2,))
    return tripled.unflatten(-2, (3, size)).sum(-3)


def _point_spread(shape: tuple[int, int], draws: Draws) -> torch.Tensor:
    """(batch, 1, y, x): how much of k-space is left at its edges: decay along y, filters along both; 1 for half."""
    y, x = (torch.linspace(-1, 1, n, device=draws.device) for n in shape)
    some = draws.chance(0.5, 1)
    decay = torch.exp(some * draws.uniform(-0.7, 0.7, 1) * y)
    soft = some * draws.uniform(0, 0.5, 1)
    return (decay * (1 - soft * y**2))[:, None, :, None] * (1 - soft * x**2)[:, None, None]


def _level(energy: torch.Tensor) -> torch.Tensor:
    """(batch,): brightness of what is bright, weighted by its energy, of the combined image's energy (batch, y, x)."""
    return (energy.square().sum((1, 2)) / energy.sum((1, 2)).clamp(min=1e-20)).sqrt().clamp(min=1e-10)
