"""Echoes (contrasts) one by one: each gets its own low-resolution phase removed before a network, and put back after.

Sensitivities that come from calibration lines contain the phase of the first echo. Later echoes differ from it by field
inhomogeneity and chemical shift. A network that was trained on nearly real images would treat that phase as noise.
Axes: see `mrnets.contract`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from mrnets.blocks.encoding import initial_image, normal
from mrnets.contract import Estimate, Scan
from mrnets.physics.conjugate import conjugate_gradients
from mrnets.physics.fourier import fftc, ifftc

__all__ = ["each_echo", "echo_phases"]

ITERATIONS = 8
REGULARISATION = 0.05
"""Regularisation of the CG-SENSE images that give the phases. It is enough to unfold smooth images."""
WIDTH = 8.0
"""Standard deviation of the low-pass filter, in samples of k-space: about the resolution of maps from 24 lines."""


def each_echo(network: Callable[[Scan], Estimate]) -> Callable[[Scan], Estimate]:
    """`network` on every echo by itself, as a scan of one echo whose sensitivities contain the phase of that echo.

    A scan of one echo, or without k-space or sensitivities, goes to the network as it is.
    """

    def run(scan: Scan) -> Estimate:
        if scan.kspace is None or scan.sens is None or scan.kspace.shape[1] == 1:
            return network(scan)
        phases = echo_phases(scan)
        return _together(network(_apart(scan, phases)), phases)

    return run


@torch.no_grad()
def echo_phases(scan: Scan) -> Tensor:
    """exp(i phase) (batch, echo, y, x) of each echo's low-resolution image relative to the first set of maps."""
    kspace, mask, sens = _encoding(scan)
    sens = sens[:, :1]
    image = conjugate_gradients(
        lambda x: normal(x, sens, mask) + REGULARISATION * x,
        initial_image(kspace, mask, sens),
        iterations=ITERATIONS,
    )
    y, x = (torch.arange(n, device=image.device) - n // 2 for n in image.shape[-2:])
    window = torch.exp(-(y[:, None] ** 2 + x**2) / (2 * WIDTH**2))
    low = ifftc(fftc(image) * window)
    return torch.polar(torch.ones_like(low.real), torch.angle(low))


def _encoding(scan: Scan) -> tuple[Tensor, Tensor, Tensor]:
    assert scan.kspace is not None
    return scan.kspace, cast("Tensor", scan.mask), cast("Tensor", scan.sens)


def _apart(scan: Scan, phases: Tensor) -> Scan:
    """(batch, echo, …) as (batch * echo, 1, …); echoes of a slice follow each other."""
    kspace, mask, sens = _encoding(scan)
    echoes = kspace.shape[1]

    def repeated(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.repeat_interleave(echoes, dim=0)

    image = None if scan.image is None else (scan.image * phases.conj()).flatten(0, 1)[:, None]
    return dataclasses.replace(
        scan,
        kspace=kspace.flatten(0, 1)[:, None],
        mask=mask if mask.shape[0] == 1 else repeated(mask),
        sens=(sens[:, None] * phases[:, :, None, None]).flatten(0, 1),
        image=image,
        calibration=repeated(scan.calibration),
        noise=repeated(scan.noise),
    )


def _together(estimate: Estimate, phases: Tensor) -> Estimate:
    """The inverse for the image of `estimate` and of its earlier steps."""

    def together(image: Tensor | None, phases: Tensor) -> Tensor | None:
        return None if image is None else image[:, 0].unflatten(0, phases.shape[:2]) * phases

    return dataclasses.replace(
        estimate,
        image=together(estimate.image, phases),
        unweighted=together(estimate.unweighted, phases[:, :, None]),
        steps=tuple(_together(step, phases) for step in estimate.steps),
    )
