"""A stage of a pipeline of commands: stdin to stdout in the streaming format of the ISMRMRD tools.

In: HEADER, items, CLOSE. Out: the same HEADER, what the chain gives, CLOSE; without the CLOSE if anything failed.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from contextlib import closing

from gadgets.chain import Chain
from gadgets.connection import Peer
from gadgets.hosts.dependencies import Dependencies
from gadgets.hosts.keeping import add_spool_options, keeping, spool_of, spool_of_chain
from gadgets.hosts.library import load
from gadgets.hosts.recording import header_of
from gadgets.hosts.scan import reconstructed
from gadgets.hosts.spool import Record, Spool
from gadgets.hosts.storage import default_store
from gadgets.messages import Close
from gadgets.protocol import State

__all__ = ["add_arguments", "run"]

_logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m gadgets pipe`."""
    parser.add_argument("-c", "--config", default="reconstruct.xml", help="chain: a file, or the name of a shipped one")
    parser.add_argument("--set", action="append", default=[], metavar="GADGET.PROPERTY=VALUE", help="change a property")
    add_spool_options(parser)


def run(args: argparse.Namespace) -> int:
    """Send messages, and nothing else, to stdout. What libraries print goes to stderr."""
    chain, spool = load(args.config, args.set), spool_of(args)
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "wb") as out, os.fdopen(os.dup(0), "rb", 0) as source:
        os.dup2(2, 1)
        with closing(Peer(source, out, State.PIPE)) as peer:
            convey(peer, chain, spool)
    return 0


def convey(peer: Peer, chain: Chain, spool: Spool | None = None) -> None:
    """Send one stream through the chain. Raises InputError and GadgetError; CLOSE is sent only if all went well."""
    message = header_of(peer.incoming, "The stream on stdin")
    with keeping(spool or spool_of_chain(chain)) as keeper:
        keeper.begin(peer, (message,), chain, Record(chain.source))
        peer.send(message)
        try:
            for item in reconstructed(chain, peer.items(), message.text, noise=Dependencies(default_store())):
                peer.send(item)
        except Exception:
            if peer.kept:
                _logger.warning("the scan is kept as %s", peer.kept)
            raise
        peer.send(Close())
