"""How connections come in and are let go: places for them in all and of each address, and files that run out."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mrnets.errors import InputError

__all__ = ["Doors", "accepted", "listen"]

LOOK = 0.25
"""Seconds between looks for a signal, which wakes no accept when it comes in on another thread."""
WAITING = 64
"""Connections without a place: they wait for one, or have not said yet what they want."""
CROWD = 16
"""Those among them of addresses with too many connections."""
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_GONE = (errno.ECONNABORTED, errno.EPROTO, errno.EPERM)

_logger = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises InputError if the address cannot be had."""
    if not 0 <= port <= 65535:
        raise InputError(f"Cannot listen on port {port}: ports go from 0 to 65535.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise InputError(f"Cannot listen on {host} port {port}: {error}.") from error


class Spare:
    """A file descriptor in hand: with it a connection is refused when there are no more."""

    def __init__(self) -> None:
        self._held: int | None = None
        self.take()

    def take(self) -> None:
        """Hold a descriptor, if there is one."""
        with suppress(OSError):
            self._held = os.open(os.devnull, os.O_RDONLY)

    def give(self) -> None:
        """Let the descriptor go."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


def accepted(listener: socket.socket, spare: Spare) -> tuple[socket.socket, str]:
    """Return the next connection and its address. Raises OSError if the listener itself fails.

    Where files run out, a connection is refused, and the server lives on."""
    listener.settimeout(LOOK)
    while True:
        try:
            connected, address = listener.accept()
            return connected, str(address[0])
        except TimeoutError:
            continue
        except OSError as error:
            if error.errno not in (*_SCARCE, *_GONE):
                raise
            _logger.error("a connection was refused: %s", error.strerror)
            if error.errno in _SCARCE:
                _refuse_one(listener, spare)


def _refuse_one(listener: socket.socket, spare: Spare) -> None:
    """Take the next connection from the queue and close it. Otherwise accept would fail on it again and again."""
    spare.give()
    with suppress(OSError), listener.accept()[0]:
        pass
    spare.take()


class Doors:
    """Connections that are open, each with its thread: so many in all and of one address.

    Scans have places, and wait for them. A question needs none, so that a full server still answers health checks."""

    def __init__(self, most: int, most_of_one: int, waiting: int = WAITING) -> None:
        self.most_of_one = most_of_one
        self._room = threading.BoundedSemaphore(most + waiting)
        self._places = threading.BoundedSemaphore(most)
        self._ending = False
        self._lock = threading.Lock()
        self._of: Counter[str] = Counter()
        self._open: dict[threading.Thread, socket.socket] = {}

    def wait(self) -> None:
        """Wait until one more connection may be open."""
        self._room.acquire()

    def release(self) -> None:
        """Give back what `wait` gave, where no connection has it."""
        self._room.release()

    @contextmanager
    def place(self) -> Iterator[bool]:
        """Wait for a place, and have it while the block lasts. False: the server ends, and begins no more scans."""
        with self._places:
            yield not self._ending

    def enter(self, connected: socket.socket, address: str, work: Callable[[], None], name: str) -> bool:
        """Run `work` in a thread of that name, after `wait`. False if the address has too many connections."""
        return self._enter(connected, address, self.most_of_one, work, name)

    def hear(self, connected: socket.socket, work: Callable[[], None], name: str) -> bool:
        """Do as `enter` does for a connection that its address may not have. False if there are too many of them."""
        return self._enter(connected, "", CROWD, work, name)

    def _enter(self, connected: socket.socket, address: str, most: int, work: Callable[[], None], name: str) -> bool:
        with self._lock:
            if self._of[address] >= most:
                return False
            thread = threading.Thread(target=self._run, args=(work, address), name=name, daemon=True)
            self._of[address] += 1
            self._open[thread] = connected
        try:
            thread.start()
        except RuntimeError as error:  # no more threads
            self._leave(thread, address)
            raise OSError(errno.EAGAIN, str(error)) from error
        return True

    def finish(self, grace: float, clock: Callable[[], float] = time.monotonic) -> int:
        """Wait for the open connections, `grace` seconds in all; then shut the rest. Returns how many were shut."""
        self._ending = True
        end = clock() + grace
        for thread in list(self._open):
            thread.join(max(end - clock(), 0.0))
        with self._lock:
            rest = list(self._open.items())
        for _, connected in rest:
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
        for thread, _ in rest:
            thread.join(LOOK)
        return len(rest)

    def __len__(self) -> int:
        return len(self._open)

    def _run(self, work: Callable[[], None], address: str) -> None:
        try:
            work()
        finally:
            self._leave(threading.current_thread(), address)
            self._room.release()

    def _leave(self, thread: threading.Thread, address: str) -> None:
        with self._lock:
            self._open.pop(thread, None)
            self._of[address] -= 1
            if not self._of[address]:
                del self._of[address]
