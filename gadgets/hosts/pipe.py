"""A stage of a pipeline of commands: a stream of ISMRMRD's tools or of MRD version 2 to another.

In: header, items, end. Out: the same header, what the chain gives, end; without the end if anything failed. The format
of the output is that of the input.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

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
from gadgets.speaker import IncompleteError
from gadgets.version2.streams import Version2, opened, written
from mrnets.apart import Output, require_apart
from mrnets.errors import InputError
from mrnets.files import whole
from mrnets.mrd.lines import Item
from mrnets.mrd.streams import MAGIC

__all__ = ["add_arguments", "carry", "convey", "convey_any", "run"]

_logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m gadgets pipe`; -i and -o as Tyger passes its pipes."""
    parser.add_argument("-i", "--input", metavar="IN", help="file or named pipe to read (default: stdin)")
    parser.add_argument("-o", "--output", metavar="OUT", help="file or named pipe to write (default: stdout)")
    parser.add_argument(
        "-c", "--config", default="reconstruct.xml", help="chain: a file or a shipped one's name (default %(default)s)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="GADGET.PROPERTY=VALUE", help="change a property")
    add_spool_options(parser)


def run(args: argparse.Namespace) -> int:
    """Send messages, and nothing else, to the output. Texts that libraries print go to stderr.

    Raises InputError, GadgetError and IncompleteError."""
    chain, spool = load(args.config, args.set), spool_of(args)
    if args.input is not None and args.output is not None:
        require_apart([Output("-o", Path(args.output))], [("the stream that is read", Path(args.input))])
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "wb") as stdout:
        os.dup2(2, 1)
        carry((args.input, args.output), stdout, chain, spool)
    return 0


def carry(ends: tuple[str | None, str | None], stdout: BinaryIO, chain: Chain, spool: Spool | None = None) -> None:
    """Send the stream in a file or named pipe (None: stdin) through the chain to another (None: `stdout`).

    A file is there only if all went well, or if the scan only lacks what its header announces. Raises InputError,
    GadgetError and IncompleteError."""
    source, target = ends
    lacking = None
    with _source(source) as coming, _sink(target, stdout) as out:
        try:
            convey_any(coming, out, chain, spool)
        except IncompleteError as error:
            lacking = error
    if lacking:
        raise lacking


def _source(path: str | None) -> Any:
    """A file that is read without a buffer."""
    if path is None:
        return os.fdopen(os.dup(0), "rb", 0)
    try:
        return open(path, "rb", 0)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error


def _sink(path: str | None, stdout: BinaryIO) -> AbstractContextManager[Any]:
    if path is None:
        return nullcontext(stdout)
    is_pipe = Path(path).exists() and stat.S_ISFIFO(os.stat(path).st_mode)
    return open(path, "wb") if is_pipe else whole(path)


def convey_any(source: Any, out: Any, chain: Chain, spool: Spool | None = None) -> None:
    """Send one stream of either format through the chain. Raises InputError and GadgetError.

    source: a file without a buffer."""
    start = b""
    while len(start) < len(MAGIC) and (more := source.read(len(MAGIC) - len(start))):
        start += more
    rest = _Rejoined(start, source)
    if start == MAGIC:
        if spool or spool_of_chain(chain):
            _logger.warning("the spool keeps no streams of MRD version 2")
        _convey_version_2(opened(io.BufferedReader(rest)), out, chain)
    else:
        convey(Peer(rest, out, State.PIPE), chain, spool)


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


def _convey_version_2(stream: Version2, out: Any, chain: Chain) -> None:
    items = reconstructed(chain, stream.items, stream.header, noise=Dependencies(default_store()))
    written(out, stream.own, _without_texts(items))


def _without_texts(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items but for texts, of which version 2 knows none; they are for the log."""
    for item in items:
        if isinstance(item, str):
            _logger.warning("%s", item)
        else:
            yield item


class _Rejoined(io.RawIOBase):
    """A stream of which the start was read already."""

    def __init__(self, start: bytes, rest: Any) -> None:
        self._start = start
        self._rest = rest

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._rest.fileno())

    def readinto(self, buffer: Any, /) -> int | None:
        if not self._start:
            return self._rest.readinto(buffer)
        count = min(len(self._start), len(memoryview(buffer)))
        memoryview(buffer)[:count] = self._start[:count]
        self._start = self._start[count:]
        return count
