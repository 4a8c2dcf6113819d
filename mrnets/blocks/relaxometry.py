"""Relaxation maps as unknowns of a reconstruction: their start, the gradient of their data term, and their units.

Axes: maps (batch, 4, y, x), real, in the order of `MAPS`. Images (batch, echo, y, x). kspace (batch, echo, coil, y, x).
sens (batch, 1, coil, y, x).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mrnets.blocks.consistency import solved
from mrnets.blocks.encoding import Encoding, encoded, name_of
from mrnets.blocks.recurrent import State
from mrnets.contract import Estimate, Scan
from mrnets.errors import InputError
from mrnets.physics.maps import MAPS
from mrnets.physics.relaxation import check_echo_times, differential_adjoint, fit, signal

__all__ = ["Relaxometry", "Start", "first_images", "inferred_maps", "relaxometry", "with_decay"]

Start = Literal["cgsense", "image"]
_LARGEST_DECAY = 5.0
"""Largest R2* of the start, in its unit; beyond any tissue's."""
_BACKGROUND = 1e-4
"""Fraction of the largest energy where R2* and B0 of the start are halved. Without signal a fit gives values at random,
larger ones than in tissue. A network that standardises its input would see little else."""


@dataclass(frozen=True)
class Relaxometry:
    """The problem min over maps of the mean over echoes of half |M F S s(maps) - y|^2.

    Networks work on maps in units of their own: a change by 1 of any map changes the signal by about S0. With T, the
    root mean square of the echo times, the units are 1/T for R2* and 1/(2 pi T) for B0. That of S0 is the largest
    magnitude of the first images, that of the phase 1 rad. `units` (batch, 4, 1, 1) is their size in SI units and the
    scale of k-space.
    """

    encoding: Encoding
    echo_times: Tensor
    units: Tensor

    def gradient(self, maps: Tensor) -> Tensor:
        """Gradient of the data term, over the square of the unit of S0, with respect to `maps` in these units."""
        physical = maps * self.units
        residual = self.encoding.gradient(signal(physical, self.echo_times))
        gradient: Tensor = differential_adjoint(physical, self.echo_times, residual)
        return gradient * self.units / (self.units[:, 1:2] ** 2 * residual.shape[1])

    def estimate(self, maps: Tensor, steps: tuple[Estimate, ...] = ()) -> Estimate:
        """The maps by their names, in SI units and the scale of k-space."""
        return Estimate(maps=dict(zip(MAPS, (maps * self.units).unbind(1), strict=True)), steps=steps)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def relaxometry(
    scan: Scan, network: nn.Module, *, start: Start, iterations: int, regularisation: float = 1e-3
) -> tuple[Relaxometry, Tensor]:
    """The problem of `scan`, and maps (in the network's units) to start from: the fit to a first reconstruction.

    start: "image" takes the complex images (batch, echo, y, x) that another network has left in `scan.image`. "cgsense"
    makes them by CG-SENSE with that many `iterations` and that `regularisation`.
    Raises InputError, which names `network`, where echo times, echoes or images do not fit.

    `torch.compile` goes around it, and fullgraph=True refuses it: when conjugate gradients stop, and how phases are
    unwrapped, depends on the data.
    """
    encoding, name = encoded(scan, network), name_of(network)
    echoes = encoding.kspace.shape[1]
    times = check_echo_times(scan.echo_times, echoes, name)
    images = first_images(scan, encoding, name, start, iterations, regularisation)
    largest = images.abs().amax(dim=(-3, -2, -1))
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    typical = math.sqrt(sum(t * t for t in times) / echoes)
    units = torch.ones((len(images), 4, 1, 1), dtype=largest.dtype, device=largest.device)
    units = units / units.new_tensor([typical, 1.0, 2 * math.pi * typical, 1.0])[:, None, None]
    units[:, 1] = largest[:, None, None]
    problem = Relaxometry(encoding=encoding, echo_times=units.new_tensor(times), units=units)
    with torch.no_grad():
        maps = fit(images, times) / units
        maps[:, 0] = maps[:, 0].clamp(max=_LARGEST_DECAY)
        energy = (images.abs() ** 2).mean(dim=1, keepdim=True) / units[:, 1:2] ** 2
        maps[:, 0::2] *= energy / (energy + _BACKGROUND)
    return problem, maps


def first_images(
    scan: Scan, encoding: Encoding, name: str, start: Start, iterations: int, regularisation: float
) -> Tensor:
    """The images (batch, echo, y, x) that maps are fitted to at the start; see `relaxometry`. Raises InputError."""
    if start == "image":
        image = scan.image
        want = tuple(encoding.start.shape)
        if image is None or tuple(image.shape) != want or not image.is_complex():
            came = "no image" if image is None else f"{image.dtype} {tuple(image.shape)}"
            raise InputError(f"{name} with start='image' needs complex images of shape {want}, and the scan has {came}")
        given: Tensor = image.detach()
        return given
    with torch.no_grad():
        return solved(encoding.start, encoding, regularisation, iterations=iterations)


def with_decay(maps: Tensor) -> Tensor:
    """The maps, with 0 where R2* is negative."""
    return torch.cat((maps[:, :1].clamp(min=0), maps[:, 1:]), dim=1)


def inferred_maps(
    machines: Iterable[nn.Module], time_steps: int, maps: Tensor, gradient: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """The maps after every step maps <- maps + Rim(gradient, maps) of a cascade of machines.

    R2* is kept from becoming negative. Maps and state go on from machine to machine.
    """
    every = []
    state: State | None = None
    for machine in machines:
        for _ in range(time_steps):
            change, state = machine(torch.cat((gradient(maps), maps), dim=1), state)
            maps = with_decay(maps + change)
            every.append(maps)
    return every
