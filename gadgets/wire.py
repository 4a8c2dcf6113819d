"""Reading Gadgetron's wire protocol, without any I/O: what bytes mean, not where they come from.

A source is anything with `readinto`: a socket's file, a pipe, BytesIO. Every size is checked before it is believed, and
a stream that ends early is an InputError, never a short message. Arrays come first dimension fastest, as in C++.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable
from typing import Any, Protocol

import ismrmrd
import numpy as np

from gadgets.messages import (
    CONFIG_FILE_BYTES,
    IMAGE_TYPES,
    Bucket,
    Close,
    ConfigFile,
    ConfigText,
    DependencyQuery,
    Error,
    Header,
    Id,
    ImageArray,
    Message,
    Query,
    ReconBit,
    ReconBuffer,
    ReconData,
    Response,
    SamplingDescription,
)
from mrnets.errors import InputError
from mrnets.mrd.flags import COMPRESSED
from mrnets.mrd.lines import ACQUISITION_HEADER, MAX_LINE_BYTES, Line
from mrnets.mrd.xml import parse_xml
from mrnets.physics.arrays import Array

__all__ = ["Source", "read_into", "read_message"]

MAX_TEXT = 16 << 20
MAX_DATA = 16 << 30
MAX_DIMENSIONS = 16
MAX_SPACES = 64
"""Encoding spaces in reconstruction data."""

_START = struct.Struct("<2xQ24xH2xH136xH")  # of an acquisition header: flags, samples, coils, trajectory dimensions


class Source(Protocol):
    """Where bytes come from. `readinto` blocks until there are some; 0 means that there will be no more."""

    def readinto(self, buffer: Any, /) -> int | None:
        """Fill some of `buffer` and return how many bytes."""


def read_message(source: Source) -> Message | None:
    """The next message, or None where the stream ends between two messages.

    Raises InputError for an unknown id, absurd sizes, and an end within a message. Messages carry no length, so no data
    after an unknown id can be read.
    """
    first = bytearray(2)
    if not (got := source.readinto(first)):
        return None
    if got == 1:
        read_into(source, memoryview(first)[1:], "a message id")
    identifier = int.from_bytes(first, "little")
    if identifier in _FOREIGN:
        raise InputError(f"The stream {_FOREIGN[identifier]}.")
    if identifier not in _READERS:
        raise InputError(f"The stream holds a message with the unknown id {identifier}; nothing behind it can be read.")
    return _READERS[identifier](source)


_FOREIGN = {
    0x4889: "is an HDF5 file; `python -m gadgets replay` takes it, or ismrmrd_hdf5_to_stream makes a stream of it",
    0x6179: "is of MRD version 2, which `python -m gadgets pipe` and `replay` take; version 1 was expected",
}
"""First two bytes of other kinds of data, read as a message id, and what the error says of each kind."""


def read_into(source: Source, buffer: Any, what: str) -> None:
    """Fill `buffer` (C-contiguous). Raises InputError, naming `what`, if the stream ends before."""
    view = memoryview(buffer)
    if not view.nbytes:
        return
    view = view.cast("B")
    done = 0
    while done < len(view):
        got = source.readinto(view[done:])
        if not got:
            raise InputError(f"The stream ended in the middle of {what}: {done} of {len(view)} bytes came.")
        done += got


def _bytes(source: Source, size: int, what: str, most: int = MAX_TEXT) -> bytes:
    if size > most:
        raise InputError(f"The stream announces {what} of {size} bytes; at most {most} are taken.")
    buffer = bytearray(size)
    read_into(source, buffer, what)
    return bytes(buffer)


def _number(source: Source, code: str, what: str) -> int:
    form = struct.Struct("<" + code)
    return int(form.unpack(_bytes(source, form.size, what))[0])


def _text(source: Source, code: str, what: str) -> bytes:
    return _bytes(source, _number(source, code, f"the length of {what}"), what)


def _string(source: Source, what: str) -> bytes:
    """A text without the NUL at its end, which some clients send and count."""
    return _text(source, "I", what).rstrip(b"\0")


def _samples(source: Source, shape: tuple[int, ...], dtype: Any, what: str, most: int = MAX_DATA) -> Array:
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size > most:
        raise InputError(f"The stream announces {what} of {size} bytes; at most {most} are taken.")
    try:
        samples = np.empty(shape, dtype)
    except MemoryError as error:
        raise InputError(f"The stream announces {what} of {size} bytes, for which there is no memory.") from error
    read_into(source, samples, what)
    return samples


def _config_file(source: Source) -> ConfigFile:
    name = _bytes(source, CONFIG_FILE_BYTES, "a configuration's name").partition(b"\0")[0]
    return ConfigFile(name.decode("utf-8", "replace"))


def _query(source: Source) -> Query:
    if _number(source, "Q", "a query"):
        raise InputError("A query's reserved field is not 0.")
    number = _number(source, "Q", "a query")
    return Query(number, _text(source, "Q", "a query").decode("utf-8", "replace"))


def _response(source: Source) -> Response:
    number = _number(source, "Q", "a response")
    return Response(number, _text(source, "Q", "a response").decode("utf-8", "replace"))


def _acquisition(source: Source) -> Line:
    raw = _bytes(source, ACQUISITION_HEADER.itemsize, "an acquisition header")
    flags, samples, coils, dimensions = _START.unpack_from(raw)
    if flags & COMPRESSED:
        raise InputError(
            "The samples of an acquisition are compressed (flags 53 to 56), which only some readers of Gadgetron "
            "understand; send them without compression (gadgetron_ismrmrd_client: without -P and -T)."
        )
    trajectory = _samples(source, (samples, dimensions), np.float32, "an acquisition's trajectory", MAX_LINE_BYTES)
    data = _samples(source, (coils, samples), np.complex64, "an acquisition's samples", MAX_LINE_BYTES)
    return _filled(raw, data, trajectory)


def _waveform(source: Source) -> ismrmrd.Waveform:
    raw = _bytes(source, ctypes.sizeof(ismrmrd.WaveformHeader), "a waveform header")
    return _waveform_with(source, raw)


def _waveform_with(source: Source, raw: bytes) -> ismrmrd.Waveform:
    head = ismrmrd.WaveformHeader.from_buffer_copy(raw)
    data = _samples(source, (head.channels, head.number_of_samples), np.uint32, "a waveform's samples")
    return ismrmrd.Waveform(raw, data)


def _image(source: Source) -> ismrmrd.Image:
    raw = _bytes(source, ctypes.sizeof(ismrmrd.ImageHeader), "an image header")
    head = ismrmrd.ImageHeader.from_buffer_copy(raw)
    if head.data_type not in IMAGE_TYPES:
        raise InputError(f"An image is of the unknown data type {head.data_type}; 1 to 8 were expected.")
    attributes = _meta(_text(source, "Q", "an image's meta"))
    shape = (head.channels, *reversed(head.matrix_size))
    data = _samples(source, shape, IMAGE_TYPES[head.data_type], "an image's pixels")
    image = ismrmrd.Image(raw, attributes)
    for name, value in image.meta.items():  # ismrmrd reads an empty value as None, and would write "None"
        image.meta[name] = [one or "" for one in value] if isinstance(value, list) else value or ""
    image.data[...] = data
    return image


def _meta(text: bytes) -> str:
    """Image meta as text, without the NUL that C++ counts in; "" for none. Raises InputError if it is not meta."""
    text = text.rstrip(b"\0")
    root = parse_xml(text, "meta of an image") if text else None
    if root is not None and root.tag != "ismrmrdMeta":
        raise InputError("The meta of an image is not <ismrmrdMeta>.")
    if root is not None and any(one.find("name") is None for one in root.findall("meta")):
        raise InputError("The meta of an image has a value without a name.")
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError("The meta of an image is not UTF-8.") from error


def _shape(source: Source) -> tuple[int, ...]:
    """The dimensions of an array; of one without dimensions, which has no elements, (0,)."""
    count = _number(source, "Q", "an array's dimensions")
    if count > MAX_DIMENSIONS:
        raise InputError(f"The stream announces an array of {count} dimensions; at most {MAX_DIMENSIONS} are taken.")
    shape = tuple(_number(source, "Q", "an array's dimensions") for _ in range(count)) or (0,)
    if math.prod(filter(None, shape)) > MAX_DATA:  # also beside a 0, where NumPy has no such array
        raise InputError(
            f"The stream announces an array of the dimensions {shape}; at most {MAX_DATA} values are taken."
        )
    return shape


def _array(source: Source, dtype: Any, what: str) -> Array:
    shape = _shape(source)
    return _samples(source, (math.prod(shape),), dtype, what).reshape(shape, order="F")


def _headers(source: Source, kind: Any, what: str) -> Array:
    shape = _shape(source)
    size = ctypes.sizeof(kind)
    raw = _samples(source, (math.prod(shape), size), np.uint8, what)
    headers = np.empty(len(raw), object)
    for n in range(len(raw)):
        headers[n] = kind.from_buffer_copy(raw[n])
    return headers.reshape(shape, order="F")


def _optional(source: Source, read: Callable[[Source], Any]) -> Any:
    return read(source) if _bytes(source, 1, "an optional part") != b"\0" else None


def _several(source: Source, read: Callable[[Source], Any], what: str, most: int = MAX_DATA) -> list[Any]:
    """Return a list that grows only as its parts really come: its length is not believed."""
    count = _number(source, "Q", what)
    if count > most:
        raise InputError(f"The stream announces {count} parts of {what}; at most {most} are taken.")
    return [read(source) for _ in range(count)]


def _buffer(source: Source) -> ReconBuffer:
    data = _array(source, np.complex64, "a buffer's samples")
    trajectory = _optional(source, lambda s: _array(s, np.float32, "a buffer's trajectory"))
    density = _optional(source, lambda s: _array(s, np.float32, "a buffer's density"))
    headers = _headers(source, ismrmrd.AcquisitionHeader, "a buffer's headers")
    raw = _bytes(source, ctypes.sizeof(SamplingDescription), "a sampling description")
    return ReconBuffer(data, trajectory, density, headers, SamplingDescription.from_buffer_copy(raw))


def _recon_data(source: Source) -> ReconData:
    def bit(source: Source) -> ReconBit:
        return ReconBit(_buffer(source), _optional(source, _buffer))

    return ReconData(_several(source, bit, "reconstruction data", MAX_SPACES))


def _image_array(source: Source) -> ImageArray:
    return ImageArray(
        _array(source, np.complex64, "an image array's pixels"),
        _headers(source, ismrmrd.ImageHeader, "an image array's headers"),
        _several(source, lambda s: _meta(_text(s, "Q", "an image's meta")), "an image array's meta"),
        _optional(source, lambda s: _several(s, _waveform, "an image array's waveforms")),
        _optional(source, lambda s: _headers(s, ismrmrd.AcquisitionHeader, "an image array's acquisition headers")),
    )


def _bucket(source: Source) -> Bucket:
    sizes = _samples(source, (13,), "<u8", "a bucket's sizes").tolist()
    data = _bucket_lines(source, sizes[0])
    calibration = _bucket_lines(source, sizes[4])
    size = ctypes.sizeof(ismrmrd.WaveformHeader)
    heads = [_bytes(source, size, "a bucket's waveform headers") for _ in range(sizes[10])]
    return Bucket(data, calibration, tuple(_waveform_with(source, head) for head in heads))


def _bucket_lines(source: Source, count: int) -> tuple[Line, ...]:
    """Headers, then all trajectories, all samples, and the statistics (nine sets of counters a space), skipped."""
    raw = _samples(source, (count, ACQUISITION_HEADER.itemsize), np.uint8, "a bucket's headers")
    heads = raw.view(ACQUISITION_HEADER)[:, 0]
    shapes = [
        tuple(map(int, (h["active_channels"], h["number_of_samples"], h["trajectory_dimensions"]))) for h in heads
    ]
    trajectories = [_samples(source, (n, d), np.float32, "a bucket's trajectories") for _, n, d in shapes]
    samples = [_samples(source, (c, n), np.complex64, "a bucket's samples") for c, n, _ in shapes]
    for _ in range(9 * _number(source, "Q", "a bucket's statistics")):
        counters = _number(source, "Q", "a bucket's statistics")
        _bytes(source, 2 * counters, "a bucket's statistics")
    return tuple(map(_filled, map(bytes, raw), samples, trajectories))


def _filled(raw: bytes, samples: Array, trajectory: Array) -> Line:
    def fill(data: Array, places: Array) -> None:
        data[...], places[...] = samples, trajectory

    return Line(raw, fill)


_READERS: dict[int, Callable[[Source], Message]] = {
    Id.CONFIG_FILE: _config_file,
    Id.CONFIG_TEXT: lambda source: ConfigText(_string(source, "a configuration")),
    Id.HEADER: lambda source: Header(_text(source, "I", "the ISMRMRD header")),
    Id.CLOSE: lambda source: Close(),
    Id.TEXT: lambda source: _string(source, "a text").decode("utf-8", "replace"),
    Id.QUERY: _query,
    Id.RESPONSE: _response,
    Id.ERROR: lambda source: Error(_text(source, "Q", "an error").decode("utf-8", "replace")),
    Id.ACQUISITION: _acquisition,
    Id.DEPENDENCY_QUERY: lambda source: DependencyQuery(_text(source, "Q", "a dependency query")),
    Id.IMAGE: _image,
    Id.RECON_DATA: _recon_data,
    Id.IMAGE_ARRAY: _image_array,
    Id.WAVEFORM: _waveform,
    Id.BUCKET: _bucket,
}
