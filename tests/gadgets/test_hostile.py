"""Sixteen hostile clients of each kind are connected while honest scans go on: every honest scan is right."""

import errno
import os
import socket
import struct
import threading
from contextlib import ExitStack, contextmanager, suppress

import pytest

from gadgets.chain import Chain
from gadgets.hosts import serve as module
from gadgets.hosts.doors import Doors, listen
from gadgets.hosts.rules import Rules
from gadgets.limits import Limits
from gadgets.messages import Close, ConfigFile, ConfigText, Header, Query
from mrnets.mrd.header import read_header
from tests.gadgets import toys
from tests.gadgets.clients import Client
from tests.gadgets.test_doors import Stopping
from tests.gadgets.toys import blob, chain, configuration, for_clients, stage

TOY = stage("noise"), stage("toy", scale=2)
GADGETRON = ConfigText(configuration(*TOY).encode())
HUGE = struct.pack("<HHQI3H", 1, 8, 0, 0, 65535, 65535, 65535).ljust(198, b"\1") + bytes(8)


def weights(name: str) -> ConfigText:
    return ConfigText(chain(stage("sort"), stage("network", weights=name), stage("images")).encode())


HOSTILE = {
    "says nothing": b"",
    "stops in a configuration": blob([GADGETRON])[:9],
    "stops before the header": blob([GADGETRON]),
    "stops in a line": blob([GADGETRON, Header(toys.HEADER), *toys.scan()])[:-99],
    "says nothing after the header": blob([GADGETRON, Header(toys.HEADER)]),
    "sends noise": b"\xff\x13" * 50_000,
    "asks and never reads": blob([GADGETRON, Header(toys.HEADER), *[Query(1, "gadgetron::info")] * 20_000]),
    "sends a huge message": blob([GADGETRON, Header(toys.HEADER)]) + struct.pack("<H", 1022) + HUGE,
    "names a device": blob([weights("/dev/tty"), Header(toys.HEADER), Close()]),
    "names a pipe": blob([weights("pipe"), Header(toys.HEADER), Close()]),
    "sends many elements": blob([ConfigText(b"<configuration>" + b"<a/>" * 200_000 + b"</configuration>"), Close()]),
    "wants a large network": blob(
        [ConfigText(chain(stage("sort"), stage("network", name="unet", options="channels=100000")).encode()), Close()]
    ),
}


@contextmanager
def served(rules: Rules, doors: Doors):
    """The address of a server in this process."""
    listener, stop = listen("127.0.0.1", 0), threading.Event()

    def serve():
        with suppress(OSError):
            module.serve(Stopping(listener, stop), rules, doors)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        stop.set()
        thread.join(20)
        listener.close()
        doors.finish(20)


def connected(address, own: str) -> socket.socket:
    made = socket.socket()
    try:
        made.bind((own, 0))
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRNOTAVAIL:
            pytest.skip("the loopback interface has one address only")
        raise
    made.settimeout(60)
    made.connect(address)
    return made


@pytest.mark.parametrize("kind", HOSTILE)
def test_every_honest_scan_is_right(tmp_path, kind):
    (tmp_path / "toy.xml").write_text(chain(*TOY))
    (tmp_path / "weights").mkdir()
    os.mkfifo(tmp_path / "weights" / "pipe.safetensors")
    limits = Limits(start=60.0, silence=60.0, unread=60.0, queue=1 << 20, message=1 << 24)
    made = Chain.parse(configuration(*TOY)).run(iter(toys.scan()), read_header(toys.HEADER).header)
    expected = blob(for_clients(made))
    rules, doors = Rules(tmp_path, weights=tmp_path / "weights", limits=limits), Doors(20, 8)
    with served(rules, doors) as address, ExitStack() as hostile:
        for n in range(16):
            client = hostile.enter_context(connected(address, f"127.0.1.{n // 8}"))
            client.setblocking(False)
            with suppress(BlockingIOError):  # what does not fit stays unsent: nobody reads
                client.send(HOSTILE[kind])
        for _ in range(2):
            with connected(address, "127.0.0.1") as ours:
                honest = Client(ours)
                honest.send(ConfigFile("toy"), Header(toys.HEADER), *toys.scan(), Close())
                assert blob(honest.receive()) == expected
                honest.peer.close()
