"""Relaxation maps as ATOMMIC's networks see them, and the signal that these maps predict there.

Axes: maps (batch, 4, y, x), real, in the order of `mrnets.physics.maps.MAPS`; echoes (batch, echo, y, x), complex.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mrnets.blocks.encoding import Encoding, encoded, name_of
from mrnets.blocks.relaxometry import Start, first_images
from mrnets.contract import Estimate, Scan
from mrnets.physics.maps import MAPS
from mrnets.physics.relaxation import check_echo_times, fit

__all__ = ["Problem", "problem_of"]

UNITS = (150.0, 150.0, -1000.0 / (2 * math.pi), 150.0)
"""Units of the maps: 1/s, the scale of the images, Hz, rad. There B0 is an angular frequency of the other sign."""


@dataclass(frozen=True)
class Problem:
    """The data of a scan, and maps to start from, in ATOMMIC's units.

    Its signal takes the maps in these units, as if they were physical, and takes S0 and the phase as real and imaginary
    part: s = (S0 + i phase) exp(-t (R2* + i B0)).
    """

    encoding: Encoding
    echo_times: Tensor
    """(echo, 1, 1), s."""
    start: Tensor

    def unit_signal(self, maps: Tensor) -> Tensor:
        """The echoes of S0 = 1 and phase 0."""
        decay, turn = (self.echo_times * maps[:, n, None] for n in (0, 2))
        return torch.polar(torch.exp(-decay), -turn)

    def signal(self, maps: Tensor) -> Tensor:
        """The echoes that `maps` predict."""
        return torch.complex(maps[:, 1], maps[:, 3])[:, None] * self.unit_signal(maps)

    def gradient(self, maps: Tensor) -> Tensor:
        """The mean over echoes of the derivatives of the data term that ATOMMIC takes, (batch, 4, y, x)."""
        signal = self.signal(maps)
        residual = self.encoding.gradient(signal)
        decay = -(self.echo_times * signal.conj() * residual).mean(dim=1)
        amplitude = (self.unit_signal(maps).conj() * residual).mean(dim=1)
        return torch.stack((decay.real, amplitude.real, decay.imag, amplitude.imag), dim=1)

    def estimate(self, maps: Tensor) -> Estimate:
        """The maps by their names, in SI units."""
        units = maps.new_tensor(UNITS)[:, None, None]
        return Estimate(maps=dict(zip(MAPS, (maps * units).unbind(1), strict=True)))


def problem_of(scan: Scan, network: nn.Module, *, start: Start, iterations: int, regularisation: float) -> Problem:
    """The problem of `scan`. Its maps are fitted to first images; see `mrnets.blocks.relaxometry.relaxometry`.

    Raises InputError, which names `network`, where echo times, echoes or images do not fit.
    """
    encoding, name = encoded(scan, network), name_of(network)
    times = check_echo_times(scan.echo_times, encoding.kspace.shape[1], name)
    images = first_images(scan, encoding, name, start, iterations, regularisation)
    maps = fit(images, times)
    units = maps.new_tensor(UNITS)[:, None, None]
    return Problem(encoding, maps.new_tensor(times)[:, None, None], maps / units)
