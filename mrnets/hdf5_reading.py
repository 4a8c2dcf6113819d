"""HDF5 files that are read to their end, however damaged they are.

The HDF5 library reads arrays of changing length, such as the samples of ISMRMRD, from heaps: blocks of objects, each
with its size. It loops for ever where a damaged size is zero or overflows. So each heap is checked as it is read. Where
the length of an array is damaged, the library takes memory for all of it, and then clears that for minutes. So lengths
are checked, too. With some damaged types the process writes beyond its memory, and dies then or at some later time. So
types are checked before anything is read.

Source: HDF5 File Format Specification 3.0.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

__all__ = ["HEAP", "OBJECT", "Stored", "objects", "opened", "require_lengths", "require_own", "require_sound"]

HEAP = struct.Struct("<4sB3xQ")
"""The start of a heap: signature, version, size."""
CHUNK_TREE = b"TREE\1"
"""The start of a node in an index of chunks. Its level and its number of entries follow."""
OBJECT = struct.Struct("<HH4xQ")
"""The start of an object in a heap: number, references, size. Then comes the object, filled up to a multiple of 8.
Number 0: the free rest."""
MOST_PACKED = 1100
"""Bytes that one byte of a compressed file can hold: DEFLATE has a limit of 1032."""
_KIND, _SEQUENCE = 3, 0
"""The byte of an encoded type of changing length that tells its kind (IV.A.2.d), and its value for a sequence."""
HARMLESS = 1 << 20
"""Bytes that a data set may announce that was never written."""


@contextmanager
def opened(path: str | Path) -> Iterator[h5py.File]:
    """An HDF5 file to read, with its heaps checked. Links to other files lead nowhere: see `require_own`.

    Raises OSError, here or as it is read, for a file that is cut short, corrupt or not HDF5. Raises BlockingIOError
    where another program writes it."""
    with open(path, "rb", buffering=0) as raw:
        try:
            fcntl.flock(raw.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks
            pass
        with h5py.File(_Checked(raw.fileno()), "r") as file:
            yield file


def require_own(file: h5py.File, name: str) -> None:
    """Raise OSError if `name` leads to another file, which `opened` would take for the same file."""
    node: Any = file
    for part in filter(None, name.split("/")):
        link = node.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink | h5py.SoftLink):
            raise OSError(f"{part} is a link to {link.path}, and links are not followed")
        node = node[part]
    if isinstance(node, h5py.Dataset) and node.is_virtual:
        raise OSError(f"{name} is put together from other files")
    if isinstance(node, h5py.Dataset) and node.external:
        raise OSError(f"{name} lies in another file, {node.external[0][0]}")


def require_sound(node: Any) -> None:
    """Raise OSError where a data set announces more than the file can hold, for a small file may announce any size; and
    where numbers in its records do not fit."""
    if not isinstance(node, h5py.Dataset):
        return
    _require_fitting(node.id.get_type(), str(node.name))
    there, announced = node.file.id.get_filesize(), node.nbytes or 0
    with suppress(OSError, RuntimeError):  # an index that is damaged: what lies before the damage can be read
        there = node.id.get_storage_size()
    if announced > max(MOST_PACKED * there, HARMLESS):
        raise OSError(f"{node.name} announces {announced} bytes, and the file has {there} for it")


def _require_fitting(kind: Any, name: str) -> None:
    """Raise OSError for a damaged type with which a process would write beyond its memory, and then die.

    Those are numbers that take more bytes in NumPy than a record has for them: h5py gives a float more bytes where its
    exponent is damaged. Arrays of changing length that are neither sequences nor text are the others."""
    if isinstance(kind, h5py.h5t.TypeCompoundID):
        for n in range(kind.get_nmembers()):
            _require_fitting(kind.get_member_type(n), name)
    elif kind.get_class() in (h5py.h5t.ARRAY, h5py.h5t.VLEN, h5py.h5t.ENUM):
        if isinstance(kind, h5py.h5t.TypeVlenID) and kind.encode()[_KIND] != _SEQUENCE:
            raise OSError(f"{name} has arrays of changing length of an unknown kind")
        _require_fitting(kind.get_super(), name)
    elif isinstance(kind, h5py.h5t.TypeIntegerID | h5py.h5t.TypeFloatID):
        try:
            taken = kind.dtype.itemsize
        except TypeError as error:
            raise OSError(f"{name} has numbers of {kind.get_size()} bytes, which NumPy does not have") from error
        if taken > kind.get_size():
            raise OSError(f"{name} has numbers of {taken} bytes in places of {kind.get_size()}")


def require_lengths(path: str | Path, dataset: h5py.Dataset, first: int, end: int) -> None:
    """Raise OSError where arrays of changing length in some records are longer than the whole file.

    dataset: of one axis. Records that go through filters, such as compression, are not looked at: those find damage
    themselves."""
    kind = dataset.id.get_type()
    places = np.array(list(_arrays(kind)), np.int64).reshape(-1, 2)
    size = os.path.getsize(path)
    for records in _raw(path, dataset, np.arange(first, end)) if len(places) else ():
        for offset, width in places:
            lengths = np.ascontiguousarray(records[:, offset : offset + 4]).view("<u4").astype(np.int64)
            if lengths.sum() * width > size:
                raise OSError(f"{dataset.name} has an array of {lengths.max()} values, more than the file can hold")


def _arrays(kind: Any) -> Iterator[tuple[int, int]]:
    """Yield the place of each array of changing length in a record, and the bytes of one of its values."""
    if isinstance(kind, h5py.h5t.TypeCompoundID):
        for n in range(kind.get_nmembers()):
            yield from ((kind.get_member_offset(n) + at, width) for at, width in _arrays(kind.get_member_type(n)))
    elif kind.get_class() == h5py.h5t.VLEN:
        yield 0, kind.get_super().get_size()
    elif isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str():
        yield 0, 1


@dataclass(frozen=True)
class Stored:
    """The records of a data set of one axis as they are in the file. Where they lie is asked once for all of them."""

    dataset: h5py.Dataset
    file: int
    """The descriptor of its file."""
    width: int
    """Bytes of a record."""
    step: int
    """Records of a chunk; 1 where they lie one after the other."""
    numbers: NDArray[np.int64]
    """Numbers of the chunks whose place is known, ascending."""
    places: NDArray[np.int64]
    """The first byte of each of these."""

    @classmethod
    def of(cls, dataset: h5py.Dataset, file: int) -> Stored | None:
        """None for records that go through filters, such as compression."""
        created, width = dataset.id.get_create_plist(), dataset.id.get_type().get_size()
        if dataset.ndim != 1 or created.get_nfilters():
            return None
        step = dataset.chunks[0] if dataset.chunks else 1
        return cls(dataset, file, width, step, *_chunks(dataset, file, step, step * width))

    def records(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.uint8] | None:
        """Return the records with these numbers (ascending), (record, byte); None where one cannot be read."""
        if not len(rows):
            return np.empty((0, self.width), np.uint8)
        wanted, at = np.unique(rows // self.step, return_inverse=True)
        size = self.step * self.width
        parts = [self._chunk(*one, size) for one in zip(wanted.tolist(), self._places(wanted).tolist(), strict=True)]
        if any(len(part) != size for part in parts):
            return None
        return _records(b"".join(parts), self.width)[at * self.step + rows % self.step]

    def _places(self, wanted: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return the first bytes of chunks; -1 where it is not known."""
        if self.dataset.chunks is None:
            offset = self.dataset.id.get_offset()
            return np.full(len(wanted), -1) if offset is None else offset + self.width * wanted
        at = np.searchsorted(self.numbers, wanted)
        known = np.append(self.numbers, -1)[at] == wanted
        return np.where(known, np.append(self.places, -1)[at], -1)

    def _chunk(self, number: int, place: int, size: int) -> bytes:
        if place >= 0:
            return os.pread(self.file, size, place)
        return b"" if self.dataset.chunks is None else _chunk(self.dataset, number * self.step)


