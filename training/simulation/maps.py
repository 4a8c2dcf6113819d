"""Coil sensitivities as a calibration gives them. Axes: sens and coil images (batch, coil, y, x)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from training.simulation.draws import Draws
from training.simulation.fields import (
    between,
    chebyshev,
    chebyshev_turns,
    checkerboard,
    each,
    energy,
    keys,
    periodic,
    refined,
    turns,
)
from training.simulation.settings import Simulation

__all__ = ["Maps", "calibrated", "low_resolution"]

Plane = tuple[int, int]
WIDTH = 24
"""Calibration samples along each axis from which sensitivities are estimated."""
GRID = 40
"""Chebyshev points along each axis where maps are made. Between them a polynomial has the maps within 2e-4."""
NODES = 11
"""Points along each axis between which the error of the maps is interpolated."""
NOISE_LEFT = 0.5
"""Share of the variance of the noise of low-resolution coil images that is left in the maps."""


@dataclass(frozen=True)
class Maps:
    """Sensitivities of a batch."""

    adjoint: torch.Tensor
    """(batch, coil, y, x) complex64: their conjugates, of any norm."""
    norm: torch.Tensor
    """(batch, y, x) float32: the norm of `adjoint`."""
    kept: torch.Tensor
    """(batch, y, x) float32: the norm that the sensitivities have: 1 in the object, less around it."""

    def combined(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, y, x): coil images combined by maps of norm 1. The coil images are overwritten."""
        return images.mul_(self.adjoint).sum(1).mul_(1 / self.norm)

    def sens(self) -> torch.Tensor:
        """(batch, coil, y, x). They take the place of `adjoint`, which is lost."""
        return self.adjoint.conj_physical_().mul_((self.kept / self.norm)[:, None])


def low_resolution(kspace: torch.Tensor, calibration: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(batch, coil, v, u): Fourier coefficients of low-resolution coil images, from signed k-space; and (batch,): the
    variance in those images of noise of variance 1.

    calibration: (batch, 2), size of the fully sampled block. Its middle `WIDTH` samples are used, with a Hann window,
    as in `mrnets.physics.espirit`. The images are sums of `turns` from -(v // 2) on.
    """
    windows, block = [], kspace
    for axis in (-2, -1):
        n = kspace.shape[axis]
        width = min(WIDTH, n)
        offset = torch.arange(width, device=kspace.device) - width // 2
        block = block.narrow(axis, n // 2 - width // 2, width)
        windows.append(_hann(offset, calibration[:, axis].clamp(max=width)[:, None]))
    window = windows[0][:, :, None] * windows[1][:, None] * math.prod(kspace.shape[-2:]) ** -0.5
    signed = window * checkerboard((window.shape[1], window.shape[2]), window.device)
    return block * signed[:, None], window.square().sum((1, 2))


def _hann(offset: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """(batch, sample): over `width` (batch, 1) samples around offset 0; 0 beyond."""
    within = (offset >= -(width // 2)) & (offset < width - width // 2)
    return within * torch.cos(math.pi * offset / (width + 1)) ** 2


def calibrated(
    low: torch.Tensor,
    fields: torch.Tensor | None,
    noise: torch.Tensor,
    shape: Plane,
    draws: Draws,
    options: Simulation,
) -> Maps:
    """Maps of `shape` with the phase of the low-resolution image, which fade out around the object.

    low: coefficients of low-resolution coil images, of `low_resolution`.
    fields: the true sensitivities at Chebyshev points. The maps follow them, with a smooth error that is larger where
    there is little signal. None where the object folds: the maps follow `low`.
    noise: (batch,), variance of the noise in the low-resolution images.
    """
    device, coils = draws.device, low.shape[1]
    signal = energy(between(low, [turns(2 * WIDTH - 1, *_span(n), device) for n in low.shape[-2:]]))
    level2 = signal.square().sum((1, 2)) / signal.sum((1, 2)).clamp(min=1e-20)
    maps = between(low, [chebyshev_turns(GRID, *_span(n), device) for n in low.shape[-2:]])
    if fields is not None:
        fields = between(fields, 2 * [refined(GRID, fields.shape[-1], device)])
        maps = fields * ((fields.conj() * maps).sum(1) / energy(fields))[:, None]
    error = (draws.log_uniform(options.map_error) * level2 / coils + NOISE_LEFT * noise).sqrt()
    wrong = between(draws.complex_normal(coils, NODES, NODES), 2 * [keys(GRID, NODES, device)])
    maps = wrong.mul_(error[:, None, None, None]).add_(maps)
    adjoint = between(maps.conj_physical_(), [chebyshev(n, GRID, device) for n in shape])
    least = draws.log_uniform(options.background).square() * level2 * (1 - draws.chance(options.whole_maps))
    signal = between(signal, [periodic(n, 2 * WIDTH - 1, device) for n in shape]).clamp(min=0)
    kept = signal / (signal + each(least)).clamp(min=1e-20)
    return Maps(adjoint, energy(adjoint).sqrt().clamp(min=1e-12), kept)


def _span(width: int) -> tuple[int, int]:
    """The least and the largest frequency of `width` samples around the centre."""
    return -(width // 2), width - width // 2 - 1
