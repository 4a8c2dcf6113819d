"""The cost of a network: parameters, multiply-adds and seconds for one slice."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from mrnets import store
from mrnets.contract import Scan

__all__ = ["Cost", "cost", "example", "parameters"]


@dataclass(frozen=True)
class Cost:
    """The cost of one slice, forward."""

    multiply_adds: int
    """Those of convolutions and matrix products. Fourier transforms and work voxel by voxel are not counted."""
    seconds: float
    """CPU seconds on one core."""


def parameters(name: str, **options: object) -> int:
    """The number of parameters of the network `name`. Takes no memory."""
    with torch.device("meta"):
        network = store.create(name, **options)
    return sum(parameter.numel() for parameter in network.parameters())


def example(name: str, *, coils: int = 12, size: int = 256, echoes: int = 4) -> Scan:
    """A scan of noise, of the kind that the network `name` takes: one slice, every fourth line.

    echoes: of a quantitative network; the others get one.
    """
    generator = torch.Generator().manual_seed(0)
    options = store.bind(name)
    traits = store.describe(name)
    coils = options.get("coils", coils)
    shape = (1, echoes if traits.task == "quantitative" else 1, coils, size, size)
    sens = torch.randn((1, 1, *shape[2:]), dtype=torch.complex64, generator=generator)
    sens /= torch.linalg.vector_norm(sens, dim=2, keepdim=True)
    mask = torch.zeros(1, 1, 1, size, size, dtype=torch.bool)
    mask[..., ::4, :] = True
    mask[..., size // 2 - 12 : size // 2 + 12, :] = True
    kspace = torch.randn(shape, dtype=torch.complex64, generator=generator)
    slices = (traits.slices,) if traits.slices > 1 else ()
    return Scan(
        kspace=mask * kspace,
        mask=mask,
        sens=sens,
        image=torch.rand(1, options.get("contrasts", 1), *slices, size, size, generator=generator),
        echo_times=0.003 * torch.arange(1, shape[1] + 1),
        calibration=kspace[:, :1, :, size // 2 - 12 : size // 2 + 12, size // 2 - 12 : size // 2 + 12],
        noise=torch.ones(1),
    )


def cost(name: str, *, coils: int = 12, size: int = 256) -> Cost:
    """Multiply-adds, and CPU seconds of the second run, of the network `name` at its published options.

    One thread: its seconds are those of the arithmetic, whatever else the machine does.
    """
    network, scan = store.create(name).eval(), example(name, coils=coils, size=size)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            with FlopCounterMode(display=False) as counter:
                network(scan)
            start = time.process_time()
            network(scan)
            return Cost(counter.get_total_flops() // 2, time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
