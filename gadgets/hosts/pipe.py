"""A stage of a pipeline of commands: stdin to stdout in the streaming format of the ISMRMRD tools.

In: HEADER, items, CLOSE. Out: the same HEADER, what the chain gives, CLOSE; without the CLOSE if anything failed.
"""

from __future__ import annotations

import argparse
import os
import sys

from gadgets.chain import Chain
from gadgets.connection import Peer
from gadgets.hosts.dependencies import Dependencies
from gadgets.hosts.library import load
from gadgets.hosts.recording import header_of
from gadgets.hosts.scan import reconstructed
from gadgets.hosts.storage import default_store
from gadgets.messages import Close
from gadgets.protocol import State

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m gadgets pipe`."""
    parser.add_argument("-c", "--config", default="reconstruct.xml", help="chain: a file, or the name of a shipped one")
    parser.add_argument("--set", action="append", default=[], metavar="GADGET.PROPERTY=VALUE", help="change a property")


def run(args: argparse.Namespace) -> int:
    """Send messages, and nothing else, to stdout. What libraries print goes to stderr."""
    chain = load(args.config, args.set)
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "wb") as out, os.fdopen(os.dup(0), "rb") as source:
        os.dup2(2, 1)
        convey(Peer(source, out, State.PIPE), chain)
    return 0


def convey(peer: Peer, chain: Chain) -> None:
    """Send one stream through the chain. Raises InputError and GadgetError; CLOSE is sent only if all went well."""
    message = header_of(peer.incoming, "The stream on stdin")
    peer.send(message)
    for item in reconstructed(chain, peer.items(), message.text, noise=Dependencies(default_store())):
        peer.send(item)
    peer.send(Close())
