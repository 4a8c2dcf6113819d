"""Lines put on the grid of k-space: their positions, readouts and averages, and the sampled positions.

Axes: line, coil, sample for blocks of lines; z, y, coil, x for k-space, z being encode step 2 and y encode step 1. In
volumes x is inverse-transformed as lines come in. The k-space centre is at n // 2 of every axis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from array_api_compat import device
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.mrd.encoding import Encoding, Limit
from mrnets.mrd.flags import Flag, has_flag
from mrnets.mrd.images import distinct
from mrnets.mrd.lines import Lines, counter, take
from mrnets.mrd.plausible import TWICE, Repeats
from mrnets.mrd.readout import centre_of, on_readout
from mrnets.mrd.refused import MAX_OUTSIDE, Refused
from mrnets.mrd.spare import Spare
from mrnets.mrd.strength import Strength, peaks_of
from mrnets.physics.arrays import Array, array_namespace, asarray_like, is_numpy_array

__all__ = [
    "Echo",
    "add_lines",
    "averages",
    "belong",
    "clear_gaps",
    "kspace_and_mask",
    "line_counts",
    "on_grid",
    "outvoted",
    "positions",
    "restarted",
]

_LATE = 2**32 - 1
"""Later than any time stamp."""


@dataclass
class Echo:
    """One echo of one slice or volume."""

    kspace: Array
    """(z, y, coil, x): sums over averages. A view: in memory y lies within coil, as `Raw` wants it. On the host, places
    without lines have arbitrary values until `clear_gaps`."""
    counts: NDArray[np.int32]
    """(z, y): how many lines came for each place."""
    start: NDArray[np.int32]
    """(z, y): the first sample along x that all of them have."""
    stop: NDArray[np.int32]
    """(z, y): one past the last."""
    averages: NDArray[np.uint64]
    """(z, y): bit n is set where average n (of the first 64) came."""
    header: NDArray[np.void]
    """() of `ACQUISITION_HEADER`: of the line nearest to the k-space centre, `distance` lines from it."""
    window: slice
    """The readout positions of a volume that are kept: all, unless memory is short."""
    partition: int
    """kspace_encode_step_2 of most of the first lines; of all lines, in a slice."""
    distance: int = np.iinfo(np.int32).max
    times: NDArray[np.uint32] = field(default_factory=lambda: np.array(4 * [(_LATE, 0)], np.uint32))
    """(stamp, 2): the earliest and the latest acquisition time stamp, and the same of the three physiological ones."""
    lines: int = 0
    """Lines so far."""
    outside: Refused = field(default_factory=Refused)
    """Lines so far that were left out, since they have no place on the grid."""
    refused: Refused = field(default_factory=Refused)
    """Other lines that were left out: of another partition than their slice, or with a readout that does not fit."""
    centres: Counter[tuple[bool, int, int]] = field(default_factory=Counter)
    """How many lines have each direction (True: reversed), number of samples and sample at the k-space centre."""
    repeats: Repeats = field(default_factory=Repeats)
    strength: Strength | None = None
    """The strength of its lines. None where k-space is more than its lines put to their places, or on a device."""
    notes: dict[str, None] = field(default_factory=dict)
    """Sentences on guesses and faults, once each, in order."""

    @classmethod
    def empty(cls, encoding: Encoding, lines: Lines, window: slice = slice(None), spare: Spare | None = None) -> Echo:
        """An echo without lines, for lines like `lines`, on their device. `window`: of a volume only. `spare`: where
        its memory on the host comes from."""
        xp = array_namespace(lines.data)
        x, y, z = encoding.reduced.matrix
        width = len(range(x)[window])
        shape = (z, lines.data.shape[1], y, width)
        if is_numpy_array(lines.data):
            memory = (spare or Spare()).empty(shape)
        else:
            memory = xp.zeros(shape, dtype=xp.complex64, device=device(lines.data))
        counts, start, stop = np.zeros((3, z, y), np.int32)
        stop[...] = width
        averages = np.zeros((z, y), np.uint64)
        header = lines.headers[0].copy()
        partition = _usual_partition(lines.headers)
        strength = Strength.of_none(z, y, width) if is_numpy_array(memory) else None
        return cls(
            xp.moveaxis(memory, 1, 2), counts, start, stop, averages, header, window, partition, strength=strength
        )

    def readout_limit(self) -> Limit:
        """The range that was sampled along x."""
        used = self.counts > 0
        return Limit(int(self.start[used].min()), self.kspace.shape[-1] // 2, int(self.stop[used].max()) - 1)


def add_lines(echo: Echo, lines: Lines, encoding: Encoding) -> None:
    """Put lines where they belong; those that cannot be placed are counted and left out: see `mrnets.mrd.left_out`.

    They have no place on the grid, are of another partition than their slice, or have a readout that does not fit."""
    echo.lines += len(lines)
    lines = _of_partition(echo, lines, encoding)
    y, z = positions(lines.headers, encoding)
    placed = on_grid(y, z, encoding)
    if not placed.all():
        first = int(lines.headers["scan_counter"][np.argmin(placed)])
        echo.outside.add(int(np.count_nonzero(~placed)), "", first)
        lines, y, z = take(lines, np.flatnonzero(placed)), y[placed], z[placed]
    kept = np.ones(len(lines), np.bool_)
    for part, which in _alike(lines):
        try:
            data, start, stop, note = on_readout(part, encoding)
        except InputError as error:
            echo.refused.add(len(part), str(error), counter(part))
            kept[which] = False
            continue
        echo.notes |= {note: None} if note else {}
        if encoding.volume:
            data, start, stop = data[..., echo.window], 0, echo.kspace.shape[-1]
        _watch_averages(echo, part.headers, y[which], z[which])
        _put(echo, part, data, (z[which], y[which]), (start, stop))
        backwards, samples = bool(has_flag(part.headers, Flag.IS_REVERSE)[0]), part.data.shape[-1]
        echo.centres[backwards, samples, centre_of(part.headers[0], encoding)] += len(part)
    if kept.any():
        _describe(echo, lines.headers[kept], y[kept], z[kept], encoding)


def _describe(
    echo: Echo, headers: NDArray[np.void], y: NDArray[np.int64], z: NDArray[np.int64], encoding: Encoding
) -> None:
    """Keep what is told of the echo by the headers of lines at (y, z), in the order in which they came."""
    distance = np.abs(y - encoding.encoded.matrix[1] // 2) + np.abs(z - encoding.encoded.matrix[2] // 2)
    nearest = int(np.argmin(distance))
    if distance[nearest] < echo.distance:
        echo.distance = int(distance[nearest])
        echo.header = headers[nearest].copy()
    _add_times(echo, headers)


def _add_times(echo: Echo, headers: NDArray[np.void]) -> None:
    """Lines without a time stamp are left out."""
    stamped = headers[headers["acquisition_time_stamp"] > 0]
    if len(stamped):
        stamps = np.column_stack([stamped["acquisition_time_stamp"], stamped["physiology_time_stamp"]])
        echo.times[:, 0] = np.minimum(echo.times[:, 0], stamps.min(axis=0))
        echo.times[:, 1] = np.maximum(echo.times[:, 1], stamps.max(axis=0))


def _usual_partition(headers: NDArray[np.void]) -> int:
    """Return the kspace_encode_step_2 that most lines have; of several, the smallest."""
    return int(np.argmax(np.bincount(headers["idx"]["kspace_encode_step_2"])))


def outvoted(echo: Echo, lines: Lines, encoding: Encoding) -> bool:
    """Whether `lines` show that the few lines of a slice so far had a wrong partition. Theirs is that of the slice."""
    partitions = lines.headers["idx"]["kspace_encode_step_2"]
    if encoding.volume or (partitions == echo.partition).any():
        return False
    same = int(np.count_nonzero(partitions == _usual_partition(lines.headers)))
    return same > MAX_OUTSIDE * int(echo.counts.sum())


def restarted(echo: Echo, lines: Lines, encoding: Encoding, spare: Spare) -> Echo:
    """Return an empty echo for `lines`, by which `echo` was outvoted. The lines of `echo` are left out."""
    fresh = Echo.empty(encoding, lines, spare=spare)
    refused = Refused.together([echo.refused])
    reason = _other_partition(echo.header, fresh.partition, encoding)
    refused.add(int(echo.counts.sum()), reason, int(echo.header["scan_counter"]))
    return replace(fresh, lines=echo.lines, outside=echo.outside, refused=refused)


def _of_partition(echo: Echo, lines: Lines, encoding: Encoding) -> Lines:
    """Return the lines of the slice's partition, after counting the others."""
    other = lines.headers["idx"]["kspace_encode_step_2"] != echo.partition
    if encoding.volume or not other.any():
        return lines
    first = lines.headers[np.argmax(other)]
    reason = _other_partition(first, echo.partition, encoding)
    echo.refused.add(int(np.count_nonzero(other)), reason, int(first["scan_counter"]))
    return take(lines, np.flatnonzero(~other))


