"""How a host keeps the scan of a connection in its spool while it comes."""

from __future__ import annotations

import argparse
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from gadgets.chain import Chain
from gadgets.connection import Peer, PeerLostError, sentence
from gadgets.hosts.spool import (
    AGE,
    SIZE,
    STEP,
    STEPS,
    Entry,
    Record,
    Spool,
    create,
    delete,
    drafted,
    make_room,
    mark,
    opened,
)
from gadgets.hosts.spool import State as Stage
from gadgets.hosts.tap import Recorder, Tap
from gadgets.messages import Message
from gadgets.protocol import State
from gadgets.serialise import encode
from mrnets.errors import InputError

__all__ = ["Keeper", "add_spool_options", "keeping", "spool_of", "spool_of_chain"]

MAX_REASON = 1000
"""Characters of a reason in a record."""

_logger = logging.getLogger(__name__)


@dataclass
class Keeper:
    """The entry of one scan, from its header to the end of its connection."""

    spool: Spool | None
    """None: nothing is kept."""
    entry: Entry | None = None
    """None: the scan is not kept, or not any more."""
    record: Record = field(default_factory=Record)
    head: bytes = b""
    """Configuration and header as they stand in the stream."""
    _peer: Peer | None = None
    _tap: Tap | None = None
    _descriptor: int | None = None
    _ended: bool = False
    _room: int = 0
    """Bytes for which room was made."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """The entry goes in the tap's thread when the disk is full."""

    def begin(self, peer: Peer, head: tuple[Message, ...], chain: Chain, record: Record) -> None:
        """Keep what comes from the peer from now on. The peer must not have read ahead.

        head: the messages that came before. A spool that fails is one warning."""
        if self.spool is None:
            peer.read_ahead()
            return
        self._peer, self.record = peer, record
        try:
            self.head = b"".join(part for message in head for part in encode(message))
            self._make_room(len(self.head))
            self.entry, self._descriptor = create(self.spool, self.head, chain.xml(), record)
            recorder = Recorder(self._descriptor, self.entry.stream, self._make_room, self._failed)
            self._tap = Tap(peer.fileno(), recorder)
            with self._lock:  # its thread may drop the scan at once
                self._tap.start()
                peer.divert(self._tap, recorder.path.name)
        except (OSError, InputError) as error:
            self._failed(error)
            peer.read_ahead()
            return
        _logger.info("the scan is kept as %s", recorder.path)

    def replan(self, chain: Chain, record: Record) -> None:
        """Keep this chain and this record instead of those before."""
        self.record = record
        with self._lock:
            if self.entry is not None:
                with suppress(OSError), drafted(self.entry.chain) as file:
                    file.write(chain.xml())
        self.mark("coming", self.record)

    def end(self, error: Exception | None) -> None:
        """Note how the reconstruction ended: well, or with an error. The first call counts.

        A deferred scan that has come whole is queued, however its quick series ended."""
        if self._ended:
            return
        self._ended = True
        if isinstance(error, PeerLostError) and self._peer is not None and self.entry is not None:
            self._peer.incoming.drain()  # it may have sent all of the scan before it was lost
        if self.record.deferred and self._peer is not None and self._peer.incoming.state is State.CLOSED:
            self.mark("queued", self.record)
        elif error is None:
            self.mark("done", self.record)
        else:
            self.mark("failed", replace(self.record, reason=sentence(error)[:MAX_REASON]))

    def drop(self) -> None:
        """Keep the scan no longer."""
        with self._lock:
            entry, self.entry = self.entry, None
            if self._peer is not None:
                self._peer.kept = ""
            if entry is not None:
                with suppress(OSError):
                    delete(entry)

    def mark(self, state: Stage, record: Record) -> None:
        """Set the state of the entry, if the scan is kept."""
        with self._lock:
            if self.entry is None:
                return
            try:
                mark(self.entry, state, record)
            except OSError as failure:
                _logger.warning("%s has no record of how it ended: %s", self.entry.stream, failure.strerror)

    def release(self) -> None:
        """Let the source and the lock go. Nothing more is kept."""
        if self._tap is not None:
            self._tap.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _make_room(self, size: int) -> None:
        if self.spool is not None and size > self._room:
            step = max(size - self._room, min(STEP, int(self.spool.size / STEPS)))
            make_room(self.spool, step)
            self._room += step

    def _failed(self, error: OSError | InputError) -> None:
        _logger.warning("the scan is not kept in the spool: %s", getattr(error, "strerror", None) or error)
        self.drop()


@contextmanager
def keeping(spool: Spool | None) -> Iterator[Keeper]:
    """The keeper of one connection. How the block ends is noted; exceptions pass."""
    keeper = Keeper(spool)
    try:
        yield keeper
        keeper.end(None)
    except Exception as error:
        keeper.end(error)
        raise
    finally:
        keeper.release()


def add_spool_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of hosts that can keep what comes."""
    add = parser.add_argument
    add("--spool", type=Path, metavar="FOLDER", help="keep each scan there as it comes, for replay (default: nowhere)")
    add("--spool-size", type=float, default=SIZE, help="GiB for the spool; the oldest scans go (default %(default)g)")
    add("--spool-age", type=float, default=AGE, help="days for which scans stay there (default %(default)g)")


def spool_of(args: argparse.Namespace) -> Spool | None:
    """Return the spool that the options name, if they do. Raises InputError as `opened` does."""
    return None if args.spool is None else opened(args.spool, args.spool_size, args.spool_age)


def spool_of_chain(chain: Chain) -> Spool | None:
    """Return the spool that the properties of a pipeline name, if they do. One that cannot be had is a warning."""
    folder = chain.options.get("spool", "").strip()
    if not folder:
        return None
    try:
        bounds = [float(chain.options.get(name, usual)) for name, usual in (("spool_size", SIZE), ("spool_age", AGE))]
        return opened(Path(folder), *bounds)
    except (InputError, ValueError) as error:
        _logger.warning("the scan is not kept in a spool: %s", error)
        return None
