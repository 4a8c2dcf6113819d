"""Lines: a run of consecutive acquisitions of one shape, the unit in which raw data move through a chain.

Axes: line, coil, sample. One deterministic rule (`coalesce`) makes runs of acquisitions from any source. Every host
therefore gives a chain the same blocks, and gets the same bytes from it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from ismrmrd.hdf5 import acquisition_header_dtype
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.mrd.flags import Flag, bits
from mrnets.mrd.spare import Spare
from mrnets.mrd.strength import peaks_of
from mrnets.physics.arrays import Array, asarray_like, to_numpy

__all__ = [
    "ACQUISITION_HEADER",
    "PAUSE",
    "Item",
    "Line",
    "Lines",
    "coalesce",
    "counter",
    "require_finite",
    "require_samples",
    "take",
    "with_data",
]

ACQUISITION_HEADER: np.dtype[np.void] = np.dtype(acquisition_header_dtype)
"""The 340 bytes of an acquisition header as they are on the wire (packed, little-endian); ismrmrd's field names."""
HEADER_BYTES = ACQUISITION_HEADER.itemsize

Item: TypeAlias = Any
"""Any item that moves through a chain: Lines, Frame, ismrmrd.Waveform, ismrmrd.Image, ReconData, ImageArray, str
(text)."""

MAX_LINES = 256
MAX_RUN_BYTES = 8 << 20  # memory of this size is used again rather than mapped anew: a third less time to read a scan
MAX_LINE_BYTES = 256 << 20
MAX_COILS = 1024  # ISMRMRD's channel mask has 1024 bits

_CLOSING = bits(Flag.LAST_IN_SLICE, Flag.LAST_IN_REPETITION, Flag.LAST_IN_MEASUREMENT)
_NOISE = bits(Flag.IS_NOISE_MEASUREMENT)


@dataclass(frozen=True)
class Lines:
    """Consecutive acquisitions of one shape, of one encoding space; noise measurements only among themselves."""

    headers: Array
    """(line,) of `ACQUISITION_HEADER`, NumPy."""
    data: Array
    """(line, coil, sample) complex64; NumPy, or CuPy further down the chain."""
    trajectory: Array | None = None
    """(line, sample, dimension) float32, NumPy; None if the acquisitions have none."""
    whitened: bool = False
    """Whether `noise` has whitened the data. Known only within one process: no message carries it."""

    def __post_init__(self) -> None:
        dimensions = 0 if self.trajectory is None else self.trajectory.shape[-1]
        lines, coils, samples = self.data.shape
        fields = ("active_channels", "number_of_samples", "trajectory_dimensions")
        for field, size in zip(fields, (coils, samples, dimensions), strict=True):
            if self.headers.shape != (lines,) or (self.headers[field] != size).any():
                raise ValueError(f"Lines: {field} of the headers is not that of the arrays ({size}); use with_data")

    def __len__(self) -> int:
        return len(self.headers)

    @cached_property
    def peaks(self) -> NDArray[np.float32]:
        """(line,): the largest real or imaginary part of each line; not finite where a sample is not.

        In the host's memory: a device is asked once for all checks of these lines."""
        return to_numpy(peaks_of(self.data))


def with_data(lines: Lines, data: Array, trajectory: Array | None = None) -> Lines:
    """`lines` with other data (line, coil, sample), coil and sample counts of the headers set to match.

    The trajectory is the given one, or else that of `lines` if the sample count is unchanged, or else none."""
    if trajectory is None and data.shape[-1] == lines.data.shape[-1]:
        trajectory = lines.trajectory
    headers = lines.headers.copy()
    headers["active_channels"], headers["number_of_samples"] = data.shape[-2:]
    headers["trajectory_dimensions"] = 0 if trajectory is None else trajectory.shape[-1]
    return replace(lines, headers=headers, data=data, trajectory=trajectory)


_FIELDS = struct.Struct("<2xQ24xH2xH134xHH70xH2xHHH")
"""Flags, samples, coils, encoding space, trajectory dimensions, slice, phase, repetition and set in a header."""


class Line(NamedTuple):
    """One acquisition before it is in a run: its header, and how to copy its samples into arrays."""

    raw: bytes | bytearray | memoryview
    """The 340 bytes of the header."""
    fill: Callable[[Array, Array], None]
    """Called once with the arrays to fill: data (coil, sample) complex64, trajectory (sample, dimension) float32."""


