"""varnet (8 cascades, 18 channels) on 12 coils of 256 x 256: forward, forward + backward and peak memory, beside
fastMRI's VarNet of the same size.

    python tests/benchmarks/bench_networks.py [--repeats 5] [--threads 2]

Times are the fastest of alternating repeats. Memory is the growth of the process's peak resident set, each measured in
a process of its own. fastMRI estimates its sensitivities with a network; here it is given the maps, as ours is.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mrnets import store
from mrnets.contract import Scan

COILS, SIZE = 12, 256


def example() -> Scan:
    generator = torch.Generator().manual_seed(0)
    shape = (1, 1, COILS, SIZE, SIZE)
    sens = torch.randn(shape, dtype=torch.complex64, generator=generator)
    sens /= torch.linalg.vector_norm(sens, dim=2, keepdim=True)
    mask = torch.zeros(1, 1, 1, SIZE, SIZE, dtype=torch.bool)
    mask[..., ::4, :] = True
    mask[..., SIZE // 2 - 12 : SIZE // 2 + 12, :] = True
    return Scan(kspace=mask * torch.randn(shape, dtype=torch.complex64, generator=generator), mask=mask, sens=sens)


def ours() -> Callable[[], Tensor]:
    network, scan = store.create("varnet"), example()
    return lambda: network(scan).image


def fastmri() -> Callable[[], Tensor]:
    from fastmri.models.varnet import NormUnet, VarNetBlock

    scan = example()
    cascades = torch.nn.ModuleList(VarNetBlock(NormUnet(18, 4)) for _ in range(8))
    kspace, sens = torch.view_as_real(scan.kspace[:, 0]), torch.view_as_real(scan.sens[:, 0])
    mask = scan.mask[..., None][:, 0]

    def run() -> Tensor:
        current = kspace
        for cascade in cascades:
            current = cascade(current, kspace, mask, sens)
        return cascades[0].sens_reduce(current, sens)

    return run


def forward(run: Callable[[], Tensor]) -> None:
    with torch.inference_mode():
        run()


def both(run: Callable[[], Tensor]) -> None:
    run().abs().sum().backward()


def seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def growth(make: Callable[[], Any], work: Callable[[Any], None], threads: int) -> float:
    """MiB by which `work` raises the peak of this process; to be called in a fresh one."""
    torch.set_num_threads(threads)
    run = make()
    before = peak()
    work(run)
    return peak() - before


def peak() -> float:
    """Peak resident set in MiB. (getrusage's figure survives the exec of a child, so it would be the parent's.)"""
    with open("/proc/self/status") as status:
        return next(float(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def isolated_growth(make: Callable[[], Any], work: Callable[[Any], None], threads: int) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(growth, (make, work, threads))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    makers: dict[str, Callable[[], Any]] = {"ours": ours}
    try:
        fastmri()

        makers["fastMRI"] = fastmri
    except ImportError:
        print("fastMRI: not installed")
    runs = {name: make() for name, make in makers.items()}
    for label, work in (("forward", forward), ("forward + backward", both)):
        best = dict.fromkeys(runs, float("inf"))
        for repeat in range(arguments.repeats + 1):
            for name, run in runs.items():
                taken = seconds(lambda run=run, work=work: work(run))
                best[name] = min(best[name], taken) if repeat else best[name]
        memory = {name: isolated_growth(make, work, arguments.threads) for name, make in makers.items()}
        for name in runs:
            print(
                f"{label:20s} {name:8s} {best[name]:6.2f} s {memory[name]:7.0f} MiB   "
                f"ours / {name}: time {best['ours'] / best[name]:.2f}, memory {memory['ours'] / memory[name]:.2f}"
            )


if __name__ == "__main__":
    main()
