"""Streams of MRD version 2: read from a file or pipe, written to one."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from gadgets.version2.header import document
from gadgets.version2.items import from_version_2, to_version_2
from mrnets.errors import InputError
from mrnets.extras import install
from mrnets.mrd.lines import Item, coalesce

__all__ = ["Version2", "opened", "written"]

_DAMAGED = (
    *(ArithmeticError, AssertionError, BufferError, EOFError, LookupError, MemoryError, RuntimeError, TypeError),
    *(ValueError, struct.error),
)
"""The exceptions of mrd-python where a stream is cut short or damaged."""


@dataclass(frozen=True)
class Version2:
    """An open stream."""

    header: bytes
    """The XML of the ISMRMRD header that says the same."""
    own: Any
    """The header as it came, for the stream of the images."""
    items: Iterator[Item]
    """Lines, waveforms and images, to be read while the file is open."""


def opened(file: BinaryIO) -> Version2:
    """Read the header of a stream. Raises InputError for a stream that cannot be read, and without mrd-python."""
    mrd = _package()
    with _explained():
        reader = mrd.BinaryMrdReader(file)
        own = reader.read_header()
        if own is None:
            raise InputError("The stream of MRD version 2 has no header.")
        return Version2(document(own), own, coalesce(_items(reader)))


def _items(reader: Any) -> Iterator[Any]:
    stream = iter(reader.read_data())
    while True:
        with _explained():
            item = next(stream, None)
        if item is None:
            return
        yield from_version_2(item)


def written(file: BinaryIO, header: Any, items: Iterable[Item]) -> None:
    """Write a stream with a header of version 2. Where `items` end early by an error, the stream has no end."""
    mrd = _package()
    writer = mrd.BinaryMrdWriter(file)
    writer.write_header(header)
    writer.write_data([])
    for item in items:
        writer.write_data([to_version_2(item, mrd)])
        writer._close()  # it sends what waits in the buffer, and does not close a file that is not its own
    writer.close()


def _package() -> Any:
    try:
        return importlib.import_module("mrd")
    except ImportError as error:
        how = install("mrd2")
        raise InputError(f"A stream of MRD version 2 needs mrd-python, which is not installed: {how}.") from error


@contextmanager
def _explained() -> Iterator[None]:
    """Raises mrd-python's exceptions as InputError."""
    try:
        yield
    except InputError:
        raise
    except _DAMAGED as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        why = f"it is cut short or damaged ({reason})"
        if "Invalid schema" in reason:
            why = "its schema is that of another version of mrd-python than the one that is installed"
        raise InputError(f"The stream of MRD version 2 cannot be read; {why}.") from error
