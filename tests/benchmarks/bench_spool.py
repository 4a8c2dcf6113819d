"""Receiving a scan with and without a spool, side by side.

    python tests/benchmarks/bench_spool.py [--mebibytes 64] [--coils 32] [--repetitions 3] [--work read sort]
        [--folder FOLDER]

Another process sends a 2-D multi-slice scan through a local socket. "read" makes Lines of the messages and nothing
else, "sort" k-space, and "zerofilled" images, by the cheapest chain that ships. With and without a spool are measured
in turn, and the best of the repetitions counts: by the clock, and in processor time of all threads.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench_stream import HEADER, ROWS, SAMPLES, slices

from gadgets.connection import Peer
from gadgets.hosts.keeping import keeping
from gadgets.hosts.library import load
from gadgets.hosts.spool import Record, Spool
from gadgets.messages import Close, Header
from gadgets.protocol import State
from gadgets.serialise import encode
from gadgets.sort import sort
from mrnets.mrd.header import read_header
from mrnets.mrd.lines import Item

WORK = ("read", "sort", "zerofilled")
ZEROFILLED = load("zerofilled.xml", ["network.device=cpu"])


def send(connected: socket.socket, count: int, coils: int) -> None:
    """Send a scan, and wait until the receiver is done."""
    messages = [b"".join(encode(item)) for item in slices(count, coils)]
    connected.recv(1)  # the receiver is ready
    for message in messages:
        connected.sendall(message)
    connected.sendall(b"".join(encode(Close())))
    connected.recv(1)


def received(work: str, spool: Spool | None, count: int, coils: int) -> tuple[float, float]:
    """Return the seconds from the first byte to the end of the scan, by the clock and of the processor."""
    ours, theirs = socket.socketpair()
    sender = multiprocessing.get_context("fork").Process(target=send, args=(theirs, count, coils))
    sender.start()
    with ours, theirs:
        peer = Peer.on(ours, State.ITEMS)
        with keeping(spool) as keeper:
            start, before = time.perf_counter(), time.process_time()
            keeper.begin(peer, (Header(HEADER.encode()),), ZEROFILLED, Record())
            peer.send("go")
            for _ in made(work, peer.items()):
                pass
            seconds, used = time.perf_counter() - start, time.process_time() - before
        peer.close()
    sender.join()
    return seconds, used


def made(work: str, items: Iterator[Item]) -> Iterator[Item]:
    """Return what the work makes of the items."""
    header = read_header(HEADER).header
    return {"read": items, "sort": sort(items, header), "zerofilled": ZEROFILLED.run(items, header)}[work]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=64)
    parser.add_argument("--coils", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--work", nargs="+", choices=WORK, default=WORK, help="what is measured (default: all)")
    parser.add_argument("--folder", help="where the spool is made (default: the system's temporary folder)")
    args = parser.parse_args()
    count = max(1, (args.mebibytes << 20) // (ROWS * args.coils * SAMPLES * 8))
    size = count * ROWS * args.coils * SAMPLES * 8 / 2**20
    print(f"{count} slices of {ROWS} lines, {args.coils} coils of {SAMPLES} samples: {size:.0f} MiB")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        spool = Spool(Path(folder), size=4 * size * 2**20 + 2**28)
        for work in args.work:
            times: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
            for _ in range(args.repetitions):
                for kept in times:
                    times[kept].append(received(work, spool if kept else None, count, args.coils))
            for n, clock in enumerate(("clock", "processor")):
                without, kept_too = (size / min(one[n] for one in times[kept]) for kept in (False, True))
                cost = 100 * (1 - kept_too / without)
                figures = f"without {without:6.0f} MiB/s   spool {kept_too:6.0f} MiB/s   cost {cost:5.1f} %"
                print(f"{work:11s}{clock:10s}{figures}")


if __name__ == "__main__":
    main()
