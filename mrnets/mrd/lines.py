"""Lines: a run of consecutive acquisitions of one shape, the unit in which raw data move through a chain.

Axes: line, coil, sample. One deterministic rule (`coalesce`) makes runs of acquisitions from any source. Every host
therefore gives a chain the same blocks, and gets the same bytes from it.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

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
    "Batch",
    "Item",
    "Line",
    "Lines",
    "coalesce",
    "counter",
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
MAX_RUN_BYTES = 4 << 20
"""A run of this size is still in the cache of a processor when it is measured and sorted; 8 MiB take a tenth more."""
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

    @property
    def finite(self) -> NDArray[np.bool_]:
        """(line,): whether all samples of a line are finite."""
        return np.isfinite(self.peaks)


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


_SHAPE = ("active_channels", "number_of_samples", "trajectory_dimensions", "encoding_space_ref")


class Line(NamedTuple):
    """One acquisition before it is in a run: its header, and how to copy its samples into arrays."""

    raw: bytes | bytearray | memoryview
    """The 340 bytes of the header."""
    fill: Callable[[Array, Array], None]
    """Called once with the arrays to fill: data (coil, sample) complex64, trajectory (sample, dimension) float32."""


@dataclass(frozen=True)
class Batch:
    """Consecutive acquisitions, of any shapes, before they are in runs."""

    headers: NDArray[np.void]
    """(line,) of `ACQUISITION_HEADER`, without gaps in memory."""
    fill: Callable[[int, Array, Array], None]
    """Called with the number of the first of some lines of one shape and the arrays to fill, in order: data (line,
    coil, sample) complex64, trajectory (line, sample, dimension) float32."""
    first: int = 0
    """The number of the first line here, for `fill`."""

    def part(self, start: int, stop: int) -> Batch:
        """Some of the lines."""
        return replace(self, headers=self.headers[start:stop], first=self.first + start)


_Key: TypeAlias = tuple[int, int, int, int, bool]
"""Coils, samples, trajectory dimensions, encoding space, and whether it is noise: one for all lines of a run."""


@dataclass
class _Run:
    """Buffers for lines, and how many lines are in them."""

    key: _Key
    headers: Array
    raw: memoryview
    """The bytes of the headers."""
    data: Array
    trajectory: Array
    count: int = 0

    @classmethod
    def start(cls, key: _Key, spare: Spare) -> _Run:
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

    def append(self, item: Line | Batch, start: int, stop: int) -> int:
        """Take lines `start` to `stop` of a batch, or a line, as far as there is room. Returns how many were taken."""
        before, count = self.count, min(stop - start, len(self.headers) - self.count)
        new = slice(before, before + count)
        if isinstance(item, Line):
            raw: Any = item.raw
            item.fill(self.data[before], self.trajectory[before])
        else:
            raw = item.headers[start : start + count].view(np.uint8).data
            item.fill(item.first + start, self.data[new], self.trajectory[new])
        self.raw[before * HEADER_BYTES : (before + count) * HEADER_BYTES] = raw
        self.count += count
        return count

    def lines(self) -> Lines:
        which = slice(self.count)
        return Lines(self.headers[which], self.data[which], self.trajectory[which] if self.key[2] else None)


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


def _parts(item: Line | Batch, repetitions: _Repetitions) -> Iterator[tuple[_Key, int, int, bool]]:
    """Yield parts of a batch of one key each, or the line: its key, its first line, the one past its last, and whether
    that last line may complete an image. No other line of it may."""
    if isinstance(item, Line):
        flags, samples, coils, encoding, dimensions, slice_, phase, repetition, set_ = _FIELDS.unpack_from(item.raw)
        noise = bool(flags & _NOISE)
        completing = flags & _CLOSING or (not noise and repetitions.begins((slice_, phase, set_, encoding), repetition))
        yield (coils, samples, dimensions, encoding, noise), 0, 1, bool(completing)
        return
    headers, idx = item.headers, item.headers["idx"]
    noise, completes = (headers["flags"] & np.uint64(some) != 0 for some in (_NOISE, _CLOSING))
    keys = np.stack([*(headers[name] for name in _SHAPE), noise], axis=-1)
    places = np.stack([*(idx[name] for name in ("slice", "phase", "set", "repetition")), keys[:, 3]], axis=-1)
    others = np.flatnonzero(~(noise | completes))
    for n in others[_changed(places[others])].tolist():
        slice_, phase, set_, repetition, encoding = places[n].tolist()
        completes[n] = repetitions.begins((slice_, phase, set_, encoding), repetition)
    ends = np.flatnonzero(completes | np.append(_changed(keys)[1:], True)) + 1
    for start, stop in itertools.pairwise([0, *ends.tolist()]):
        *shape, kind = keys[start].tolist()
        yield (*shape, bool(kind)), start, stop, bool(completes[stop - 1])


def _changed(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows (line, field) are not like the row before them; the first one is not."""
    changed = np.ones(len(rows), np.bool_)
    changed[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    return changed


def coalesce(stream: Iterable[Line | Batch | Item]) -> Iterator[Item]:
    """Make `Lines` of each run of lines, which come one by one or in batches; other items pass in order.

    A run ends before another shape, encoding space, kind (noise or not) or item. It ends after each line that may
    complete an image, which is then not kept waiting: the last in a slice, repetition or measurement, and the first of
    a slice's next repetition. It also ends at 256 lines or 4 MiB. Raises InputError for a line too large.
    """
    run: _Run | None = None
    repetitions, spare = _Repetitions(), Spare()
    for item in stream:
        if not isinstance(item, Line | Batch):
            if run:
                yield run.lines()
                run = None
            yield item
            continue
        for key, start, stop, completing in _parts(item, repetitions):
            if run and run.key != key:
                yield run.lines()
                run = None
            while start < stop:
                run = run or _Run.start(key, spare)
                start += run.append(item, start, stop)
                if run.count == len(run.headers) or (completing and start == stop):
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


def require_samples(lines: Lines) -> None:
    """Raises InputError for lines without coils or samples: a list of a sequence's lines has such ones."""
    _, coils, samples = lines.data.shape
    if not coils * samples:
        raise InputError(f"acquisition {counter(lines)} (scan_counter) has {coils} coils of {samples} samples each")


def counter(lines: Lines) -> int:
    """The scan counter of the first line, for errors."""
    return int(lines.headers["scan_counter"][0])
