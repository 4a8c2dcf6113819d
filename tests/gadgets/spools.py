"""Scans in a spool, and a server that keeps them."""

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from gadgets.chain import Chain
from gadgets.hosts.recording import open_recording
from gadgets.hosts.scan import reconstructed
from gadgets.hosts.spool import Record, Spool, create, entries, mark
from tests.gadgets.clients import ROOT, SERVE
from tests.gadgets.toys import blob


def made_again(entry) -> list:
    """The items that the stream of an entry gives by its chain, without texts."""
    with open_recording(entry.stream) as source:
        made = reconstructed(Chain.parse(entry.chain.read_bytes()), source.items, source.header, source.notes)
        return [item for item in made if not isinstance(item, str)]


def replayed(entry) -> bytes:
    """The bytes of these items."""
    return blob(made_again(entry))


def only(kept: Spool):
    (entry,) = entries(kept.folder)
    return entry


def eventually(true) -> bool:
    """Whether something becomes true within five minutes: other work may leave a machine little time for a test."""
    end = time.monotonic() + 300
    pause = threading.Event()
    while not true() and time.monotonic() < end:
        pause.wait(0.02)
    return true()


def filled(kept: Spool, state, size: int = 1000):
    """An entry of that size, which nobody works on."""
    entry, number = create(kept, bytes(size), b"", Record())
    os.close(number)
    mark(entry, state, Record())
    return entry


def names(kept: Spool) -> list[str]:
    return [entry.name for entry in entries(kept.folder)]


@contextmanager
def server(place: Path, folder: Path, *options: str):
    """A resident server in a process of its own, and its port."""
    command = [sys.executable, "-c", SERVE, "serve", "-p", "0", "--chains", str(place), "--spool", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, *options], cwd=ROOT, stderr=subprocess.PIPE, env=environment, text=True)
    try:
        line = ""
        while "listening" not in line:
            line = process.stderr.readline()
            assert line, "the server did not start"
        yield process, int(line.rsplit(maxsplit=1)[-1])
    finally:
        process.kill()
        process.communicate()
