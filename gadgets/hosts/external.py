"""Gadgets as an external process that a Gadgetron server starts: `<execute name="gadgets" target="pipeline" .../>`."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import gadgetron.external

from gadgets.chain import Chain
from gadgets.connection import Peer, report, sentence
from gadgets.hosts.log import name_gadgets
from gadgets.protocol import Audience
from mrnets.mrd.header import read_header
from mrnets.mrd.lines import Item

__all__ = ["pipeline", "run"]

_logger = logging.getLogger(__name__)
_SOURCE = "<configuration> of the external node"


def pipeline(connection: gadgetron.external.Connection) -> None:
    """Run the gadgets that the node's <configuration> names."""
    run(connection, None)


def run(connection: gadgetron.external.Connection, name: str | None) -> None:
    """Run the gadget `name`, or if None those that the <configuration> names, between the connection's two directions.

    On failure Gadgetron is told (ERROR), and the process exits with 1. gadgetron-python sends CLOSE when this returns.
    """
    name_gadgets()
    peer = Peer.of(connection)
    try:
        for item in _items(peer, connection, name):
            if isinstance(item, str):  # Gadgetron takes no text from an external process
                _logger.info("%s", item)
            else:
                peer.send(item)
        peer.settle()
    except Exception as error:
        _logger.error("%s", sentence(error), exc_info=_logger.isEnabledFor(logging.DEBUG))
        report(peer, error, Audience.GADGETRON)
        raise SystemExit(1) from error
    finally:
        peer.close()


def _items(peer: Peer, connection: gadgetron.external.Connection, name: str | None) -> Iterator[Item]:
    text = connection.raw_bytes.config
    chain = Chain.parse(text, _SOURCE) if name is None else Chain.single(name, text, _SOURCE)
    return chain.run(peer.items(), read_header(connection.raw_bytes.header).header)
