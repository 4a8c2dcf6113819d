"""A peer on the wire, made safe: gadgetron-python's Connection loops for ever at the end of a stream, takes an unknown
message for the end, and lets an exception look like a normal end. Here each of them is an error that the peer is told.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import gadgetron.external

from gadgets.lines import Item, Line, coalesce
from gadgets.messages import Message
from gadgets.serialise import encode
from gadgets.stream import GadgetError
from gadgets.wire import Source, discard, read_message, read_messages
from mrnets.errors import InputError

__all__ = ["Outbox", "Peer", "PeerLostError", "Sink", "report", "sentence"]

IDLE = 2.0
"""Seconds without a byte after which a peer whose stream cannot be understood is taken to have sent all of it."""

_logger = logging.getLogger(__name__)


class PeerLostError(InputError):
    """The peer is gone: there is nobody to tell."""


class Sink(Protocol):
    """Where bytes go."""

    def write(self, part: bytes, /) -> Any:
        """Take all of `part`."""

    def flush(self) -> None:
        """Send what was taken."""


class Outbox:
    """A socket's sending end with a thread of its own: a peer that sends a whole scan before it reads an image must not
    stop us from reading, else both sides would wait for ever. A failure to send is raised by what is called next."""

    def __init__(self, connected: socket.socket) -> None:
        self._connected = connected
        self._parts: queue.Queue[bytes | None] = queue.Queue()
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._send, name="outbox", daemon=True)

    def write(self, part: bytes, /) -> None:
        """Take `part`, to be sent when the peer takes it. Raises OSError."""
        self._check()
        if self._thread.ident is None:
            self._thread.start()
        self._parts.put(part)

    def flush(self) -> None:
        """Nothing: the thread sends all the time; see `settle`."""

    def settle(self) -> None:
        """Wait until all is sent. Raises OSError if it cannot be."""
        self._parts.join()
        self._check()

    def close(self) -> None:
        """Settle, and end the thread."""
        if self._thread.ident is not None:
            self._parts.put(None)
            self._thread.join()
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _send(self) -> None:
        while (part := self._parts.get()) is not None:
            try:
                if self._failure is None:
                    self._connected.sendall(part)
            except OSError as error:
                self._failure = error
            finally:
                self._parts.task_done()


@dataclass
class Peer:
    """Both directions of a stream: a socket's, or a pipe's two ends."""

    source: Source
    sink: Sink
    connected: socket.socket | None = None
    closed: bool = field(default=False, init=False)
    """Whether the peer has sent all that it will."""

    @classmethod
    def on(cls, connected: socket.socket) -> Peer:
        """A peer on a connected socket, which stays the caller's to close."""
        if connected.family in (socket.AF_INET, socket.AF_INET6):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return cls(connected.makefile("rb"), Outbox(connected), connected)

    @classmethod
    def of(cls, connection: gadgetron.external.Connection) -> Peer:
        """The peer of gadgetron-python's connection, which has read configuration and header and sends the CLOSE."""
        return cls.on(connection.socket.socket)

    def readinto(self, buffer: Any, /) -> int | None:
        """Read from the source. Raises PeerLostError if the connection breaks."""
        try:
            return self.source.readinto(buffer)
        except OSError as error:
            raise PeerLostError(f"The peer vanished while it was sending ({error}).") from error

    def read(self) -> Message | None:
        """The next message; None at the end of the stream. Raises InputError."""
        return read_message(self)

    def items(self) -> Iterator[Item]:
        """The items up to CLOSE, acquisitions as Lines. Raises InputError if the stream ends before."""
        return coalesce(self._messages())

    def _messages(self) -> Iterator[Line | Item]:
        yield from read_messages(self)
        self.closed = True  # before the last run of lines is given out: there is nothing left to drain

    def send(self, message: Message) -> None:
        """Send a message or an item. Raises PeerLostError, and InputError for what no message carries."""
        try:
            whole = b"".join(encode(message))  # a copy: memory of lines is used again while this waits to be sent
        except TypeError as error:
            raise InputError(f"The chain's last gadget gives what cannot be sent: {error}.") from error
        try:
            self.sink.write(whole)
            self.sink.flush()
        except OSError as error:
            raise PeerLostError(f"The peer vanished while it was sent to ({error}).") from error

    def settle(self) -> None:
        """Wait until all that was sent has left. Raises PeerLostError if it cannot."""
        if isinstance(self.sink, Outbox):
            try:
                self.sink.settle()
            except OSError as error:
                raise PeerLostError(f"The peer vanished while it was sent to ({error}).") from error

    def drain(self) -> None:
        """Read all that the peer still sends, to CLOSE. What is not understood is read until nothing comes any more:
        leaving it unread would reset the connection and destroy what was sent before."""
        if self.closed:
            return
        self.closed = True
        try:
            discard(self)
        except PeerLostError:
            raise
        except InputError:
            self._drain_bytes()

    def _drain_bytes(self) -> None:
        if self.connected is None:
            return
        self.connected.settimeout(IDLE)
        try:
            while self.connected.recv(1 << 20):
                pass
        except TimeoutError:
            pass
        except OSError as error:
            raise PeerLostError(f"The peer vanished while it was sending ({error}).") from error
        finally:
            self.connected.settimeout(None)

    def close(self) -> None:
        """Close the files on the socket, not the socket. What could not be sent is dropped."""
        for end in (self.sink, self.source):
            try:
                end.close()  # type: ignore[union-attr]
            except OSError as error:
                _logger.debug("closing: %s", error)


def report(peer: Peer, error: Exception, tell: Callable[[str], Message]) -> None:
    """Tell the peer why there will be no more, unless it is gone: first drain its stream, then send `tell(sentence)`.

    (Gadgetron's connection process can crash when it is told while it is still sending.) The caller sends CLOSE."""
    if not isinstance(error, PeerLostError):
        peer.drain()
        peer.send(tell(sentence(error)))


def sentence(error: BaseException) -> str:
    """One sentence on one line for people."""
    text = " ".join(str(error).split())
    return text if isinstance(error, (InputError, GadgetError)) else f"{type(error).__name__}: {text or 'no message'}"
