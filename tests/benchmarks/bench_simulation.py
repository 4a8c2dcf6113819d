"""Slices a second that the simulations of training scans give, prepared for a network.

    python tests/benchmarks/bench_simulation.py [cuda]

The reader `pool` makes batches on the device. The reader `simulated` draws scans on the CPU, and `mrnets.prepare` turns
them into the network's input on the device. The head is ICBM152, without phantoms. On the CPU one thread works, and
time is that of the process, which other processes disturb least. On a CUDA device 192 x 192 with 8 coils come first.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from mrnets.preparation import Preparation
from training.batches import to_device
from training.readers import simulated
from training.readers.anatomy import load_folder
from training.settings import Simulated
from training.simulation import Pool, Simulation, draw, pooled
from training.simulation.gather import gathered
from training.targets import prepared

BATCHES = 12


def rate(batch: Callable[[int], int], clock: Callable[[], float]) -> float:
    """Slices a second of `BATCHES` batches; `batch` makes one and tells its slices. Before, as many to warm up."""
    for n in range(BATCHES):
        batch(n)
    start = clock()
    slices = sum(batch(n) for n in range(BATCHES))
    return slices / (clock() - start)


def now() -> float:
    """Seconds, once the device has done what it was told."""
    torch.cuda.synchronize()
    return time.perf_counter()


def on_device(pool: Pool, options: Simulation, size: int) -> Callable[[int], int]:
    return lambda n: len(draw(pool, options, seed=1, number=n, size=size).target)


def on_host(matrix: tuple[int, ...], coils: tuple[int, int], device: str, size: int) -> Callable[[int], int]:
    volumes, settings = load_folder(None), Simulated(matrix=matrix, coils=coils, phantoms=0.0)

    def batch(n: int) -> int:
        sample = to_device(simulated.draw(volumes, settings, size, np.random.default_rng(n)), device)
        prepared(sample.raw, sample.coil_images, Preparation())
        return size

    return batch


def main() -> None:
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    clock, size = (now, 24) if device == "cuda" else (time.process_time, 8)
    if device == "cpu":
        torch.set_num_threads(1)
    images = gathered(None)
    mixed = range(96, 193, 16)
    cases = {"192 x 192, 8 coils": ((192,), (8, 8)), "96 to 192 samples, 4 to 16 coils": (tuple(mixed), (4, 16))}
    for title, (matrix, coils) in cases.items():
        options = Simulation(matrix=(min(matrix), max(matrix)), coils=coils, phantoms=0.0, folded=0.0, layouts=24)
        pool = pooled(images, device, options)
        quick, slow = rate(on_device(pool, options, size), clock), rate(on_host(matrix, coils, device, size), clock)
        print(f"{title}: pool {quick:.0f}, simulated {slow:.0f} slices/s, {quick / slow:.1f} times")


if __name__ == "__main__":
    main()
