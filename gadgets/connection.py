"""A peer on the wire, made safe.

gadgetron-python's Connection loops for ever at the end of a stream. It treats an unknown message as the end, and an
exception ends like a normal scan. Here each of them is an error that is sent to the peer.
"""

from __future__ import annotations

import io
import logging
import math
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from gadgets.failures import told
from gadgets.limits import PATIENT, USUAL, Limits
from gadgets.messages import Message
from gadgets.outbox import Outbox
from gadgets.protocol import Audience, Incoming, State
from gadgets.serialise import encode
from gadgets.speaker import printable
from gadgets.wire import Source
from mrnets.errors import InputError
from mrnets.mrd.lines import Item

if TYPE_CHECKING:
    import gadgetron.external

__all__ = ["Peer", "PeerLostError", "Sink", "report", "sentence"]

IDLE = 2.0
"""Seconds without a byte after which a peer whose stream cannot be understood is taken to have sent all of it."""
DRAINING = 60.0
"""Seconds after which no more is read of a stream that cannot be understood."""
MAX_SENTENCE = 2000
"""Characters."""
MAX_READS = 1024
"""Times that bytes are read which a peer has sent after its CLOSE."""

_logger = logging.getLogger(__name__)


class PeerLostError(InputError):
    """The peer is gone: there is nobody to tell."""


class Sink(Protocol):
    """Where bytes go."""

    def write(self, part: bytes, /) -> Any:
        """Take all of `part`."""

    def flush(self) -> None:
        """Send what was taken."""


