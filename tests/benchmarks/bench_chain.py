"""Chain overhead: seconds per slice of a whole replay over seconds per slice of the bare network. Aim: under 1.15.

The replay reads a file, whitens, sorts, estimates sensitivities, prepares, runs the network and writes images. The
network alone gets the same slices, prepared before the clock starts. Both in one process, imports done, in turn. The
self-check is off: random weights do not stand it.
    python tests/benchmarks/bench_chain.py [--slices 6]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mrnets.commandline import settle

settle()  # as a command does, before torch loads

import torch

from gadgets.chain import Chain
from gadgets.frame import Frame
from gadgets.hosts.library import load
from gadgets.hosts.replay import replay
from gadgets.simulate import Settings, make_scan
from mrnets import store
from mrnets.contract import Scan
from mrnets.mrd.files import open_scan, write_scan
from mrnets.mrd.header import read_header
from mrnets.mrd.lines import Item
from mrnets.preparation import Preparation
from mrnets.prepare import prepare

NETWORKS = {
    "varnet as published (8 cascades, 18 channels)": {},
    "varnet that ships (4 cascades, 32 channels, proximal)": {
        "cascades": 4,
        "channels": 32,
        "pooling_layers": 2,
        "start_iterations": 10,
        "consistency": "proximal",
    },
}


def main() -> None:
    """Print both times and their ratio for each network."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--slices", type=int, default=6)
    parser.add_argument("--coils", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scan, images = Path(folder) / "scan.h5", Path(folder) / "images.h5"
        header, lines, _ = make_scan(Settings(slices=args.slices, coils=args.coils))
        write_scan(scan, header, lines)
        print(f"{args.slices} slices of 256 x 256, {args.coils} coils, {torch.get_num_threads()} threads")
        for name, options in NETWORKS.items():
            weights = Path(folder) / "weights.safetensors"
            torch.manual_seed(0)
            network = store.create("varnet", **options)
            store.save(weights, network, name="varnet", options=options, preparation=Preparation().to_json())
            chain = [f"network.weights={weights}", "network.check=off"]
            with ThreadPoolExecutor(1) as thread:
                scans = thread.submit(prepared, scan, chain).result()
            alone, whole, serial = [], [], []
            for _ in range(args.rounds):
                alone.append(timed(lambda: [bare(network.eval(), one) for one in scans]))  # noqa: B023
                whole.append(timed(lambda: replay(scan, images, "varnet", settings=chain)))  # noqa: B023
                serial.append(timed(lambda: replay(scan, images, "varnet", settings=chain, watch=one_thread)))  # noqa: B023
            bare_s, chain_s, serial_s = (statistics.median(times) / args.slices for times in (alone, whole, serial))
            print(
                f"{name}: network {bare_s:.3f} s/slice, replay {chain_s:.3f} s/slice, ratio {chain_s / bare_s:.2f}; "
                f"with all gadgets in one thread {serial_s / bare_s:.2f}"
            )


def one_thread(name: str, items: Iterator[Item]) -> Iterator[Item]:
    """A watch, for which a chain runs in one thread."""
    return items


def prepared(path: Path, settings: list[str]) -> list[Scan]:
    """Input of the network for each slice: the frames that the chain gives it, prepared."""
    chain = load("varnet", settings)
    before = Chain(tuple(stage for stage in chain.stages if stage.name not in ("network", "images")))
    with open_scan(path) as source:
        frames = [f for f in before.run(source.items(), read_header(source.header).header) if isinstance(f, Frame)]
    return [prepare(frame.raw, Preparation()).scan for frame in frames]


@torch.inference_mode()
def bare(network: torch.nn.Module, scan: Scan) -> None:
    """One forward pass."""
    network(scan)


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes in a thread of its own.

    OpenMP has a team of threads for each thread that computes. Where there are more teams than processors, they spin
    hardly at all. A team of the main thread would stay for the rest of the process."""
    start = time.perf_counter()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
