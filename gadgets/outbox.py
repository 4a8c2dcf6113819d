"""A socket's sending end with a queue and a thread of its own."""

from __future__ import annotations

import math
import select
import socket
import threading
from collections import deque

from gadgets.limits import Limits

__all__ = ["Outbox"]


class Outbox:
    """A bounded queue of bytes to send.

    A peer that sends a whole scan before it reads an image must not stop us from reading: both sides would wait for
    ever. So a thread sends, and `write` waits only while the queue is full. A peer that takes no byte for
    `limits.unread` seconds is a failure, which the next call raises. Where the system has no more threads, `write`
    itself sends."""

    def __init__(self, connected: socket.socket, limits: Limits) -> None:
        self._connected, self._limits = connected, limits
        self._parts: deque[bytes] = deque()
        self._waiting = 0
        """Bytes in the queue, and those on their way."""
        self._ended = False
        self._failure: OSError | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._send_all, name="outbox", daemon=True)

    def write(self, part: bytes, /) -> None:
        """Take `part`, to be sent when the peer takes it; wait while the queue is full. Raises OSError."""
        if not self._started():
            self._send(memoryview(part))
            return
        with self._changed:
            self._changed.wait_for(lambda: self._failure or self._fits(part))
            self._check()
            self._parts.append(part)
            self._waiting += len(part)
            self._changed.notify_all()

    def flush(self) -> None:
        """Nothing: the thread sends all the time; see `settle`."""

    def settle(self) -> None:
        """Wait until all is sent. Raises OSError if it cannot be."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure or not self._waiting)
            self._check()

    def close(self) -> None:
        """Settle, and end the thread. Raises OSError."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        self._check()

    def _started(self) -> bool:
        """Whether the thread runs."""
        with self._changed:
            try:
                if self._thread.ident is None:
                    self._thread.start()
            except RuntimeError:
                return False
            return True

    def _fits(self, part: bytes) -> bool:
        return not self._waiting or self._waiting + len(part) <= self._limits.queue

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _send_all(self) -> None:
        while (part := self._next()) is not None:
            try:
                self._send(memoryview(part))
            except OSError as error:
                with self._changed:
                    self._failure = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._waiting -= len(part)
                self._changed.notify_all()

    def _next(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._parts or self._ended)
            return self._parts.popleft() if self._parts else None

    def _send(self, part: memoryview) -> None:
        """Send `part`. Raises TimeoutError if the peer takes nothing of it for too long, and OSError."""
        poll = select.poll()
        poll.register(self._connected, select.POLLOUT)
        patience = None if self._limits.unread == math.inf else self._limits.unread * 1000
        while part:
            if not poll.poll(patience):
                raise TimeoutError(f"it took no byte for {self._limits.unread:g} s")
            try:
                part = part[self._connected.send(part, socket.MSG_DONTWAIT) :]
            except BlockingIOError:  # another thread's bytes came first
                continue
