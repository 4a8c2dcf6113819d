"""Writing Gadgetron's wire protocol, without any I/O: the bytes of a message."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ismrmrd
import numpy as np

from gadgets.messages import (
    CONFIG_FILE_BYTES,
    IMAGE_TYPES,
    Close,
    ConfigFile,
    ConfigText,
    DependencyQuery,
    Error,
    Header,
    Id,
    Message,
    Query,
    Response,
)
from mrnets.errors import InputError
from mrnets.mrd.lines import ACQUISITION_HEADER, Lines
from mrnets.physics.arrays import Array, to_numpy

__all__ = ["encode"]


def encode(message: Message) -> Iterator[bytes]:
    """The bytes of a message or item, in parts that are to be written one after another; of Lines, one message a line.

    Raises TypeError for what no message carries, such as a Frame.
    """
    match message:
        case Lines():
            yield _records(message)
        case ismrmrd.Image():
            yield from _id(Id.IMAGE, *_image_bytes(message))
        case ismrmrd.Waveform():
            yield from _id(Id.WAVEFORM, *_waveform_bytes(message))
        case ismrmrd.Acquisition():
            yield from _id(Id.ACQUISITION, message.to_bytes())
        case str():
            yield from _id(Id.TEXT, *_sized("I", message.encode()))
        case ConfigText(text):
            yield from _id(Id.CONFIG_TEXT, *_sized("I", text))
        case Header(text):
            yield from _id(Id.HEADER, *_sized("I", text))
        case ConfigFile(name):
            yield from _id(Id.CONFIG_FILE, _config_name(name))
        case Close():
            yield from _id(Id.CLOSE)
        case Error(text):
            yield from _id(Id.ERROR, *_sized("Q", text.encode()))
        case Query(number, key):
            yield from _id(Id.QUERY, struct.pack("<QQ", 0, number), *_sized("Q", key.encode()))
        case Response(number, text):
            yield from _id(Id.RESPONSE, struct.pack("<Q", number), *_sized("Q", text.encode()))
        case DependencyQuery(meta):
            yield from _id(Id.DEPENDENCY_QUERY, *_sized("Q", meta))
        case _ if hasattr(message, "bits"):
            yield from _id(Id.RECON_DATA, *_vector(message.bits, _bit_bytes))
        case _ if hasattr(message, "acq_headers"):
            yield from _id(Id.IMAGE_ARRAY, *_image_array_bytes(message))
        case _:
            raise TypeError(f"no message carries a {type(message).__name__}")


def _id(identifier: Id, *parts: bytes) -> Iterator[bytes]:
    yield struct.pack("<H", identifier)
    yield from parts


def _sized(code: str, text: bytes) -> tuple[bytes, bytes]:
    return struct.pack("<" + code, len(text)), text


def _config_name(name: str) -> bytes:
    encoded = name.encode()
    if len(encoded) >= CONFIG_FILE_BYTES:
        raise InputError(f"A configuration's name has {len(encoded)} bytes; fewer than {CONFIG_FILE_BYTES} fit.")
    return encoded.ljust(CONFIG_FILE_BYTES, b"\0")


def _records(lines: Lines) -> bytes:
    """All lines in one piece: acquisition messages have one size, so that they are an array of records."""
    data = to_numpy(lines.data)
    shape = (0, 0) if lines.trajectory is None else lines.trajectory.shape[1:]
    fields = [
        ("id", "<u2"),
        ("header", ACQUISITION_HEADER),
        ("trajectory", "<f4", shape),
        ("data", "<c8", data.shape[1:]),
    ]
    records = np.empty(len(lines), fields)
    records["id"], records["header"], records["data"] = Id.ACQUISITION, lines.headers, data
    if lines.trajectory is not None:
        records["trajectory"] = lines.trajectory
    return records.tobytes()


def _waveform_bytes(waveform: ismrmrd.Waveform) -> Iterator[bytes]:
    yield bytes(waveform.getHead())
    yield np.asarray(waveform.data, "<u4").tobytes()


def _image_bytes(image: ismrmrd.Image) -> Iterator[bytes]:
    """Header, meta with its length, pixels of the type that the header names. The image is left as it is."""
    head, attributes = image.getHead(), image.attribute_string.encode()
    head.attribute_string_len = len(attributes)
    yield bytes(head)
    yield from _sized("Q", attributes)
    yield np.asarray(image.data, IMAGE_TYPES[head.data_type]).tobytes()


def _vector(values: Iterable[Any], write: Callable[[Any], Iterable[bytes]]) -> Iterator[bytes]:
    values = list(values)
    yield struct.pack("<Q", len(values))
    for value in values:
        yield from write(value)


def _optional_bytes(value: Any, write: Callable[[Any], Iterable[bytes]]) -> Iterator[bytes]:
    yield b"\0" if value is None else b"\1"
    if value is not None:
        yield from write(value)


def _array_bytes(array: Array, dtype: Any) -> Iterator[bytes]:
    array = np.asarray(to_numpy(array), dtype)
    yield _shape_bytes(array.shape)
    yield array.tobytes(order="F")


def _shape_bytes(shape: tuple[int, ...]) -> bytes:
    shape = () if shape == (0,) else shape
    return struct.pack(f"<{len(shape) + 1}Q", len(shape), *shape)


def _headers_bytes(headers: Array) -> Iterator[bytes]:
    yield _shape_bytes(headers.shape)
    yield b"".join(bytes(header) for header in headers.ravel(order="F"))


def _buffer_bytes(buffer: Any) -> Iterator[bytes]:
    yield from _array_bytes(buffer.data, "<c8")
    yield from _optional_bytes(buffer.trajectory, lambda array: _array_bytes(array, "<f4"))
    yield from _optional_bytes(buffer.density, lambda array: _array_bytes(array, "<f4"))
    yield from _headers_bytes(buffer.headers)
    yield bytes(buffer.sampling)


def _bit_bytes(bit: Any) -> Iterator[bytes]:
    yield from _buffer_bytes(bit.data)
    yield from _optional_bytes(bit.ref, _buffer_bytes)


def _image_array_bytes(images: Any) -> Iterator[bytes]:
    yield from _array_bytes(images.data, "<c8")
    yield from _headers_bytes(images.headers)
    yield from _vector(images.meta, lambda text: _sized("Q", text.encode()))
    yield from _optional_bytes(images.waveform, lambda waves: _vector(waves, _waveform_bytes))
    yield from _optional_bytes(images.acq_headers, _headers_bytes)
