"""One slice in a warm server: milliseconds from its last line to its image, through TCP, on a CUDA device.

    python tests/benchmarks/bench_server.py [--chains varnet l1wavelet reconstruct] [--size 256] [--scans 12]

`python -m gadgets serve` runs in a process of its own. Scans of one slice of 12 coils come one after another, each in a
connection of its own. All lines but the last are sent first, as a scanner sends them: while it still measures. The
clock runs from the moment before the last line is sent until the client has read the first image. The first scans
compile kernels and record graphs, and do not count.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

from mrnets.commandline import settle

settle()  # as a command does, before the libraries load

import torch
from rows import measured, unmeasured

from gadgets.connection import Peer
from gadgets.hosts.library import load
from gadgets.limits import Limits
from gadgets.messages import Close, ConfigText, Header, Message
from gadgets.protocol import State
from gadgets.simulate import Settings, make_scan
from mrnets.mrd.lines import Lines

ROOT = Path(__file__).parents[2]
CHAINS = ("varnet", "l1wavelet", "reconstruct")
COILS, WARM = 12, 5
"""Coils of the scan, and scans that do not count: the second makes graphs, and the third may, too."""
AIM, LIMIT, PAUSE = 40, 120, 0.2
"""Milliseconds; seconds in which an image must come; seconds before the last line, in which the others are sorted."""


def main() -> None:
    """Print a row for each chain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", nargs="+", default=CHAINS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--scans", type=int, default=12, help="that count, after the first ones")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the server is ended, too
    cuda = args.device.startswith("cuda")
    if cuda and not torch.cuda.is_available():
        unmeasured("one slice in a warm server", "torch finds no CUDA device")
        return
    header, items, _ = make_scan(simulated(args.size))
    scan: list[Message] = [Header(header), *items]
    warm = WARM if cuda else 1
    with server() as port:
        for name in args.chains:
            chain = load(name, [f"network.device={args.device}"])
            times = [one_slice(port, [ConfigText(chain.xml()), *scan]) for _ in range(warm + args.scans)]
            told = [1e3 * seconds for seconds in times]
            spread = f"median; {min(told[warm:]):.1f} to {max(told[warm:]):.1f}; first scan {told[0]:.0f}"
            what = f"one slice in a warm server, last line to image, chain {name}"
            measured(what, median(told[warm:]), "ms", most=AIM, cuda=cuda, more=spread)


def simulated(size: int, slices: int = 1) -> Settings:
    """Slices of 12 coils; a small one has fewer calibration lines."""
    return Settings(slices=slices, coils=COILS, matrix=size, calibration=min(24, size // 5))


@contextmanager
def server() -> Iterator[int]:
    """A server in a process of its own; give its port."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "gadgets", "serve", "--port", "0"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
        try:
            yield _port(process, log)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
            print(log.read_text(errors="replace")[-4000:], file=sys.stderr, flush=True)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """The port on which the server listens, as its log says."""
    for _ in range(10 * LIMIT):
        if found := re.search(r"listening on \S+ port (\d+)", log.read_text(errors="replace")):
            return int(found[1])
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"the server does not listen: {log.read_text(errors='replace')[-1000:]}")


def one_slice(port: int, messages: list[Message]) -> float:
    """Seconds from the last line of a scan to its first image."""
    *before, block = messages
    assert isinstance(block, Lines)
    with socket.create_connection(("127.0.0.1", port), LIMIT) as connected:
        peer = Peer.on(connected, State.ITEMS, Limits(silence=LIMIT, unread=LIMIT))
        for message in before:
            peer.send(message)
        peer.send(_part(block, slice(-1)))
        time.sleep(PAUSE)
        start = time.perf_counter()
        peer.send(_part(block, slice(-1, None)))
        items = peer.items()
        image = next(items)
        seconds = time.perf_counter() - start
        peer.send(Close())
        for _ in items:
            pass
        peer.close()
    if isinstance(image, str):
        raise SystemExit(f"the server says: {image}")
    return seconds


def _part(block: Lines, some: slice) -> Lines:
    trajectory = None if block.trajectory is None else block.trajectory[some]
    return replace(block, headers=block.headers[some], data=block.data[some], trajectory=trajectory)


if __name__ == "__main__":
    main()
