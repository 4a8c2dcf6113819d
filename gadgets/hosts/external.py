"""Gadgets as an external process that a Gadgetron server starts: `<execute name="gadgets" target="pipeline" .../>`.

The server runs `python -m gadgetron PORT MODULE TARGET`. `main` is that program where this project is installed (see
`gadgets.hosts.takeover`). Else it is gadgetron-python's own, which reads configuration and header and calls `pipeline`.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from gadgets.chain import Chain
from gadgets.connection import Peer, PeerLostError, report, sentence
from gadgets.hosts.deferred import deferred, planned, quick_chain, results_in
from gadgets.hosts.dependencies import Dependencies
from gadgets.hosts.keeping import Keeper, keeping, spool_of_chain
from gadgets.hosts.library import load
from gadgets.hosts.log import name_gadgets
from gadgets.hosts.permission import permit
from gadgets.hosts.scan import reconstructed
from gadgets.hosts.storage import default_store
from gadgets.limits import PATIENT
from gadgets.messages import Close, ConfigText, Header
from gadgets.protocol import Audience, State
from mrnets.errors import InputError
from mrnets.mrd.lines import Item

if TYPE_CHECKING:
    import gadgetron.external

__all__ = ["execute", "main", "pipeline", "run"]

CONNECTING = 30.0
"""Seconds in which the server must take the connection."""

_logger = logging.getLogger(__name__)
_SOURCE = "<configuration> of the external node"


def pipeline(connection: gadgetron.external.Connection) -> None:
    """Run the gadgets that the node's <configuration> names."""
    execute(connection, "gadgets", "pipeline")


def run(connection: gadgetron.external.Connection, name: str) -> None:
    """Run the gadget `name`."""
    execute(connection, f"gadgets.{name}", name)


def execute(connection: gadgetron.external.Connection, module: str, target: str) -> None:
    """Run what a node executes, between the two directions of gadgetron-python's connection.

    On failure Gadgetron is told (ERROR), and the process exits with 1. gadgetron-python sends CLOSE when this returns.
    """
    peer, raw = Peer.of(connection), connection.raw_bytes
    try:
        with keeping(None) as keeper:
            done = _answer(peer, _items(peer, module, target, raw.config, raw.header, keeper), keeper)
    finally:
        peer.close()
    if not done:
        raise SystemExit(1)


def main(arguments: Sequence[str]) -> int:
    """Run what a node executes, from the connection to the server to its CLOSE. Whatever comes, CLOSE is sent.

    arguments: port, module, target. Returns the exit status: 0, or 1 after a failure, of which Gadgetron is told.
    """
    port, module, target = (*arguments, "", "", "")[:3]
    _log(module, target)
    try:
        connected = socket.create_connection(("localhost", int(port)), CONNECTING)
    except (OSError, ValueError, OverflowError) as error:
        _logger.error("Cannot connect to the Gadgetron server at localhost port %s: %s.", port, error)
        return 1
    with connected:
        peer = Peer.on(connected, State.START, PATIENT)
        with keeping(None) as keeper:
            done = _answer(peer, _conversation(peer, module, target, keeper), keeper)
            with suppress(PeerLostError):
                peer.send(Close())
                peer.settle()
        peer.close()
    return 0 if done else 1


def _log(module: str, target: str) -> None:
    """Log to stderr as gadgetron-python does, at the level that the server's environment names."""
    name = f"{module}.{target}" if target else module
    level = logging.getLevelName(os.environ.get("GADGETRON_EXTERNAL_LOG_LEVEL", "INFO"))
    logging.basicConfig(
        format=f"%(asctime)s %(levelname)s [ext. %(process)d {name.replace('%', '%%')}] %(message)s",
        level=level if isinstance(level, int) else logging.INFO,
    )


def _conversation(peer: Peer, module: str, target: str, keeper: Keeper) -> Iterator[Item]:
    """Yield what goes to the server. Its first two messages are read here: nothing can fail before they are."""
    configuration = peer.read()
    header = peer.read() if isinstance(configuration, ConfigText) else None
    if isinstance(configuration, ConfigText) and isinstance(header, Header):
        yield from _items(peer, module, target, configuration.text, header.text, keeper)
    elif Close not in (type(configuration), type(header)):
        raise InputError("The Gadgetron server did not send the configuration of the node and the ISMRMRD header.")


def _items(peer: Peer, module: str, target: str, configuration: bytes, header: bytes, keeper: Keeper) -> Iterator[Item]:
    chain = Chain.external(module, target, configuration, _SOURCE)
    keeper.spool = spool_of_chain(chain)
    keeper.begin(peer, (ConfigText(configuration), Header(header)), chain, planned(chain, header, None))
    noise, quick = Dependencies(default_store()), quick_chain(chain, keeper, None, load)
    items = peer.items()
    if chain.has("retrieve"):
        keeper.drop()
    if quick is None:
        yield from reconstructed(chain, items, header, noise=noise, results=results_in(keeper.spool))
    else:
        yield from deferred(keeper, chain, quick, lambda note: reconstructed(quick, items, header, (note,), noise))


def _answer(peer: Peer, items: Iterator[Item], keeper: Keeper) -> bool:
    """Send items, and return True; or on failure log and report it, and return False."""
    name_gadgets()
    try:
        permit()
        for item in items:
            if isinstance(item, str):  # Gadgetron takes no text from an external process
                _logger.info("%s", item)
            else:
                peer.send(item)
        peer.settle()
    except Exception as error:
        _logger.error("%s", sentence(error), exc_info=_logger.isEnabledFor(logging.DEBUG))
        with suppress(PeerLostError):
            report(peer, error, Audience.GADGETRON)
        keeper.end(error)
        return False
    return True
