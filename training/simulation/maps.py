"""Coil sensitivities as a calibration gives them. Axes: sens and coil images (batch, coil, y, x)."""

from __future__ import annotations

import math

import torch

from training.simulation.draws import Draws
from training.simulation.fields import between, checkerboard, each, energy, keys, turns
from training.simulation.settings import Simulation

__all__ = ["calibrated", "low_resolution"]

WIDTH = 24
"""Calibration samples along each axis from which sensitivities are estimated."""
NODES = 11
"""Points along each axis between which the error of the maps is interpolated."""
NOISE_LEFT = 0.5
"""Share of the variance of the noise of low-resolution coil images that is left in the maps."""


def low_resolution(kspace: torch.Tensor, calibration: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Coil images of the calibration block of signed k-space, and (batch,) the variance that noise of variance 1 has
    there.

    calibration: (batch, 2), size of the fully sampled block. Its middle `WIDTH` samples are used, with a Hann window,
    as in `mrnets.physics.espirit`.
    """
    shape = kspace.shape[-2:]
    windows, matrices = [], []
    block = kspace
    for axis, n in zip((-2, -1), shape, strict=True):
        width = min(WIDTH, n)
        offset = torch.arange(width, device=kspace.device) - width // 2
        block = block.narrow(axis, n // 2 - width // 2, width)
        windows.append(_hann(offset, calibration[:, axis].clamp(max=width)[:, None]))
        matrices.append(turns(n, -(width // 2), width - width // 2 - 1, kspace.device) * n**-0.5)
    window = windows[0][:, :, None] * windows[1][:, None]
    signed = window * checkerboard((window.shape[1], window.shape[2]), window.device)
    return between(block * signed[:, None], matrices), window.square().mean((1, 2)) * window[0].numel() / math.prod(
        shape
    )


def _hann(offset: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """(batch, sample): over `width` (batch, 1) samples around offset 0; 0 beyond."""
    within = (offset >= -(width // 2)) & (offset < width - width // 2)
    return within * torch.cos(math.pi * offset / (width + 1)) ** 2


def calibrated(
    low: torch.Tensor, fields: torch.Tensor | None, noise: torch.Tensor, draws: Draws, options: Simulation
) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps with the phase of the low-resolution image, and (batch, y, x) their norm: 1 in the object, less around it.

    low: low-resolution coil images.
    fields: the true sensitivities. The maps follow them, with a smooth error that is larger where there is little
    signal. None where the object folds: the maps follow `low`.
    noise: (batch,), variance of the noise in `low`.
    """
    coils, *shape = low.shape[1:]
    signal = energy(low)
    level2 = signal.square().sum((1, 2)) / signal.sum((1, 2)).clamp(min=1e-20)
    if fields is not None:
        low = fields * ((fields.conj() * low).sum(1) / energy(fields))[:, None]
    maps = between(draws.complex_normal(coils, NODES, NODES), [keys(n, NODES, draws.device) for n in shape])
    error = (draws.log_uniform(options.map_error) * level2 / coils + NOISE_LEFT * noise).sqrt()
    maps = maps.mul_(error[:, None, None, None]).add_(low)
    least = draws.log_uniform(options.background).square() * level2 * (1 - draws.chance(options.whole_maps))
    kept = signal / (signal + each(least)).clamp(min=1e-20)
    return maps.mul_((kept / energy(maps).sqrt().clamp(min=1e-12))[:, None]), kept
