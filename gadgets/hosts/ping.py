"""Ask a running server whether it answers; for Docker's HEALTHCHECK and for people."""

from __future__ import annotations

import argparse
import socket

from gadgets.connection import Peer
from gadgets.limits import Limits
from gadgets.messages import Close, Query, Response
from gadgets.protocol import State
from mrnets.errors import InputError

__all__ = ["add_arguments", "ping", "run"]

_KEY = "gadgetron::info"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m gadgets ping`."""
    parser.add_argument("-p", "--port", type=int, default=9002, help="TCP port (default 9002)")
    parser.add_argument("--host", default="localhost", help="where the server is (default localhost)")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds to wait (default 5)")


def run(args: argparse.Namespace) -> int:
    """Print what the server says of itself. Raises InputError if it does not answer."""
    print(ping(args.host, args.port, args.timeout))
    return 0


def ping(host: str, port: int, timeout: float) -> str:
    """Return what the server says of itself. Raises InputError if it does not answer in `timeout` seconds."""
    try:
        with socket.create_connection((host, port), timeout) as connected:
            peer = Peer.on(connected, State.ITEMS, Limits(silence=timeout, unread=timeout))
            try:
                peer.send(Query(1, _KEY))
                peer.send(Close())
                answer = peer.read()
            finally:
                peer.close()
    except (OSError, OverflowError, InputError) as error:
        raise InputError(f"No server answers at {host} port {port}: {error}") from error
    if not isinstance(answer, Response):
        came = answer if isinstance(answer, str) else type(answer).__name__
        raise InputError(f"The server at {host} port {port} does not answer a query; it says: {came}")
    return answer.text
