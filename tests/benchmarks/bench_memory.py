"""Memory of a resident server over many scans, one after another and several at once.

    python tests/benchmarks/bench_memory.py [--scans 200] [--at-once 8] [--chain CHAIN] [--matrix 64]

A server runs as a process of its own. Its memory (RSS) is read after each scan. The first scans load networks and
libraries, so the first tenth does not count. Every scan is compared with the first one, byte for byte of its pixels.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import ismrmrd
import numpy as np

from gadgets.connection import Peer
from gadgets.messages import Close, ConfigFile, Header
from gadgets.protocol import State
from gadgets.simulate import Settings, make_scan

ROOT = Path(__file__).parents[2]


@contextmanager
def served(*options: str) -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    """A server, and its address."""
    command = [sys.executable, "-m", "gadgets", "serve", "--port", "0", *options]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            line = next(line for line in server.stderr if "listening on" in line)
            threading.Thread(target=deque, args=(server.stderr, 0), daemon=True).start()  # its log goes nowhere
            yield server, ("127.0.0.1", int(line.split()[-1]))
        finally:
            server.kill()


def resident(process: int) -> float:
    """MiB that a process has in memory."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def reconstructed(address: tuple[str, int], chain: str, header: bytes, lines: list[object]) -> bytes:
    """The pixels of a scan that is sent to the server. Raises RuntimeError for what the server tells."""
    with socket.create_connection(address) as connected:
        peer = Peer.on(connected, State.ITEMS)
        for message in (ConfigFile(chain), Header(header), *lines, Close()):
            peer.send(message)
        items = list(peer.items())
        peer.close()
    if said := [item for item in items if isinstance(item, str)]:
        raise RuntimeError("; ".join(said))
    return b"".join(np.asarray(item.data).tobytes() for item in items if isinstance(item, ismrmrd.Image))


def slope(memory: list[float]) -> float:
    """KiB that each scan adds, by a straight line."""
    return float(np.polyfit(np.arange(len(memory)), memory, 1)[0]) * 1024


def main() -> None:
    """Print the memory, and how it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--chain", default="cgsense")
    parser.add_argument("--matrix", type=int, default=64)
    args = parser.parse_args()
    header, blocks, _ = make_scan(
        Settings(matrix=args.matrix, coils=8, slices=2, acceleration=2, calibration=16, noise_lines=16)
    )
    lines = list(blocks)
    places = str(2 * args.at_once)  # a connection that ends may still hold its place when the next one comes
    with served("--connections", places, "--per-address", places) as (server, address):
        expected = reconstructed(address, args.chain, header, lines)
        for threads in (1, args.at_once):
            memory, right = [], 0
            with ThreadPoolExecutor(threads) as pool:
                work = [pool.submit(reconstructed, address, args.chain, header, lines) for _ in range(args.scans)]
                for done in work:
                    right += done.result() == expected
                    memory.append(resident(server.pid))
            kept = memory[len(memory) // 10 :]
            print(
                f"{args.scans} scans, {threads} at once: {right} right; {kept[0]:.0f} MiB after a tenth, "
                f"{kept[-1]:.0f} at the end, {max(kept):.0f} at most, {slope(kept):+.1f} KiB a scan",
                flush=True,
            )


if __name__ == "__main__":
    main()
