"""A scan in a file: ISMRMRD's HDF5, its stream as newer converters write it, or a stream of MRD version 2."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ismrmrd

from gadgets.messages import Header
from gadgets.protocol import Incoming, State
from gadgets.received import header_for
from gadgets.version2.streams import opened
from mrnets.errors import InputError, naming
from mrnets.mrd.files import open_scan
from mrnets.mrd.lines import Item
from mrnets.mrd.streams import MAGIC, is_stream

__all__ = ["Recording", "header_of", "open_recording", "with_header"]

MAX_MEASUREMENTS = 64
"""In a file of a Siemens scanner."""


@dataclass(frozen=True)
class Recording:
    """An open scan."""

    header: Any
    """The ISMRMRD header, as `mrnets.mrd.header.read_header` takes it."""
    items: Iterator[Item]
    """To be read while the file is open."""
    acquisitions: int | None
    """How many there are; None: that is not known before the end."""
    notes: tuple[str, ...] = ()
    """Sentences for the comment of each image."""


@contextmanager
def open_recording(path: str | Path, group: str = "dataset") -> Iterator[Recording]:
    """Open the scan in a file. group: of an HDF5 file.

    Raises InputError, here or while items are read: the file is not there, is cut short, or holds no ISMRMRD scan."""
    start = _start(path)
    if is_stream(start):
        with open(path, "rb") as file:
            incoming = Incoming(file, State.PIPE)
            with naming(path):
                header = header_of(incoming, "The file").text
                header, items, notes = with_header(header, incoming.items())
            yield Recording(header, _named(path, items), None, notes)
        return
    if start.startswith(MAGIC):
        with open(path, "rb") as file:
            with naming(path):
                stream = opened(file)
            yield Recording(stream.header, _named(path, stream.items), None)
        return
    if _is_siemens(path, start):
        raise InputError(
            f"{path}: is raw data of a Siemens scanner; make an ISMRMRD file of it first: "
            f"siemens_to_ismrmrd -f {Path(path).name} -o {Path(path).stem}.h5"
        )
    with open_scan(path, group) as scan:
        yield Recording(scan.header, scan.items(), scan.acquisitions)


def header_of(incoming: Incoming, where: str) -> Header:
    """Return the header at the start of a stream; configurations before it are skipped. where: names it in errors.

    Raises InputError if something else comes."""
    message = incoming.read()
    while message is not None and incoming.state is State.PIPE:
        message = incoming.read()
    if not isinstance(message, Header):
        came = "nothing" if message is None else f"a {type(message).__name__} message"
        raise InputError(f"{where} starts with {came}; the ISMRMRD header was expected.")
    return message


def with_header(header: bytes, items: Iterator[Item]) -> tuple[bytes, Iterator[Item], tuple[str, ...]]:
    """Return header, items, and sentences for the comments of the images.

    A client that sends images may send no header. One is then made from the first image."""
    if b"<" in header:
        return header, items, ()
    before: list[Item] = []
    for item in items:
        before.append(item)
        if not isinstance(item, str):
            break
    items = itertools.chain(before, items)
    if before and isinstance(before[-1], ismrmrd.Image):
        return header_for(before[-1]), items, ("no ISMRMRD header came; one was made from the first image",)
    return header, items, ()


def _start(path: str | Path) -> bytes:
    """The first bytes of a file; none if it cannot be read."""
    if not Path(path).is_file():
        return b""
    try:
        with open(path, "rb") as file:
            return file.read(8)
    except OSError:
        return b""


def _is_siemens(path: str | Path, start: bytes) -> bool:
    """Whether a file is a Siemens scanner's, by its name or by its start: 0, and the number of measurements."""
    if len(start) < 8 or start.startswith(b"\x89HDF"):
        return False
    zero, measurements = struct.unpack("<II", start)
    return Path(path).suffix.lower() == ".dat" or (zero == 0 and 1 <= measurements <= MAX_MEASUREMENTS)


def _named(path: str | Path, items: Iterator[Item]) -> Iterator[Item]:
    with naming(path):
        yield from items
