"""A stream that goes through a file: a thread writes what comes, and the decoder reads the file behind it.

Bytes are in the file before anything is made of them. A sender is never held up by a slow reconstruction. The file is
the only buffer, so memory stays bounded. If the file cannot be written, the stream goes on without it.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Recorder", "Tap"]

CHUNK = 1 << 20
"""Bytes that are read at once."""


@dataclass(frozen=True)
class Recorder:
    """The file that a stream goes through."""

    descriptor: int
    """Open for writing, at its end. It stays the caller's to close."""
    path: Path
    room: Callable[[int], None]
    """Called before the file grows to that many bytes. Raises OSError if there is no room."""
    failed: Callable[[OSError], None]
    """Called once, in the thread, when the file cannot be written any more."""


class Tap:
    """The bytes of a descriptor (a socket or a pipe), written to a file and read from there.

    It has a socket's `recv` and `settimeout`, for what is read from it."""

    def __init__(self, source: int, recorder: Recorder) -> None:
        self._source, self._recorder = source, recorder
        self._written = os.lseek(recorder.descriptor, 0, os.SEEK_END)
        self._read = self._written
        self._file = open(recorder.path, "rb")  # noqa: SIM115 (closed by `close`)
        self._file.seek(self._read)
        self._rest = b""
        """Bytes that came and are not in the file."""
        self._patience: float | None = None
        self._ended = False
        self._failure: OSError | None = None
        self._direct = False
        """Whether the file is given up."""
        self._receiving = threading.Lock()
        """Held while bytes are received past the file."""
        self._changed = threading.Condition()
        self._waker, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._fill, name=threading.current_thread().name, daemon=True)

    def start(self) -> None:
        """Begin to read the source. Raises OSError where the system has no more threads."""
        try:
            self._thread.start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, str(error)) from error

    def settimeout(self, seconds: float | None) -> None:
        """Set how long `readinto` waits for a byte. None: for ever."""
        self._patience = seconds

    def readinto(self, buffer: Any, /) -> int:
        """Fill some of `buffer` and return how many bytes; 0 at the end. Raises TimeoutError, and OSError."""
        if self._read == self._written:
            with self._changed:
                if not self._changed.wait_for(lambda: self._read < self._written or self._ended, self._patience):
                    raise TimeoutError
        ready = self._written - self._read
        if ready:
            got = self._file.readinto(buffer if len(buffer) <= ready else memoryview(buffer)[:ready])
            self._read += got
            return got
        if self._rest:
            got = min(len(buffer), len(self._rest))
            memoryview(buffer)[:got] = self._rest[:got]
            self._rest = self._rest[got:]
            return got
        if self._failure is not None:
            raise self._failure
        if not self._direct:
            return 0
        with self._receiving:
            return 0 if self._file.closed else self._received(buffer, self._patience) or 0

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes, as `readinto` does."""
        buffer = bytearray(size)
        return bytes(buffer[: self.readinto(buffer)])

    def close(self) -> None:
        """End the thread, and whoever waits in another. The source and the recorder's descriptor stay open."""
        if self._file.closed:
            return
        os.write(self._wake, b"\0")
        if self._thread.ident is not None:
            self._thread.join()
        with self._receiving:
            self._file.close()
            os.close(self._wake)
            os.close(self._waker)

    def _fill(self) -> None:
        """Move bytes from the source to the file, until either of them ends."""
        buffer = memoryview(bytearray(CHUNK))
        try:
            while not self._direct and (got := self._received(buffer, None)):
                self._store(buffer[:got])
        except OSError as error:
            self._failure = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _received(self, buffer: Any, patience: float | None) -> int | None:
        """Read some bytes of the source; None where `close` was called. Raises TimeoutError, and OSError."""
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        poll.register(self._waker, select.POLLIN)
        while True:
            ready = dict(poll.poll(None if patience is None else patience * 1000))
            if not ready:
                raise TimeoutError
            if self._waker in ready:
                return None
            if ready[self._source] & select.POLLNVAL:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            try:
                return os.readv(self._source, [buffer])
            except BlockingIOError:
                continue

    def _store(self, part: memoryview) -> None:
        done = 0
        try:
            self._recorder.room(self._written + len(part))
            while done < len(part):
                done += os.write(self._recorder.descriptor, part[done:])
        except OSError as error:
            self._recorder.failed(error)
            self._rest, self._direct = bytes(part[done:]), True
        with self._changed:
            self._written += done
            self._changed.notify_all()