def _chunks(dataset: h5py.Dataset, file: int, step: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of chunks of `size` bytes and their first bytes, as far as the library finds them."""
    found, end, most = array("q"), os.fstat(file).st_size, -(-len(dataset) // step)
    turn = count(1)

    def note(chunk: Any) -> bool | None:
        if chunk.size == size and not chunk.filter_mask and chunk.byte_offset + size <= end:
            found.extend((chunk.chunk_offset[0] // step, chunk.byte_offset))
        return True if next(turn) >= most else None  # a damaged index may go in circles

    if dataset.chunks and hasattr(dataset.id, "chunk_iter"):  # HDF5 1.12.3 and later
        with suppress(OSError, RuntimeError, ValueError):
            dataset.id.chunk_iter(note)
    pairs = np.array(found, np.int64).reshape(-1, 2)
    numbers, first = np.unique(pairs[:, 0], return_index=True)
    return numbers, pairs[first, 1]


def _raw(path: str | Path, dataset: h5py.Dataset, rows: NDArray[np.integer[Any]]) -> Iterator[NDArray[np.uint8]]:
    """Yield (record, byte) of the records with these numbers, without those that are not so in the file."""
    width = dataset.id.get_type().get_size()
    if not len(rows) or dataset.ndim > 1 or dataset.id.get_create_plist().get_nfilters():
        return
    if dataset.chunks is None:
        first, size = int(rows[0]), (int(rows[-1]) + 1 - int(rows[0])) * width
        offset = dataset.id.get_offset()
        if offset is not None and offset + first * width + size <= os.path.getsize(path):
            with open(path, "rb", buffering=0) as file:
                part = os.pread(file.fileno(), size, offset + first * width)
            yield _records(part, width)[rows - first]
        return
    (step,) = dataset.chunks
    numbers, firsts = np.unique(rows // step, return_index=True)
    for number, some in zip(numbers.tolist(), np.split(rows, firsts[1:]), strict=True):
        part = _chunk(dataset, number * step)
        if len(part) == step * width:
            yield _records(part, width)[some - number * step]


def _records(part: bytes, width: int) -> NDArray[np.uint8]:
    return np.frombuffer(part, np.uint8).reshape(-1, width)


def _chunk(dataset: h5py.Dataset, start: int) -> bytes:
    """Return a chunk as it is in the file; nothing where it cannot be read, which reading it later says."""
    with suppress(OSError, RuntimeError, ValueError):
        return bytes(dataset.id.read_direct_chunk((start,))[1])
    return b""


def objects(file: int, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number, the place and the bytes of each object in a part of a heap, from `place` to `end`.

    file: its descriptor. Raises OSError for an object that does not fit there, such as one at which the library would
    loop."""
    while place + OBJECT.size <= end:
        head = os.pread(file, OBJECT.size, place)
        number, _, content = OBJECT.unpack(head.ljust(OBJECT.size, b"\0"))
        taken = OBJECT.size + -(-content // 8) * 8 if number else content
        if not 0 < taken <= end - place:
            raise OSError(f"an object in a heap at {place} has the size {content}")
        if number:
            yield number, place + OBJECT.size, content
        place += taken


class _Checked:
    """An open file for the HDF5 library to read. Raises OSError for a heap in which the library would loop, and for an
    index without entries: a file may have so many ways to such an index that the library never comes to an end."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._position = 0

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        if self._position > sys.maxsize:
            raise OSError(f"it has no byte {self._position}")
        count = 0
        while count < len(view):
            part = os.preadv(self._number, [view[count:]], self._position + count)  # 2 GiB at most
            if not part:  # the library would go on with zeros
                raise OSError(f"it ends at byte {self._position + count}")
            count += part
        if bytes(view[:4]) == b"GCOL" and count >= HEAP.size:
            deque(objects(self._number, self._position + HEAP.size, self._position + HEAP.unpack_from(view)[2]), 0)
        if bytes(view[:5]) == CHUNK_TREE and bytes(view[6:8]) == b"\0\0":
            raise OSError(f"an index of chunks at {self._position} is empty")
        return count

    def read(self, size: int) -> bytes:
        found = bytearray(size)
        return bytes(found[: self.readinto(found)])

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._number).st_size}
        self._position = base[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, data: memoryview) -> int:
        raise OSError("the file is only read")

    truncate = write

    def flush(self) -> None:
        pass
