"""The sides of a chain: each runs in a thread of its own, ahead of the next one.

Lines are read, whitened and sorted while the network computes, and images are made and sent while it computes the next.
On a processor the coil maps of the next slices are made at the same time, too.
A gadget stays a plain generator. Order, errors and what is said of the scan are those of a chain in one thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gadgets.frame import Frame
from gadgets.speaker import Said, Speech
from mrnets.mrd.lines import Item

__all__ = ["Ahead", "together"]

MAX_BYTES = 256 << 20
"""Frames that wait for the next side, the one in its hands included. Larger frames are made one at a time."""
LAST_READ = 2.0
"""Seconds in which a source may end what it reads, when no more is wanted. A file needs milliseconds. A silent peer
could need for ever."""


class _StoppedError(BaseException):
    """Nobody takes any items any more. No gadget catches it."""


@dataclass(frozen=True)
class _Made:
    item: Any
    said: Said
    """All that was said until the item was made."""
    size: int
    """Bytes."""


class Ahead:
    """The items of one side for the next: an iterator that a thread fills, from `start` on.

    maker, taker: what is said on the side that makes the items, and on the one that takes them."""

    def __init__(self, items: Iterator[Item], maker: Speech, taker: Speech) -> None:
        self._items, self._maker, self._taker = items, maker, taker
        self._made: deque[_Made] = deque()
        self._taken = 0
        """Bytes of the item that the next side works on."""
        self._end: tuple[BaseException | None, Said] | None = None
        """How the items ended, and what was said until then."""
        self._stopped = False
        self._alone = False
        """Whether there is no thread."""
        self._changed = threading.Condition()
        name = threading.current_thread().name  # the log of a server names the connection by it
        self._thread = threading.Thread(target=self._fill, name=name, daemon=True)

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        """Return the next item in order. Raises what making it raised. A frame knows how many others have come."""
        if self._alone:
            return self._made_now()
        with self._changed:
            self._taken = 0
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._made or self._end or self._stopped)
            if self._stopped:
                raise _StoppedError
            if not self._made:
                raise self._ended()
            made = self._made.popleft()
            self._taken, behind = made.size, self._frames_waiting()
        self._taker.hear(made.said)
        return replace(made.item, behind=behind) if isinstance(made.item, Frame) else made.item

    def start(self) -> None:
        """Begin to make items. Where the system has no more threads, they are made as they are taken."""
        try:
            self._thread.start()
        except RuntimeError:
            self._alone = True

    def stop(self) -> None:
        """Make no more items. An item that is being made is not waited for."""
        with self._changed:
            self._stopped = True
            self._made.clear()
            self._changed.notify_all()

    def join(self, seconds: float | None = None) -> None:
        """Wait until the thread has ended, if it has begun and is not this one. seconds: at most so long."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def _made_now(self) -> Item:
        try:
            return next(self._items)
        finally:
            self._taker.hear(self._maker.said())

    def _ended(self) -> BaseException:
        assert self._end is not None
        error, said = self._end
        self._taker.hear(said)
        return StopIteration() if error is None else error

    def _frames_waiting(self) -> int:
        """Return how many frames come next, before any other item."""
        others = (n for n, made in enumerate(self._made) if not isinstance(made.item, Frame))
        return next(others, len(self._made))

    def _fill(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._items:
                if not self._put(_Made(item, self._maker.said(), item.nbytes if isinstance(item, Frame) else 0)):
                    break
        except BaseException as caught:  # noqa: BLE001 it is raised on the next side
            error = caught
        finally:
            close: Callable[[], None] | None = getattr(self._items, "close", None)
            if close is not None:
                close()
            with self._changed:
                self._end = (error, self._maker.said())
                self._changed.notify_all()

    def _put(self, made: _Made) -> bool:
        """Hand an item over, and wait while too much waits. Returns whether more items are wanted."""
        with self._changed:
            self._made.append(made)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._stopped or self._waiting() <= MAX_BYTES)
            return not self._stopped

    def _waiting(self) -> int:
        return self._taken + sum(made.size for made in self._made)


def together(sides: Sequence[Ahead], items: Iterator[Item]) -> Iterator[Item]:
    """Yield `items` of the last side, while the sides before it run.

    At the end, or at an error, all sides are stopped. The first may wait for its source: the others have ended then.
    It is waited for, too, for `LAST_READ`. A process that ends while a thread reads HDF5 can wait for ever for that
    library's lock."""
    try:
        for side in sides:
            side.start()
        yield from items
    finally:
        for side in sides:
            side.stop()
        for number, side in enumerate(sides):
            side.join(None if number else LAST_READ)
