"""One connection of the resident server, from its configuration to its CLOSE."""

from __future__ import annotations

import itertools
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

from gadgets.chain import is_whole
from gadgets.connection import Peer, PeerLostError, report, sentence
from gadgets.hosts.deferred import deferred, planned, quick_chain, results_in
from gadgets.hosts.dependencies import Dependencies, asked_noise, noise_summary
from gadgets.hosts.ending import ends_without_device
from gadgets.hosts.keeping import Keeper, keeping
from gadgets.hosts.parameters import Order, order_of, parameters_in, with_parameters
from gadgets.hosts.recording import with_header
from gadgets.hosts.rules import Rules, chain_of
from gadgets.hosts.scan import reconstructed
from gadgets.messages import Close, ConfigFile, ConfigText, Id, Message, Query, Response
from gadgets.protocol import Audience
from gadgets.serialise import encode
from gadgets.wire import read_message
from mrnets import __version__
from mrnets.errors import InputError
from mrnets.mrd.lines import Item

__all__ = ["answer", "greeted", "handle", "refuse"]

LONGEST_TEXT = 1000
"""Characters of a client's text that go into the log."""

REFUSING = 1.0
"""Seconds in which a peer that is refused must take a byte, or send one."""

_logger = logging.getLogger(__name__)


def handle(connected: socket.socket, rules: Rules) -> None:
    """Serve one connection to its end. Whatever happens is logged and told to the peer; nothing is raised.

    Where the scan fails since its CUDA device is lost, the process gets SIGTERM."""
    with connected:
        peer = Peer.on(connected, limits=rules.limits)
        try:
            with keeping(rules.spool) as keeper:
                _logger.info("%s", _converse(peer, rules, keeper))
        except Exception as error:
            _logger.error("%s", sentence(error), exc_info=_logger.isEnabledFor(logging.DEBUG))
            ends_without_device()
        finally:
            peer.close()


def refuse(connected: socket.socket, reason: str, patience: float = 0.0) -> None:
    """Tell a peer in one sentence that it is not served, and close its connection.

    patience: seconds in which what it sends is read all the same. Unread bytes reset the connection, and the sentence
    may be lost."""
    with connected, suppress(OSError):
        connected.settimeout(REFUSING)
        connected.sendall(_encoded(Audience.CLIENT.failure(reason), Close()))
        connected.shutdown(socket.SHUT_WR)
        end = time.monotonic() + patience
        while time.monotonic() < end and connected.recv(1 << 20):
            pass


def greeted(connected: socket.socket, seconds: float) -> bool:
    """Answer the questions that come first, and return whether something else follows, of which nothing is read.

    seconds: for all of it. Raises InputError where they are over, and for what is no message; and OSError."""
    end = time.monotonic() + seconds
    with connected.makefile("rb", 0) as source:
        try:
            while True:
                connected.settimeout(max(end - time.monotonic(), 0.001))
                first = connected.recv(1, socket.MSG_PEEK)
                if not first or first[0] not in (Id.QUERY, Id.CLOSE):
                    return bool(first)
                message = read_message(source)
                if not isinstance(message, Query):
                    connected.sendall(_encoded(Close()))
                    return False
                connected.sendall(_encoded(Response(message.number, answer(message.key))))
        except TimeoutError:
            raise InputError(f"The peer did not send its ISMRMRD header within {seconds:g} s.") from None


def _encoded(*messages: Message) -> bytes:
    return b"".join(part for message in messages for part in encode(message))


def _converse(peer: Peer, rules: Rules, keeper: Keeper) -> str:
    """Return what was done: configuration, header, items, CLOSE. Failures are told to the peer and raised."""
    audience = Audience.CLIENT
    count = 0
    try:
        configuration = _expect(peer)
        if configuration is None:
            peer.send(Close())
            return "closed without a configuration"
        if isinstance(configuration, ConfigText) and (asked := asked_noise(configuration.text)) is not None:
            return _tell_noise(peer, asked, rules)
        if isinstance(configuration, ConfigText) and not is_whole(configuration.text):
            audience = Audience.GADGETRON
        order = order_of(configuration, rules)
        header = _expect(peer)
        if header is None and audience is Audience.CLIENT:  # Gadgetron runs a chain without input so
            raise InputError("The stream ended before the ISMRMRD header came; there are no images.")
        if header is not None:
            if "spool" in order.chain.options:
                _logger.warning("the property spool of a client means nothing here; serve --spool names the folder")
            record = planned(order.chain, header.text, rules.defer)
            keeper.begin(peer, (configuration, header), order.chain.noted(order.warnings), record)
        for item in _stream(peer, order, header.text, rules, keeper) if header else ():
            if isinstance(item, Query):
                item = Response(item.number, answer(item.key))
            elif not audience.takes(item):
                if isinstance(item, str):
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
    return f"{count} items sent"


def _tell_noise(peer: Peer, measurement: str, rules: Rules) -> str:
    """Answer the question for the noise of a scan, and return what was done.

    The client that asks ends with an abort, and so before its scan, if it gets a text instead."""
    peer.send(noise_summary(rules.noise, measurement))
    peer.drain()
    peer.send(Close())
    peer.settle()
    return "told what is known of the noise of another scan"


def _stream(peer: Peer, order: Order, header: bytes, rules: Rules, keeper: Keeper) -> Iterator[Item]:
    """Return what a client gets of its scan. It may send parameters before the first item."""
    first, items = _peeked(peer.items())
    parameters = parameters_in(first) if isinstance(first, str) else None
    if parameters is not None:
        order = with_parameters(order, parameters, rules)
        keeper.replan(order.chain.noted(order.warnings), planned(order.chain, header, rules.defer))
        next(items)
    header, items, notes = with_header(header, items)
    warnings = (*order.warnings, *notes)
    for warning in warnings:
        _logger.warning("%s", warning)
    noise = Dependencies(rules.noise)
    chain, items = order.chain, _without_texts(items)
    quick = quick_chain(chain, keeper, rules.defer, lambda name: chain_of(ConfigFile(name), rules))
    if chain.has("retrieve"):
        keeper.drop()
    if quick is None:
        return reconstructed(chain, items, header, warnings, noise, results=results_in(rules.spool))

    def quickly(note: str) -> Iterator[Item]:
        return reconstructed(quick, items, header, (*warnings, note), noise)

    return deferred(keeper, chain, quick, quickly)


def _peeked(items: Iterator[Item]) -> tuple[Item | None, Iterator[Item]]:
    """Return the first item, if there is one, and all of the items."""
    first = next(items, None)
    return first, items if first is None else itertools.chain([first], items)


def _without_texts(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items but for texts, which are for the log, as they are under Gadgetron."""
    for item in items:
        if isinstance(item, str):
            _logger.info("the client says: %s", item[:LONGEST_TEXT])
        else:
            yield item


def _expect(peer: Peer) -> Message | None:
    """Return the next message, with queries before it answered and texts before it left out; None for the end."""
    while True:
        message = peer.read()
        if isinstance(message, Query):
            peer.send(Response(message.number, answer(message.key)))
        elif not isinstance(message, str):
            return None if isinstance(message, Close) else message


def answer(key: str) -> str:
    """Return the answer to a query's key; for unknown keys that of Gadgetron."""
    answers = {"gadgetron::version": __version__, "gadgetron::info": f"gadgetron-networks {__version__}"}
    return answers.get(key, "Unknown query")