def _other_partition(header: NDArray[np.void], partition: int, encoding: Encoding) -> str:
    return (
        f"acquisition {int(header['scan_counter'])} has kspace_encode_step_2 {header['idx']['kspace_encode_step_2']}, "
        f"other lines of its slice {partition}, but {encoding.name} has one partition; if it is 3-D, set "
        f"sort.dimensions to 3d"
    )


def _watch_averages(echo: Echo, headers: NDArray[np.void], y: NDArray[np.int64], z: NDArray[np.int64]) -> None:
    """Note lines that came twice: of one place and one average."""
    average = headers["idx"]["average"].astype(np.uint64)
    bits = np.left_shift(np.uint64(1), np.minimum(average, np.uint64(63)))
    places = (z * echo.counts.shape[1] + y).astype(np.uint64) << np.uint64(16) | average
    again = (echo.averages[z, y] & bits != 0) & (average < 64)
    if again.any() or len(set(places.tolist())) < len(places):
        echo.notes[TWICE] = None
    np.bitwise_or.at(echo.averages, (z, y), bits)


def clear_gaps(echo: Echo) -> None:
    """Make k-space zero where no line came."""
    _clear(echo, *np.nonzero(echo.counts == 0))


def _clear(echo: Echo, z: NDArray[Any], y: NDArray[Any]) -> None:
    """Make some places zero. On a device they are zero from the start."""
    if is_numpy_array(echo.kspace):
        echo.kspace[z, y] = 0


