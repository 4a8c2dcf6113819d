"""Clients of the hosts, in this process and in others, and the processes that they talk to."""

import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import gadgetron.external

import gadgets
from gadgets.connection import Peer
from gadgets.hosts import conversation
from gadgets.hosts.rules import Rules
from gadgets.protocol import State
from tests.gadgets.toys import blob, stage

ROOT = Path(__file__).parents[2]
STAGES = (stage("noise"), stage("toy", scale=2))
WITH_TOYS = "import sys, tests.gadgets.toys; "
SERVE = WITH_TOYS + "from gadgets.__main__ import main; sys.exit(main(sys.argv[1:]))"


class Client:
    """The other side of a connection, with nothing of ours but the encoding of messages."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(60)
        self.socket, self.peer = connected, Peer.on(connected, State.ITEMS)

    def send(self, *messages) -> None:
        self.socket.sendall(blob(messages))

    def receive(self) -> list:
        """Messages up to CLOSE or the end of the stream, with acquisitions as Lines."""
        return list(self.peer.items())


@contextmanager
def served(rules: Rules):
    """A client of the resident server's code, in this process."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=conversation.handle, args=(theirs, rules))
    thread.start()
    with ours:
        client = Client(ours)
        yield client
        client.peer.close()
    thread.join(60)
    assert not thread.is_alive()


@contextmanager
def started(*code: str, target: tuple[str, str] = ("gadgets", "pipeline"), **variables: str):
    """A fake Gadgetron server and the external process that it starts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        command = [sys.executable, *code, str(listener.getsockname()[1]), *target]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GADGETRON_EXTERNAL_LOG_LEVEL": "ERROR", **variables}
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, env=environment)
        try:
            connected, _ = listener.accept()
            with connected:
                client = Client(connected)
                yield process, client
                client.peer.close()
        finally:
            process.kill()
            process.communicate()


@contextmanager
def attached(target=gadgets.pipeline):
    """A fake Gadgetron server, and the target called in a thread as a process would: exit status, client."""
    ours, theirs = socket.socketpair()
    status = []

    def external():
        with gadgetron.external.Connection(theirs) as connection:
            try:
                target(connection)
            except SystemExit as stop:
                status.append(stop.code)

    thread = threading.Thread(target=external)
    thread.start()
    with ours:
        client = Client(ours)
        yield status, client
        client.peer.close()
    thread.join(60)
    assert not thread.is_alive()


def texts(messages: list) -> list[str]:
    return [message for message in messages if isinstance(message, str)]


def iter_until(lines, word: str) -> str:
    return next(line for line in lines if word in line)
