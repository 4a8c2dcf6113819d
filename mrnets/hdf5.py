"""HDF5 files that are whole or not there, also on a full disk.

The HDF5 library ends the process with a segmentation fault where its own writes fail. So it never sees a failure: what
it writes after one stays in memory until the file is closed, and then the failure is told.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from mrnets.files import Draft, whole

__all__ = ["whole_hdf5"]


@contextmanager
def whole_hdf5(path: str | Path, advice: str = "") -> Iterator[tuple[h5py.File, Draft]]:
    """An HDF5 file to fill, which becomes `path` when the block ends; see `mrnets.files.whole`.

    Who writes much calls `Draft.check` now and then, so that a full disk is noticed before the memory is full.
    """
    with whole(path, advice) as draft:
        with h5py.File(_Unfailing(draft), "w") as file:
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