def kspace_and_mask(echo: Echo, encoding: Encoding) -> tuple[Array, NDArray[np.bool_]]:
    """(batch, 1, coil, y, x) and (y, x), as in `Raw`; sums are divided by their counts in place, so use it once."""
    clear_gaps(echo)
    kspace = echo.kspace
    xp = array_namespace(kspace)
    if (echo.counts > 1).any():
        echo.strength = None
        kspace *= asarray_like(1 / np.maximum(echo.counts, 1), kspace, dtype=xp.float32)[..., None, None]
    if encoding.volume:
        return xp.permute_dims(kspace, (3, 2, 0, 1))[:, None], echo.counts > 0
    x = np.arange(kspace.shape[-1])
    mask = (x >= echo.start[..., None]) & (x < echo.stop[..., None]) & (echo.counts > 0)[..., None]
    if (echo.start > 0).any() or (echo.stop < len(x)).any():
        echo.strength = None
        kspace *= asarray_like(mask[:, :, None], kspace)
    return xp.permute_dims(kspace, (0, 2, 1, 3))[:, None], mask[0]


def averages(counts: Sequence[NDArray[np.integer[Any]]]) -> float:
    """Return how many lines were averaged into one place: the harmonic mean over all places that got any.

    counts: (z, y) for each echo, how many lines each place got."""
    there = np.concatenate([count[count > 0] for count in counts])
    return float(len(there) / np.sum(1 / there))