@dataclass
class _Run:
    """Buffers for lines, and how many lines are in them."""

    key: tuple[int, int, int, int, bool]
    headers: Array
    raw: memoryview
    """The bytes of the headers."""
    data: Array
    trajectory: Array
    count: int = 0
    looked: int = 0
    """How many of the lines were looked at."""

    @classmethod
    def start(cls, key: tuple[int, int, int, int, bool], spare: Spare) -> _Run:
        coils, samples, dimensions = key[:3]
        size = coils * samples * 8 + samples * dimensions * 4
        if coils > MAX_COILS or size > MAX_LINE_BYTES:
            raise InputError(
                f"An acquisition header announces {coils} coils of {samples} samples with {dimensions} trajectory "
                f"dimensions; at most {MAX_COILS} coils and {MAX_LINE_BYTES >> 20} MiB a line are taken."
            )
        lines = max(1, min(MAX_LINES, MAX_RUN_BYTES // max(size, 1)))
        headers = np.empty(lines, ACQUISITION_HEADER)
        return cls(
            key,
            headers,
            headers.view(np.uint8).data,
            spare.empty((lines, coils, samples)),
            np.empty((lines, samples, dimensions), np.float32),
        )

    def append(self, line: Line) -> None:
        start = self.count * HEADER_BYTES
        self.raw[start : start + HEADER_BYTES] = line.raw
        line.fill(self.data[self.count], self.trajectory[self.count])
        self.count += 1

    def lines(self, start: int = 0) -> Lines:
        which = slice(start, self.count)
        return Lines(self.headers[which], self.data[which], self.trajectory[which] if self.key[2] else None)

    def look(self, at: Callable[[Lines], None]) -> None:
        if self.looked < self.count:
            at(self.lines(self.looked))
            self.looked = self.count


class _Repetitions:
    """The newest repetition of each slice."""

    def __init__(self) -> None:
        self._newest: dict[tuple[int, int, int, int], int] = {}

    def begins(self, place: tuple[int, int, int, int], repetition: int) -> bool:
        """Whether a line is the first of a later repetition of its slice: it may complete an image.

        place: its slice, phase, set and encoding space."""
        before = self._newest.get(place, repetition)
        self._newest[place] = max(before, repetition)
        return before < repetition


PAUSE: Final = object()
"""In a stream of lines: no more have come yet."""


def coalesce(stream: Iterable[Line | Item], look: Callable[[Lines], None] | None = None) -> Iterator[Item]:
    """Make `Lines` of each run of `Line`; other items pass in order.

    A run ends before another shape, encoding space, kind (noise or not) or item. It ends after each line that may
    complete an image, which is then not kept waiting: the last in a slice, repetition or measurement, and the first of
    a slice's next repetition. It also ends at 256 lines or 8 MiB. Raises InputError for a line too large.

    look: is shown, at each `PAUSE`, the lines that wait for their run to end, and may refuse them by an InputError.
    """
    run: _Run | None = None
    repetitions, spare = _Repetitions(), Spare()
    for item in stream:
        if item is PAUSE:
            if run and look:
                run.look(look)
            continue
        if not isinstance(item, Line):
            if run:
                yield run.lines()
                run = None
            yield item
            continue
        flags, samples, coils, encoding, dimensions, slice_, phase, repetition, set_ = _FIELDS.unpack_from(item.raw)
        key = (coils, samples, dimensions, encoding, bool(flags & _NOISE))
        if run and run.key != key:
            yield run.lines()
            run = None
        run = run or _Run.start(key, spare)
        run.append(item)
        place = (slice_, phase, set_, encoding)
        completing = flags & _CLOSING or (not flags & _NOISE and repetitions.begins(place, repetition))
        if completing or run.count == len(run.headers):
            yield run.lines()
            run = None
    if run:
        yield run.lines()


def take(lines: Lines, which: NDArray[Any]) -> Lines:
    """Some of the lines, by index; all of them without a copy."""
    if len(which) == len(lines):
        return lines
    data = lines.data[asarray_like(which, lines.data)]
    trajectory = None if lines.trajectory is None else lines.trajectory[which]
    return replace(lines, headers=lines.headers[which], data=data, trajectory=trajectory)


def require_finite(lines: Lines) -> None:
    """Raises InputError naming the first acquisition with a NaN or infinite sample."""
    finite = np.isfinite(lines.peaks)
    if not finite.all():
        bad = int(lines.headers["scan_counter"][int(np.argmin(finite))])
        raise InputError(f"acquisition {bad} (scan_counter) has NaN or infinite samples")


def require_samples(lines: Lines) -> None:
    """Raises InputError for lines without coils or samples: a list of a sequence's lines has such ones."""
    _, coils, samples = lines.data.shape
    if not coils * samples:
        raise InputError(f"acquisition {counter(lines)} (scan_counter) has {coils} coils of {samples} samples each")


def counter(lines: Lines) -> int:
    """The scan counter of the first line, for errors."""
    return int(lines.headers["scan_counter"][0])
