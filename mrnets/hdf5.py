"""HDF5 files that are whole or not there, also on a full disk and after ctrl-C.

The HDF5 library ends the process with a segmentation fault where a write fails or raises. So it never sees a failure:
what it writes after one stays in memory until the file is closed, and then the failure is told. Signals that come in
one of its writes wait for the next `Draft.check`, or for the end of the file.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import h5py

from mrnets.files import Draft, whole

__all__ = ["whole_hdf5"]


@contextmanager
def whole_hdf5(path: str | Path, advice: str = "") -> Iterator[tuple[h5py.File, Draft]]:
    """An HDF5 file to fill, which becomes `path` when the block ends; see `mrnets.files.whole`.

    Who writes much calls `Draft.check` now and then: a full disk is noticed before the memory is full, and ctrl-C soon.
    """
    with whole(path, advice) as draft:
        with _signals_elsewhere(draft), h5py.File(_Unfailing(draft), "w") as file:
            yield file, draft
        draft.check()


class _Unfailing:
    """`draft` for the HDF5 library, with the failures of the disk hidden from it."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._position = 0
        self._unwritten: list[tuple[int, bytes]] = []
        """Position and content of what the disk did not take, in the order of time."""

    def write(self, data: memoryview) -> int:
        start, self._position = self._position, self._position + len(data)
        try:
            if self._draft.error is None:
                self._draft.seek(start)
                return self._draft.write(data)
        except OSError:
            pass
        self._unwritten.append((start, bytes(data)))
        return len(data)

    def read(self, size: int) -> bytes:
        start, self._position = self._position, self._position + size
        self._draft.seek(start)
        found = bytearray(self._draft.read(size).ljust(size, b"\0"))
        for place, data in self._unwritten:
            first, last = max(place, start), min(place + len(data), start + size)
            if first < last:
                found[first - start : last - start] = data[first - place : last - place]
        return bytes(found)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            ends = [place + len(data) for place, data in self._unwritten]
            offset += max(self._draft.seek(0, os.SEEK_END), *ends, 0)
        elif whence == os.SEEK_CUR:
            offset += self._position
        self._position = offset
        return offset

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int) -> int:
        if self._draft.error is None:
            try:
                return self._draft.truncate(size)
            except OSError:
                pass
        return size

    def flush(self) -> None:
        pass


_CALLED = {function.__code__ for function in vars(_Unfailing).values() if hasattr(function, "__code__")}


@contextmanager
def _signals_elsewhere(draft: Draft) -> Iterator[None]:
    """Keep the handlers of signals, which may raise KeyboardInterrupt, from running inside the HDF5 library."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers: dict[int, Any] = {number: handler for number, handler in before.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():  # only the main thread runs handlers
        handlers = {}

    def handle(number: int, frame: FrameType | None) -> None:
        if _is_inside(frame):
            draft.signals.append(number)
        else:
            handlers[number](number, frame)

    for number in handlers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _is_inside(frame: FrameType | None) -> bool:
    """Whether `frame` was called by the library."""
    while frame is not None and frame.f_code not in _CALLED:
        frame = frame.f_back
    return frame is not None