def line_counts(headers: NDArray[np.void], encoding: Encoding) -> NDArray[np.int64]:
    """(z, y): how many of the lines with these headers belong to each place of the grid."""
    _, height, depth = encoding.encoded.matrix
    y, z = positions(headers, encoding)
    placed = on_grid(y, z, encoding)
    return np.bincount((z * height + y)[placed], minlength=depth * height).reshape(depth, height)


def belong(
    doubtful: NDArray[np.void], line: NDArray[np.void], counts: NDArray[np.integer[Any]], encoding: Encoding
) -> bool:
    """Whether doubtful lines (line,), see `flags.is_doubtful`, are lines of an echo.

    They are, if they have the shape of the echo's other lines, and no other line has their positions.
    line: one of the other lines. counts: (z, y), how many other lines each position got."""
    fields = ("number_of_samples", "active_channels")
    alike = all((doubtful[name] == line[name]).all() for name in fields)
    partitions = doubtful["idx"]["kspace_encode_step_2"]
    one = encoding.volume or bool((partitions == line["idx"]["kspace_encode_step_2"]).all())
    return alike and one and not ((counts > 0) & (line_counts(doubtful, encoding) > 0)).any()


def positions(headers: NDArray[np.void], encoding: Encoding) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The positions along y and z of the lines with these headers (line,). They may lie outside of the grid."""
    y, z = (headers["idx"][f"kspace_encode_step_{n + 1}"].astype(np.int64) + encoding.offsets[n] for n in (0, 1))
    return y, z if encoding.volume else np.zeros_like(y)


def on_grid(y: NDArray[np.int64], z: NDArray[np.int64], encoding: Encoding) -> NDArray[np.bool_]:
    """Whether each position is on the grid: (line,)."""
    _, height, depth = encoding.encoded.matrix
    return (y >= 0) & (y < height) & (z >= 0) & (z < depth)


def _alike(lines: Lines) -> Iterator[tuple[Lines, NDArray[np.int64]]]:
    """Lines of the same direction, centre and discarded samples together, and their indices."""
    if not len(lines):
        return
    fields = [lines.headers[name] for name in ("center_sample", "discard_pre", "discard_post")]
    for _, which in distinct(np.stack([has_flag(lines.headers, Flag.IS_REVERSE), *fields], axis=-1)):
        yield take(lines, which), which


def _put(
    echo: Echo, lines: Lines, data: Array, grid: tuple[NDArray[Any], NDArray[Any]], readout: tuple[int, int]
) -> None:
    """Add lines, of which `data` (line, coil, x) is on the grid, at their places (z, y) of `grid`.

    Lines of one place are added one after the other. readout: the first sample along x and one past the last."""
    z, y = grid
    for which in _passes(z * echo.counts.shape[1] + y):
        values = data if len(which) == len(y) else data[asarray_like(which, data)]
        at = (z[which], y[which])
        there = at if is_numpy_array(data) else tuple(asarray_like(index, data) for index in at)
        again = echo.counts[at] > 0
        if again.any():
            echo.strength = None
            _clear(echo, *(index[~again] for index in at))
            echo.repeats.add(values, echo.kspace[there], echo.counts[at])
            echo.kspace[there] += values
        elif echo.strength is None:
            echo.kspace[there] = values
        else:
            echo.strength.peaks[at] = lines.peaks[which] if data is lines.data else peaks_of(values)
            echo.strength.put(values, echo.kspace, *at)
        echo.counts[at] += 1
        echo.start[at] = np.maximum(echo.start[at], readout[0])
        echo.stop[at] = np.minimum(echo.stop[at], readout[1])


def _passes(places: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Indices into `places`, in passes that have every place once at most."""
    order = np.argsort(places, kind="stable")
    ordered = places[order]
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    if first.all():
        yield np.arange(len(places))
        return
    index = np.arange(len(places))
    turn = index - np.maximum.accumulate(np.where(first, index, 0))
    for n in range(int(turn.max()) + 1):
        yield np.sort(order[turn == n])
