"""`python -m gadgets queue`: the scans in a spool, and what became of each."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from gadgets.hosts.deferred import place_in_queue
from gadgets.hosts.spool import Entry, entries, held
from gadgets.speaker import printable
from mrnets.errors import InputError

__all__ = ["add_arguments", "run", "told"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m gadgets queue`."""
    parser.add_argument("spool", type=Path, help="the folder that --spool of a host names")


def run(args: argparse.Namespace) -> int:
    """Print a line for each scan in a spool, the oldest first. Raises InputError for a folder that cannot be read."""
    for line in told(args.spool):
        print(line)
    return 0


def told(folder: Path) -> Iterator[str]:
    """Yield a line for each scan: name, MiB, state, chain, measurement ID, and a reason. Raises InputError."""
    for entry in entries(folder):
        try:
            record = entry.record()
            words = (_state(entry, deferred=record.deferred), record.chain, record.measurement, record.reason)
        except InputError as error:
            words = ("damaged", "", "", str(error))
        state, chain, measurement, reason = words
        facts = [f"{entry.size / 2**20:.1f} MiB", state, chain, measurement and f"measurement {measurement}", reason]
        yield printable(f"{entry.name}: {', '.join(filter(None, facts))}")


def _state(entry: Entry, *, deferred: bool) -> str:
    """Return the state of an entry in words. A lock says that somebody works on it."""
    if entry.state == "queued":
        return place_in_queue(entry)
    if entry.state == "coming":
        with held(entry) as free:
            return "was cut off" if free else "is coming"
    if entry.state == "done" and deferred:
        return "its images are there"
    return "done" if entry.state == "done" else "failed"
