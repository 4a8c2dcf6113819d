"""Benchmark of the kernels of `mrnets.blocks.fused` on a CUDA device: networks with them and without, and a pass alone.

    python tests/benchmarks/bench_fused.py [--size 256] [--batch 16]

Networks run as CUDA graphs and plainly, in float32 (convolutions in TF32) and under autocast to bfloat16. A pass over
features stands beside a copy in the device's memory, which is its limit.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from bench_device import COILS, forwards, repeated
from timing import race
from torch.nn import functional

from mrnets.blocks import fused
from mrnets.contract import Estimate
from mrnets.graphs import recorded
from mrnets.measure import example
from training.batches import to_device

Work = Callable[[], object]


def waited(work: Work) -> Work:
    def run() -> None:
        work()
        torch.cuda.synchronize()

    return run


@contextmanager
def without() -> Iterator[None]:
    """torch's own operations only."""
    with mock.patch.object(fused, "_kernels", return_value=None):
        yield


def difference(one: Estimate, other: Estimate) -> float:
    distance = torch.linalg.vector_norm(one.image - other.image) / torch.linalg.vector_norm(other.image)
    return float(distance)


def networks(size: int, batch: int) -> None:
    device = torch.device("cuda")
    one = to_device(repeated(example("l1wavelet", coils=COILS, size=size), 1), "cuda")
    for (name, network, _), slices in itertools.product(forwards(), (1, batch)):
        network, scan = network.eval().cuda(), repeated(one, slices)
        for precision in ("float32", "bfloat16"):

            def forward(network: Any = network, scan: Any = scan, precision: str = precision) -> Estimate:
                with torch.autocast("cuda", torch.bfloat16, enabled=precision != "float32"):
                    estimate: Estimate = network(scan)
                return estimate

            ours, graph = forward(), recorded(forward, device)
            with without():
                plain, plain_graph = forward(), recorded(forward, device)

                def unfused(forward: Callable[[], Estimate] = forward) -> None:
                    with without():
                        forward()

            contestants = {
                "a graph": waited(graph.replay),
                "a graph, without kernels": waited(plain_graph.replay),
                "plainly": waited(forward),
                "plainly, without kernels": waited(unfused),
            }
            race(f"{name}, {precision}, {slices} x {COILS} coils, {size} x {size}", contestants, repeats=2)
            print(f"  {difference(ours, plain):.1e} of the norm apart")


def passes(size: int, batch: int) -> None:
    bias, film = torch.randn(48, device="cuda"), torch.randn(batch, 96, device="cuda")
    for dtype, layout in itertools.product(
        (torch.float32, torch.bfloat16), (torch.contiguous_format, torch.channels_last)
    ):
        x = torch.randn(batch, 48, size, size, device="cuda").to(dtype).contiguous(memory_format=layout)
        y = torch.empty_like(x)
        race(
            f"features {tuple(x.shape)}, {dtype}, {layout}",
            {
                "a copy": waited(lambda x=x, y=y: y.copy_(x)),
                "normalisation and leaky ReLU": waited(lambda x=x: fused.normalised(x, 0.2)),
                "the same by torch": waited(lambda x=x: functional.leaky_relu_(functional.instance_norm(x), 0.2)),
                "bias, FiLM and ReLU": waited(lambda x=x: fused.filmed(x, bias, film)),
                "bias and sum": waited(lambda x=x, y=y: fused.added(x, bias, y)),
            },
        )


@torch.inference_mode()
@fused.with_kernels()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()
    if not torch.cuda.is_available() or not fused.can(torch.ones(1, 1, 2, 2, device="cuda")):
        print("not measured: no CUDA device, or no Triton that can make kernels for it")
        return
    print(torch.cuda.get_device_name())
    networks(args.size, args.batch)
    passes(args.size, args.batch)


if __name__ == "__main__":
    main()
