"""The order of features in memory on a processor: ours beside the channels always last and always first.

    python tests/benchmarks/bench_order.py [--networks varnet l1varnet] [--size 192] [--coils 12] [--threads 1]

Each network runs in turns with each order, forward and forward + backward. The fastest times count, in seconds of the
processor over all threads. `mrnets/blocks/order.py` has the rule.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mrnets.commandline import settle

settle()  # as a command does, before torch loads

import torch
from torch import Tensor

from mrnets import store
from mrnets.blocks import complex as complex_
from mrnets.blocks import order, unet
from mrnets.contract import Scan

ORDERS: dict[str, Callable[..., Tensor]] = {
    "ours": order.for_processor,
    "always last": lambda x, *, narrow=True: order.channels_last(x),
    "always first": lambda x, *, narrow=True: x.contiguous(),
}


@contextmanager
def used(function: Callable[..., Tensor]) -> Iterator[None]:
    """Within it, networks order features by `function`."""
    before = order.for_processor
    places = (complex_, unet)
    for module in places:
        vars(module)["for_processor"] = function
    try:
        yield
    finally:
        for module in places:
            vars(module)["for_processor"] = before


def scan_of(size: int, coils: int) -> Scan:
    """A scan of noise."""
    kspace = torch.randn((1, 1, coils, size, size), dtype=torch.complex64)
    mask = torch.rand((1, 1, 1, size, size)) < 0.25
    return Scan(kspace=kspace * mask, mask=mask, sens=kspace / torch.linalg.vector_norm(kspace, dim=2, keepdim=True))


def seconds(network: torch.nn.Module, scan: Scan, backward: bool) -> float:
    """Seconds of the processor that a pass takes."""
    start = time.process_time()
    with torch.inference_mode(not backward):
        image = network(scan).image
        if backward:
            image.abs().sum().backward()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["varnet", "l1varnet"], choices=store.names(), metavar="NAME")
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--coils", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    scan = scan_of(args.size, args.coils)
    for name in args.networks:
        network = store.create(name)
        for backward in (False, True):
            best = dict.fromkeys(ORDERS, float("inf"))
            for turn in range(args.rounds + 1):  # the first one does not count
                for how, function in ORDERS.items():
                    with used(function):
                        took = seconds(network, scan, backward)
                    best[how] = min(best[how], took) if turn else best[how]
            ratios = ", ".join(f"{how} {took / best['ours']:.2f} x" for how, took in best.items() if how != "ours")
            what = "forward + backward" if backward else "forward"
            print(f"{name} {args.size} x {args.size}, {what}: ours {best['ours']:.2f} s, {ratios}", flush=True)


if __name__ == "__main__":
    main()
