"""A resident server: networks stay loaded between scans, and several connections run at once.

It serves Gadgetron's `<connect>` (a node's <configuration>, header, items) and ordinary ISMRMRD clients (the name or
the text of a whole chain, header, items). A peer that fails or vanishes hurts nobody but itself.
"""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType

from gadgets.chain import Chain, is_whole
from gadgets.connection import Peer, PeerLostError, report, sentence
from gadgets.hosts.library import folder, shipped
from gadgets.limits import USUAL, Limits
from gadgets.messages import Close, ConfigFile, ConfigText, Header, Message, Query, Response
from gadgets.protocol import Audience
from mrnets.errors import InputError
from mrnets.mrd.header import read_header
from mrnets.mrd.lines import Item

__all__ = ["add_arguments", "answer", "handle", "listen", "run", "serve"]

LONGEST_TEXT = 1000
"""Characters of a client's text that go into the log."""

_logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m gadgets serve`."""
    parser.add_argument("-p", "--port", type=int, default=9002, help="TCP port (default 9002; 0: any that is free)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine only)"
    )
    parser.add_argument(
        "--chains", type=Path, help="folder of the chains that clients can name (default: those shipped)"
    )
    parser.add_argument("--connections", type=int, default=16, help="at most so many at once (default 16); others wait")


def run(args: argparse.Namespace) -> int:
    """Listen until SIGTERM or ctrl-C; then finish the connections that are open. A second signal ends at once."""
    place = args.chains or folder()
    if not place.is_dir():
        raise InputError(f"There is no folder of chains {place}.")
    with listen(args.host, args.port) as listener:
        address, port = listener.getsockname()[:2]
        signal.signal(signal.SIGTERM, _interrupt)
        print(f"gadgets serve: listening on {address} port {port}", file=sys.stderr, flush=True)
        open_now: set[threading.Thread] = set()
        try:
            serve(listener, place, args.connections, open_now)
        except KeyboardInterrupt:
            listener.close()
            remaining = [thread for thread in open_now.copy() if thread.is_alive()]
            print(f"gadgets serve: finishing {len(remaining)} connections", file=sys.stderr, flush=True)
            for thread in remaining:
                thread.join()
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises InputError if the address cannot be had."""
    if not 0 <= port <= 65535:
        raise InputError(f"Cannot listen on port {port}: ports go from 0 to 65535.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise InputError(f"Cannot listen on {host} port {port}: {error}.") from error


def serve(listener: socket.socket, place: Path, most: int, open_now: set[threading.Thread]) -> None:
    """Accept connections for ever, each in its own thread, at most so many at once; `open_now` holds the threads."""
    places = threading.BoundedSemaphore(most)
    number = 0

    def work(connected: socket.socket, name: str) -> None:
        try:
            handle(connected, place, name)
        finally:
            open_now.discard(threading.current_thread())
            places.release()

    while True:
        places.acquire()
        try:
            connected, address = _accepted(listener)
        except BaseException:
            places.release()
            raise
        number += 1
        name = f"connection {number} from {address[0]}"
        thread = threading.Thread(target=work, args=(connected, name), name=name, daemon=True)
        open_now.add(thread)
        thread.start()


def _accepted(listener: socket.socket) -> tuple[socket.socket, tuple[str, int]]:
    """The next connection. Looks up now and then: a signal may come in on another thread, which wakes no accept."""
    listener.settimeout(0.25)
    while True:
        try:
            return listener.accept()
        except TimeoutError:
            continue


def handle(connected: socket.socket, place: Path, name: str = "connection", limits: Limits = USUAL) -> None:
    """Serve one connection to its end. Whatever happens is logged and told to the peer; nothing is raised."""
    with connected:
        peer = Peer.on(connected, limits=limits)
        try:
            _logger.info("%s: %s", name, _converse(peer, place))
        except Exception as error:
            _logger.error("%s: %s", name, sentence(error), exc_info=_logger.isEnabledFor(logging.DEBUG))
        finally:
            peer.close()


def _converse(peer: Peer, place: Path) -> str:
    """Configuration, header, items, CLOSE. Returns what was done; failures are told to the peer and raised."""
    audience = Audience.CLIENT
    count = 0
    try:
        configuration = _expect(peer)
        if configuration is None:
            peer.send(Close())
            return "closed without a configuration"
        if isinstance(configuration, ConfigText) and not is_whole(configuration.text):
            audience = Audience.GADGETRON
        chain = _chain(configuration, place)
        header = _expect(peer)
        for item in _items(peer, chain, header) if header else ():
            if isinstance(item, Query):
                item = Response(item.number, answer(item.key))
            elif isinstance(item, str) and audience is Audience.GADGETRON:  # it takes no text from an external process
                _logger.info("%s", item)
                continue
            peer.send(item)
            count += 1
    except PeerLostError:
        raise
    except Exception as error:
        report(peer, error, audience)
        peer.send(Close())
        raise
    peer.send(Close())
    peer.settle()
    return f"{chain.source}, {count} items sent"


def _items(peer: Peer, chain: Chain, header: Header) -> Iterator[Item]:
    reading = read_header(header.text)
    return chain.run(_without_texts(peer.items()), reading.header, reading.warnings)


def _without_texts(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items but for texts, which are for the log, as they are under Gadgetron."""
    for item in items:
        if isinstance(item, str):
            _logger.info("the client says: %s", item[:LONGEST_TEXT])
        else:
            yield item


def _chain(configuration: ConfigFile | ConfigText, place: Path) -> Chain:
    if isinstance(configuration, ConfigFile):
        return Chain.parse(*shipped(configuration.name, place))
    return Chain.parse(configuration.text, "configuration")


def _expect(peer: Peer) -> Message | None:
    """Return the next message, with queries before it answered and texts before it left out; None for the end."""
    while True:
        message = peer.read()
        if isinstance(message, Query):
            peer.send(Response(message.number, answer(message.key)))
        elif not isinstance(message, str):
            return None if isinstance(message, Close) else message


def answer(key: str) -> str:
    """What a query's key is answered with; empty for unknown keys."""
    try:
        number = version("gadgetron-networks")
    except PackageNotFoundError:  # run from a checkout
        number = "unknown"
    answers = {"gadgetron::version": number, "gadgetron::info": f"gadgetron-networks {number}"}
    return answers.get(key, "")
