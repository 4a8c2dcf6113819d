"""Servers that are killed lose nothing that they had received."""

import socket
from pathlib import Path

import numpy as np
import pytest

from gadgets.hosts.rules import Rules
from gadgets.hosts.spool import discard, entries, held, opened
from gadgets.messages import Close, ConfigFile, Header
from tests.gadgets import toys
from tests.gadgets.clients import served
from tests.gadgets.spools import eventually, made_again, server
from tests.gadgets.toys import blob, for_clients


def kill_at_random(place: Path, folder: Path, rng: np.random.Generator) -> None:
    """Kill a server at a random moment of a scan. What it had received is on the disk, and gives the same bytes."""
    stream = blob([ConfigFile("toy.xml"), Header(toys.HEADER), *toys.scan(), toys.lines(300), Close()])
    head = len(blob([ConfigFile("toy.xml"), Header(toys.HEADER)]))
    count = len(stream) if rng.random() < 0.4 else int(rng.integers(head, len(stream)))
    settled = rng.random() < 0.8
    with server(place, folder) as (process, port), socket.create_connection(("127.0.0.1", port)) as connected:
        connected.sendall(stream[:count])
        if settled:
            assert eventually(lambda: [entry.stream.stat().st_size for entry in entries(folder)] == [count])
        process.kill()
        process.wait(60)
    found = entries(folder)
    for entry in found:
        came = entry.stream.read_bytes()
        assert came == stream[: len(came)]
        assert len(came) == count or not settled
        if came == stream:
            assert blob(for_clients(made_again(entry))) == whole(place, stream)
        with held(entry) as mine:  # nobody works on it any more
            assert mine
        assert discard(entry)
    assert found or not settled


def whole(place: Path, stream: bytes) -> bytes:
    """Return the answer of a server without a spool to the stream."""
    with served(Rules(place)) as client:
        client.socket.sendall(stream)
        return blob(client.receive())


@pytest.mark.parametrize("times", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_a_server_that_is_killed_leaves_every_byte_that_it_had_received(place, tmp_path, times):
    rng = np.random.default_rng(times)
    opened(tmp_path / "spool")
    for _ in range(times):
        kill_at_random(place, tmp_path / "spool", rng)
