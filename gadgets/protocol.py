"""The order of the messages in a stream, without any I/O: one table of states."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import ismrmrd

from gadgets.messages import Bucket, Close, ConfigFile, ConfigText, Error, Header, Message, Query
from gadgets.wire import Source, read_message
from mrnets.errors import InputError
from mrnets.mrd.lines import Item, Line, coalesce

__all__ = ["Audience", "Incoming", "State"]


class State(Enum):
    """The next messages that a stream's sender may send; the value says them in words."""

    START = "a configuration"
    CONFIGURED = "the ISMRMRD header"
    PIPE = "the ISMRMRD header in a pipe"
    """A stream on stdin. Its configuration, which some tools send, is that of another command, and is skipped."""
    ITEMS = "acquisitions and other items"
    CLOSED = "nothing"
    LOST = "bytes that cannot be understood"


_NEXT: dict[State, dict[type, State]] = {
    State.START: {ConfigFile: State.CONFIGURED, ConfigText: State.CONFIGURED, Close: State.CLOSED},
    State.CONFIGURED: {Header: State.ITEMS, Close: State.CLOSED},
    State.PIPE: {ConfigFile: State.PIPE, ConfigText: State.PIPE, Header: State.ITEMS, Close: State.CLOSED},
    State.ITEMS: {Close: State.CLOSED},
}
"""The state that each message leads to. In no state may other messages of these types come."""
_CONTROL = (ConfigFile, ConfigText, Header, Close)
_ANYWHERE = (Query, str)


def _following(state: State, message: Message) -> State:
    """Return the state after `message`. Raises InputError where it must not come."""
    kind = type(message)
    if kind in _NEXT[state]:
        return _NEXT[state][kind]
    if kind in _CONTROL or not (state is State.ITEMS or kind in _ANYWHERE):
        again = "A second" if state is State.ITEMS else "A"
        raise InputError(f"{again} {kind.__name__} message came where {state.value} must come.")
    return state


@dataclass
class Incoming:
    """The messages of a peer, one by one."""

    source: Source
    state: State
    most: float = math.inf
    """Bytes of one message."""
    _come: int = 0
    _drained: bool = False
    _turn: threading.Lock = field(default_factory=threading.Lock)
    """Held while an item is read: one thread may read items when another one drains the stream."""

    def read(self) -> Message | None:
        """Return the next message, or None at the end of the stream.

        Raises InputError for a message that is not allowed here, and for a stream of items that ends without CLOSE.
        Raises it also for a message that cannot be decoded; the state is LOST from then on."""
        message = self._next()
        if message is not None:
            self.state = _following(self.state, message)
            return message
        before, self.state = self.state, State.CLOSED
        if before is State.ITEMS:
            raise InputError("The stream ended without a CLOSE message; what came may be incomplete.")
        return None

    def items(self) -> Iterator[Item]:
        """Yield the items up to CLOSE, acquisitions as Lines. Raises InputError as `read` does."""
        return coalesce(self._items())

    def drain(self) -> None:
        """Read to CLOSE, to the end of the stream, or to where it cannot be understood, whatever comes.

        A thread that reads items gets no more of them."""
        self._drained = True
        with self._turn:
            while self.state not in (State.CLOSED, State.LOST):
                try:
                    if isinstance(self._next(), Close | None):
                        self.state = State.CLOSED
                except InputError:
                    return

    def readinto(self, buffer: Any, /) -> int | None:
        """Read some bytes of the message. Raises InputError for a message that is too large."""
        got = self.source.readinto(buffer)
        self._come += got or 0
        if self._come > self.most:
            raise InputError(f"The stream holds a message of more than {self.most:g} bytes.")
        return got

    def _next(self) -> Message | None:
        self._come = 0
        try:
            return read_message(self)
        except InputError:
            self.state = State.LOST
            raise

    def _items(self) -> Iterator[Line | Item]:
        while self.state is State.ITEMS:
            with self._turn:
                if self._drained:
                    return
                message = self.read()
            if isinstance(message, Bucket):
                yield from _unpack(message)
            elif not isinstance(message, Close):
                yield message


def _unpack(bucket: Bucket) -> Iterator[Line | Item]:
    """Yield waveforms, then lines that are for calibration alone, then the others: every line once."""
    yield from bucket.waveforms
    imaging = {bytes(line.raw) for line in bucket.data}
    yield from (line for line in bucket.calibration if bytes(line.raw) not in imaging)
    yield from bucket.data


class Audience(Enum):
    """Who reads what is sent. Gadgetron takes an ERROR and no text from an external process; clients the reverse.

    Clients take no waveforms: at a message that it does not know, gadgetron_ismrmrd_client aborts, and what follows is
    lost. Chains that run in Gadgetron have no writer for waveforms, so that clients get none there either."""

    GADGETRON = auto()
    CLIENT = auto()

    def failure(self, sentence: str) -> Message:
        """Return the message that says why there will be no more; for a client as Gadgetron words it."""
        return Error(sentence) if self is Audience.GADGETRON else f"[gadgets] ERROR: {sentence}"

    def takes(self, item: Message) -> bool:
        """Return whether it can read the item."""
        return not isinstance(item, str if self is Audience.GADGETRON else ismrmrd.Waveform)