class Inlet(Protocol):
    """Where a peer's bytes come from, with a limit of time: a socket, or what stands in front of it."""

    def settimeout(self, value: float | None, /) -> None:
        """Set the seconds to wait for a byte; None: for ever."""

    def recv(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end. Raises OSError."""


class Detour(Inlet, Source, Protocol):
    """A source between a connection and its reader that keeps the stream on the way."""

    def close(self) -> None:
        """End it."""


@contextmanager
def _lost(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PeerLostError(f"The peer vanished while it was {what} ({error}).") from error


@dataclass
class Peer:
    """Both directions of a stream: a socket's, or a pipe's two ends."""

    source: Source
    sink: Sink
    state: InitVar[State]
    """The state of the peer at first."""
    connected: socket.socket | None = None
    limits: Limits = USUAL
    clock: Callable[[], float] = time.monotonic
    incoming: Incoming = field(init=False)
    kept: str = ""
    """The file in which the stream is kept, if it is."""

    def __post_init__(self, state: State) -> None:
        self._inlet: Inlet | None = self.connected
        self._detour: Detour | None = None
        self._patience = math.nan
        """The limit of time that the inlet has, in s."""
        self.incoming = Incoming(self, state, self.limits.message)
        self._begun = self.clock()

    @classmethod
    def on(
        cls,
        connected: socket.socket,
        state: State = State.START,
        limits: Limits = USUAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> Peer:
        """Return a peer on a connected socket, which stays the caller's to close."""
        if connected.family in (socket.AF_INET, socket.AF_INET6):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return cls(connected.makefile("rb", 0), Outbox(connected, limits), state, connected, limits, clock)

    @classmethod
    def of(cls, connection: gadgetron.external.Connection) -> Peer:
        """Return the peer of gadgetron-python's connection, which has read configuration and header, and sends CLOSE.

        A Gadgetron server waits as long as its scanner does, so there are no limits of time."""
        return cls.on(connection.socket.socket, State.ITEMS, PATIENT)

    def read_ahead(self) -> None:
        """Read more than is asked for, from now on. It makes small reads fast."""
        if isinstance(self.source, io.RawIOBase):
            self.source = io.BufferedReader(self.source)

    def fileno(self) -> int:
        """Return the descriptor of the source, which must be a file or a socket."""
        return int(self.source.fileno())  # type: ignore[attr-defined]

    def divert(self, detour: Detour, kept: str) -> None:
        """Read from `detour` from now on. It has taken over the source, which must not have read ahead.

        kept: the file in which it keeps the stream. `close` closes it."""
        self._detour, self.kept, self._patience = detour, kept, math.nan
        self._inlet = None if self._inlet is None else detour

    def readinto(self, buffer: Any, /) -> int | None:
        """Read some bytes. Raises InputError if none come in time, and PeerLostError if the connection breaks."""
        starting = self.incoming.state in (State.START, State.CONFIGURED)
        allowed = self._begun + self.limits.start - self.clock() if starting else self.limits.silence
        with _lost("sending"):
            try:
                if allowed <= 0:
                    raise TimeoutError
                if self._inlet is not None and allowed != self._patience:
                    self._inlet.settimeout(None if allowed == math.inf else allowed)
                    self._patience = allowed
                return (self._detour or self.source).readinto(buffer)
            except TimeoutError:
                late = f"did not send its ISMRMRD header within {self.limits.start:g} s"
                silent = f"sent no byte for {self.limits.silence:g} s"
                raise InputError(f"The peer {late if starting else silent}.") from None

    def read(self) -> Message | None:
        """Return the next message, or None at the end of the stream. Raises InputError as `Incoming.read` does."""
        return self.incoming.read()

    def items(self) -> Iterator[Item]:
        """Yield the items up to CLOSE, acquisitions as Lines. Raises InputError as `Incoming.read` does."""
        return self.incoming.items()

    def send(self, message: Message) -> None:
        """Send a message or an item. Raises PeerLostError, and InputError for what no message carries."""
        try:
            whole = b"".join(encode(message))  # a copy: memory of lines is used again while this waits to be sent
        except TypeError as error:
            raise InputError(f"The chain's last gadget gives what cannot be sent: {error}.") from error
        with _lost("sent to"):
            self.sink.write(whole)
            self.sink.flush()

    def settle(self) -> None:
        """Wait until all that was sent has left. Raises PeerLostError if it cannot."""
        if isinstance(self.sink, Outbox):
            with _lost("sent to"):
                self.sink.settle()

    def drain(self) -> None:
        """Read all that the peer still sends, to CLOSE, or until nothing comes any more. Raises PeerLostError.

        Unread bytes would reset the connection and destroy what was sent before."""
        self.incoming.drain()
        if self.incoming.state is not State.LOST or self._inlet is None:
            return
        end = self.clock() + DRAINING
        self._inlet.settimeout(IDLE)
        with _lost("sending"), suppress(TimeoutError):
            while self.clock() < end and self._inlet.recv(1 << 20):
                pass

    def close(self) -> None:
        """Close the files on the socket, not the socket. Bytes that could not be sent are dropped.

        A thread that still reads gets the end of the stream. Bytes that the peer sent after its CLOSE are read before:
        unread bytes would reset the connection."""
        if self.connected is not None:
            with suppress(OSError):
                self.connected.shutdown(socket.SHUT_RD)
        for end in (self._detour, self.sink, self.source):
            try:
                if end is not None:
                    end.close()  # type: ignore[union-attr]
            except OSError as error:
                _logger.debug("closing: %s", error)
        if self.connected is not None:
            with suppress(OSError):
                _emptied(self.connected)


def _emptied(connected: socket.socket) -> None:
    """Read what has come, and wait for nothing."""
    patience = connected.gettimeout()
    connected.setblocking(False)
    try:
        for _ in range(MAX_READS):
            if not connected.recv(1 << 16):
                return
    finally:
        connected.settimeout(patience)


def report(peer: Peer, error: Exception, audience: Audience) -> None:
    """Tell the peer why there will be no more, unless it is gone, and drain its stream. The caller sends CLOSE.

    A client is told at once. Gadgetron's connection process can crash when it is told while it is still sending."""
    if isinstance(error, PeerLostError):
        return
    text = sentence(error)
    failure = audience.failure(f"{text.rstrip('.')}; the scan is kept as {peer.kept}" if peer.kept else text)
    if audience is Audience.CLIENT:
        peer.send(failure)
        peer.drain()
    else:
        peer.drain()
        peer.send(failure)


def sentence(error: BaseException) -> str:
    """Return an error in one sentence, which is fit to be sent: short, and on one line."""
    return printable(told(error)[:MAX_SENTENCE])
