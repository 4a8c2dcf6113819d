"""Whole replays on a CUDA device: milliseconds a slice, beside the time of their kernels; `replay --profile` there.

    python tests/benchmarks/bench_device_chain.py [--only replays profile others] [--slices 64]

The scan has 12 coils. A few slices are simulated, and come again and again. A replay goes from the file of the scan to
that of the images, in this process: the first one compiles kernels, the second makes graphs, the fastest of the others
counts. The time of its kernels and copies is that of one more replay, by CUPTI. "others" are other settings.
`--device cpu --size 64 --slices 2` goes through the same code without a device. Its figures mean nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mrnets.commandline import settle

settle()  # as a command does, before the libraries load

import numpy as np
import torch
from bench_server import CHAINS, ROOT, simulated
from rows import measured, unmeasured

from gadgets.hosts.replay import replay
from gadgets.kernels import traced
from gadgets.simulate import make_scan
from mrnets.mrd.files import write_scan
from mrnets.mrd.flags import Flag
from mrnets.mrd.lines import Lines

SIMULATED, RUNS = 4, 5
"""Slices that are simulated, and replays of a chain as it ships."""
AIM, OVER = 10, 1.3
"""Milliseconds a slice, and the time of a replay over that of its kernels."""
OTHERS: dict[str, tuple[str, ...]] = {
    "all coils to the network": ("compress.coils=12",),
    "all coils, without the self-check": ("compress.coils=12", "network.check=off"),
    "all coils, bfloat16": ("compress.coils=12", "network.precision=bfloat16"),
    "all coils, slice by slice": ("compress.coils=12", "network.batch=1", "coils.batch=1", "network.graphs=false"),
}


@dataclass(frozen=True)
class Scan:
    """A scan in a file, and where it is reconstructed."""

    path: Path
    slices: int
    device: str
    chains: tuple[str, ...]

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")


def replays(scan: Scan) -> None:
    """Each chain as it ships, and then its kernels: the profiler may slow a process down for good."""
    taken = {}
    for name in scan.chains:
        taken[name] = _fastest(scan, f"chain {name}", partial(_replayed, scan, name, ()))
        what = f"replay of {scan.slices} slices, chain {name}, each slice"
        measured(what, 1e3 * taken[name] / scan.slices, "ms", most=AIM, cuda=scan.cuda)
    for name, seconds in taken.items():
        what = f"replay of {scan.slices} slices, chain {name}, over the time of its kernels"
        with traced() as ended:
            _replayed(scan, name, ())
            pieces = ended() if ended else None
        if not pieces:
            unmeasured(what, "torch's profiler saw no work of a device")
            continue
        busy = sum(piece.seconds for piece in pieces)
        more = f"{len(pieces)} kernels and copies, {1e3 * busy / scan.slices:.2f} ms a slice"
        measured(what, seconds / busy, "x", most=OVER, cuda=scan.cuda, more=more)


def profile(scan: Scan) -> None:
    """The table of the command for a chain, and the share of its seconds in which the device computed."""
    for name in scan.chains:
        out = str(scan.path.with_name("profiled.h5"))
        words = [str(scan.path), "-c", name, "-o", out, "--set", f"network.device={scan.device}", "--profile"]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-m", "gadgets", "replay", *words],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        print(done.stderr, flush=True)
        what = f"replay --profile, chain {name}: GPU time of all gadgets over their seconds"
        times = [[float(x.replace("-", "0")) for x in found] for found in _TIMES.findall(done.stderr)]
        if done.returncode or not times:
            unmeasured(what, f"exit status {done.returncode}")
            continue
        seconds, _, device = (sum(column) for column in zip(*times, strict=True))
        more = f"{device:.2f} of {seconds:.2f} s; the first replay of a process"
        measured(what, device / max(seconds, 1e-9), "x", cuda=scan.cuda, more=more)


_TIMES = re.compile(r"^\S[^\n]*? +(\d+\.\d\d) +(\d+\.\d\d) +(\d+\.\d{3}|-) ", re.MULTILINE)
"""Seconds, waiting and GPU time of a gadget in the table of `gadgets.profile`."""


def others(scan: Scan) -> None:
    """Chains with other settings."""
    for name in scan.chains:
        for label, settings in OTHERS.items():
            seconds = _fastest(scan, f"chain {name}, {label}", partial(_replayed, scan, name, settings), runs=3)
            what = f"replay of {scan.slices} slices, chain {name}, {label}, each slice"
            measured(what, 1e3 * seconds / scan.slices, "ms", cuda=scan.cuda)


PARTS: dict[str, Callable[[Scan], None]] = {"replays": replays, "profile": profile, "others": others}


def _replayed(scan: Scan, name: str, settings: tuple[str, ...]) -> None:
    out = scan.path.with_name("images.h5")
    replay(scan.path, out, name, settings=[f"network.device={scan.device}", *settings])


def _fastest(scan: Scan, title: str, work: Callable[[], None], runs: int = RUNS) -> float:
    times = []
    for _ in range(runs if scan.cuda else 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    told = " ".join(f"{1e3 * t / scan.slices:.1f}" for t in times)
    print(f"{title}: milliseconds a slice, run by run: {told}", flush=True)
    return min(times[2:] or times)


def repeated_slices(size: int, slices: int) -> tuple[bytes, Iterator[Lines]]:
    """The header and lines of a scan: a few slices again and again, since their simulation takes long."""
    settings = simulated(size, min(slices, SIMULATED))
    header, _, _ = make_scan(replace(settings, slices=slices))
    noise, *blocks = make_scan(settings)[1]
    last = np.uint64(1 << Flag.LAST_IN_MEASUREMENT - 1)

    def lines() -> Iterator[Lines]:
        yield noise
        for first in range(0, slices, settings.slices):
            for block in blocks:
                headers = block.headers.copy()
                headers["idx"]["slice"] += first
                if first + settings.slices < slices:
                    headers["flags"] &= ~last
                yield replace(block, headers=headers)

    return header, lines()


def main() -> None:
    """Print the rows of each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--chains", nargs="+", default=CHAINS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--slices", type=int, default=64)
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        unmeasured(f"a replay of {args.slices} slices", "torch finds no CUDA device")
        return
    with tempfile.TemporaryDirectory() as folder:
        scan = Scan(Path(folder) / "scan.h5", args.slices, args.device, tuple(args.chains))
        write_scan(scan.path, *repeated_slices(args.size, args.slices))
        for name in args.only:
            PARTS[name](scan)


if __name__ == "__main__":
    main()
