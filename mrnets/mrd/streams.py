"""Scans in ISMRMRD's streaming format, as newer converters and Gadgetron's tools write them.

A stream is a row of messages, each a 16-bit number and a body; all numbers are little-endian. An index of it tells
where each acquisition is, so that lines are read in any order, as from HDF5.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from ismrmrd.hdf5 import waveform_header_dtype
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.mrd.flags import COMPRESSED
from mrnets.mrd.lines import ACQUISITION_HEADER, Line, Lines, coalesce
from mrnets.physics.arrays import Array

__all__ = ["CONFIG_FILE_BYTES", "MAGIC", "Id", "Stream", "is_stream", "open_stream"]

CONFIG_FILE_BYTES = 1024
MAGIC = b"yardl"
"""The start of a stream of MRD version 2."""
MAX_ACQUISITIONS = 1 << 24
MAX_TEXT = 16 << 20
_WAVEFORM_HEADER: np.dtype[np.void] = np.dtype(waveform_header_dtype)


class Id(IntEnum):
    """Numbers of messages."""

    CONFIG_FILE = 1
    CONFIG_TEXT = 2
    HEADER = 3
    CLOSE = 4
    TEXT = 5
    QUERY = 6
    RESPONSE = 7
    ERROR = 8
    ACQUISITION = 1008
    DEPENDENCY_QUERY = 1019
    IMAGE = 1022
    RECON_DATA = 1023
    IMAGE_ARRAY = 1024
    WAVEFORM = 1026
    BUCKET = 1050


@dataclass(frozen=True)
class Stream:
    """A stream in a file, and where its acquisitions are."""

    path: str
    header: bytes
    """The ISMRMRD header as the file holds it."""
    heads: NDArray[np.void]
    """(acquisition,) of `ACQUISITION_HEADER`."""
    places: NDArray[np.int64]
    """(acquisition,): bytes before the samples and trajectory."""

    @property
    def acquisitions(self) -> int:
        """How many there are."""
        return len(self.heads)

    def headers(self, fields: Sequence[str]) -> NDArray[np.void]:
        """These fields of the headers of all acquisitions, (acquisition,)."""
        found = np.empty(len(self.heads), [(name, ACQUISITION_HEADER[name]) for name in fields])
        for name in fields:
            found[name] = self.heads[name]
        return found

    def lines(self, rows: NDArray[np.integer[Any]]) -> Iterator[Lines]:
        """The acquisitions with these numbers (ascending). Raises InputError if the file has become shorter."""
        with open(self.path, "rb") as file:
            yield from coalesce(self._line(file, int(row)) for row in rows)

    def _line(self, file: BinaryIO, row: int) -> Line:
        def fill(data: Array, trajectory: Array) -> None:
            file.seek(int(self.places[row]))
            for part in (trajectory, data):
                values = np.fromfile(file, part.dtype, part.size)
                if values.size < part.size:
                    raise InputError(f"{self.path}: is cut short in acquisition {row}.")
                part[...] = values.reshape(part.shape)

        return Line(self.heads[row : row + 1].tobytes(), fill)


def is_stream(start: bytes) -> bool:
    """Whether a file with these first bytes is a stream: the number of a configuration or of a header."""
    return len(start) >= 2 and int.from_bytes(start[:2], "little") in (Id.CONFIG_FILE, Id.CONFIG_TEXT, Id.HEADER)


def open_stream(path: str | Path) -> Stream:
    """Return the stream in a file; its index is kept in memory until the file changes.

    Raises InputError for a stream that is cut short, that holds something else than a scan, or has no acquisitions."""
    stat = Path(path).stat()
    return _indexed(str(path), stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=8)
def _indexed(path: str, changed: int, size: int) -> Stream:
    """changed: the time of the last change, so that a file is read again after one."""
    header: bytes | None = None
    heads: list[bytes] = []
    places: list[int] = []
    with open(path, "rb") as file:
        for number in _numbers(file):
            if number == Id.CLOSE:
                break
            if number == Id.ACQUISITION:
                heads.append(_taken(file, ACQUISITION_HEADER.itemsize, path))
                _require_plain(heads[-1], path)
                places.append(file.tell())
                _skip(file, _samples(heads[-1]), size, path)
            elif number == Id.HEADER:
                text = _text(file, path)
                header = text if header is None else header
            elif number in _LENGTHS:
                _skip(file, _LENGTHS[number](file, path), size, path)
            else:
                raise InputError(f"{path}: message {number} at byte {file.tell() - 2} does not belong in a raw stream.")
            if len(heads) > MAX_ACQUISITIONS:
                raise InputError(f"{path}: has more than {MAX_ACQUISITIONS} acquisitions.")
    if header is None or not heads:
        raise InputError(f"{path}: is a stream without {'acquisitions' if header else 'an ISMRMRD header'}.")
    return Stream(path, header, np.frombuffer(b"".join(heads), ACQUISITION_HEADER), np.asarray(places, np.int64))


def _numbers(file: BinaryIO) -> Iterator[int]:
    """The numbers of messages, up to the end of the file; the body of each is read before the next number."""
    while len(raw := file.read(2)) == 2:
        yield int.from_bytes(raw, "little")


def _require_plain(head: bytes, path: str) -> None:
    if int(np.frombuffer(head, ACQUISITION_HEADER)["flags"][0]) & COMPRESSED:
        raise InputError(f"{path}: the samples of an acquisition are compressed (flags 53 to 56); write them without.")


def _samples(head: bytes) -> int:
    """The bytes of trajectory and samples that belong to a header."""
    values = np.frombuffer(head, ACQUISITION_HEADER)[0]
    coils, samples, dimensions = (
        int(values[name]) for name in ("active_channels", "number_of_samples", "trajectory_dimensions")
    )
    return 8 * coils * samples + 4 * samples * dimensions


def _text(file: BinaryIO, path: str) -> bytes:
    length = _length(file, path)
    if length > MAX_TEXT:
        raise InputError(f"{path}: a text of {length} bytes is announced; at most {MAX_TEXT} are taken.")
    return _taken(file, length, path)


def _length(file: BinaryIO, path: str) -> int:
    return int(struct.unpack("<I", _taken(file, 4, path))[0])


def _waveform(file: BinaryIO, path: str) -> int:
    head = np.frombuffer(_taken(file, _WAVEFORM_HEADER.itemsize, path), _WAVEFORM_HEADER)[0]
    return 4 * int(head["channels"]) * int(head["number_of_samples"])


_LENGTHS: dict[int, Callable[[BinaryIO, str], int]] = {
    Id.CONFIG_FILE: lambda file, path: CONFIG_FILE_BYTES,
    Id.CONFIG_TEXT: _length,
    Id.TEXT: _length,
    Id.WAVEFORM: _waveform,
}
"""The bytes that follow in messages that are skipped."""


def _taken(file: BinaryIO, count: int, path: str) -> bytes:
    found = file.read(count)
    if len(found) < count:
        raise InputError(f"{path}: is cut short: it ends within a message.")
    return found


def _skip(file: BinaryIO, count: int, size: int, path: str) -> None:
    if file.tell() + count > size:
        raise InputError(f"{path}: is cut short: it ends within a message.")
    file.seek(count, os.SEEK_CUR)
