"""Peak memory of a 3-D scan on its way to images, over that of its k-space. Aim: 2.5 or less.

    python tests/benchmarks/bench_volume.py [--chains zerofilled cgsense] [--matrix 144] [--partitions 128] [--coils 12]

Each chain runs in a process of its own with one thread. A small scan goes first, so that libraries and buffers that do
not grow with a scan are there. Then the peak counts, over what the process holds at that time. k-space is that of the
grid without readout oversampling. Seconds are of the processor. Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 1500
"""Seconds for one chain."""


def main() -> None:
    """Print a line for each chain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", nargs="*", default=["zerofilled", "cgsense"])
    parser.add_argument("--matrix", type=int, default=144, help="of readout and lines")
    parser.add_argument("--partitions", type=int, default=128)
    parser.add_argument("--coils", type=int, default=12)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    size = {"matrix": args.matrix, "slices": args.partitions, "coils": args.coils}
    if args.one:
        print(json.dumps(measured(args.one, size)))
        return
    print(f"{args.matrix} x {args.matrix} x {args.partitions}, {args.coils} coils")
    for chain in args.chains:
        peak, seconds = in_process(chain, size)
        print(f"{chain:<12} {peak:5.2f} x k-space   {seconds:6.1f} s of the processor", flush=True)


def in_process(chain: str, size: dict[str, int]) -> tuple[float, float]:
    """Return what `measured` does, in a process of its own."""
    options = ["--matrix", size["matrix"], "--partitions", size["slices"], "--coils", size["coils"], "--one", chain]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *map(str, options)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=LIMIT)
    peak, seconds = json.loads(done.stdout.splitlines()[-1])
    return float(peak), float(seconds)


def measured(chain: str, size: dict[str, int]) -> tuple[float, float]:
    """Return the peak of memory over that of k-space, and seconds of the processor, for one scan."""
    from mrnets.commandline import settle

    settle()  # as a command does, before the libraries load
    from gadgets.simulate import Settings, make_scan
    from mrnets.mrd.files import write_scan

    kind = {"three_d": True, "acceleration": 2, "calibration": 24, "noise_lines": 16}
    with tempfile.TemporaryDirectory() as folder:
        for name, own in (("small", {"matrix": 48, "slices": 24, "coils": 4}), ("scan", size)):
            header, lines, _ = make_scan(Settings(**own, **kind))
            write_scan(Path(folder) / f"{name}.h5", header, lines)
            del lines
        through(Path(folder) / "small.h5", chain)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before, start = memory("VmRSS"), time.process_time()
        through(Path(folder) / "scan.h5", chain)
        kspace = 8 * size["coils"] * size["slices"] * size["matrix"] ** 2
        return (memory("VmHWM") - before) / kspace, time.process_time() - start


def through(path: Path, chain: str) -> None:
    """Make the images of a scan, and keep none."""
    from gadgets.hosts.library import load
    from mrnets.mrd.files import open_scan
    from mrnets.mrd.header import read_header

    with open_scan(path) as scan:
        for _ in load(chain, []).run(scan.items(), read_header(scan.header).header):
            pass


def memory(field: str) -> int:
    """Bytes of memory of this process: now (VmRSS), or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


if __name__ == "__main__":
    main()
