"""Lines put on the grid of k-space: where they belong, their readouts, averages, and what was sampled.

Axes: line, coil, sample for blocks of lines; z, y, coil, x for k-space, z being encode step 2 and y encode step 1. In
volumes x is inverse-transformed as lines come in. The k-space centre is at n // 2 of every axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from array_api_compat import device
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.mrd.encoding import Encoding, Limit
from mrnets.mrd.flags import Flag, has_flag
from mrnets.mrd.images import distinct
from mrnets.mrd.lines import Lines, take
from mrnets.physics.arrays import Array, array_namespace, asarray_like
from mrnets.physics.fourier import fftc, ifftc, resize

__all__ = ["Echo", "acquired_twice", "add_lines", "averages", "kspace_and_mask", "positions"]


_LATE = 2**32 - 1
"""Later than any time stamp."""


@dataclass
class Echo:
    """One echo of one slice or volume."""

    kspace: Array
    """(z, y, coil, x): sums over averages. A view: in memory y lies within coil, as `Raw` wants it."""
    counts: NDArray[np.int32]
    """(z, y): how many lines came for each place."""
    start: NDArray[np.int32]
    """(z, y): the first sample along x that all of them have."""
    stop: NDArray[np.int32]
    """(z, y): one past the last."""
    header: NDArray[np.void]
    """() of `ACQUISITION_HEADER`: of the line nearest to the k-space centre, `distance` lines from it."""
    window: slice
    """The readout positions of a volume that are kept: all, unless memory is short."""
    distance: int = np.iinfo(np.int32).max
    times: NDArray[np.uint32] = field(default_factory=lambda: np.array(4 * [(_LATE, 0)], np.uint32))
    """(stamp, 2): the earliest and the latest acquisition time stamp, and the same of the three physiological ones."""

    @classmethod
    def empty(cls, encoding: Encoding, lines: Lines, window: slice = slice(None)) -> Echo:
        """An echo without lines, for lines like `lines`, on their device. `window`: of a volume only."""
        xp = array_namespace(lines.data)
        x, y, z = encoding.reduced.matrix
        width = len(range(x)[window])
        memory = xp.zeros((z, lines.data.shape[1], y, width), dtype=xp.complex64, device=device(lines.data))
        counts, start, stop = np.zeros((3, z, y), np.int32)
        stop[...] = width
        return cls(xp.moveaxis(memory, 1, 2), counts, start, stop, lines.headers[0].copy(), window)

    def readout_limit(self) -> Limit:
        """What was sampled along x."""
        used = self.counts > 0
        return Limit(int(self.start[used].min()), self.kspace.shape[-1] // 2, int(self.stop[used].max()) - 1)


def add_lines(echo: Echo, lines: Lines, encoding: Encoding) -> None:
    """Put lines where they belong. Raises InputError naming a line that does not belong on the grid."""
    y, z = positions(lines.headers, encoding)
    for part, which in _alike(lines):
        data, start, stop = _on_grid(part, encoding)
        if encoding.volume:
            data, start, stop = data[..., echo.window], 0, echo.kspace.shape[-1]
        _put(echo, data, (z[which], y[which]), start, stop)
    distance = np.abs(y - encoding.encoded.matrix[1] // 2) + np.abs(z - encoding.encoded.matrix[2] // 2)
    nearest = int(np.argmin(distance))
    if distance[nearest] < echo.distance:
        echo.distance = int(distance[nearest])
        echo.header = lines.headers[nearest].copy()
    _add_times(echo, lines.headers)


def _add_times(echo: Echo, headers: NDArray[np.void]) -> None:
    """Lines without a time stamp tell nothing."""
    stamped = headers[headers["acquisition_time_stamp"] > 0]
    if len(stamped):
        stamps = np.column_stack([stamped["acquisition_time_stamp"], stamped["physiology_time_stamp"]])
        echo.times[:, 0] = np.minimum(echo.times[:, 0], stamps.min(axis=0))
        echo.times[:, 1] = np.maximum(echo.times[:, 1], stamps.max(axis=0))


def acquired_twice(lines: Lines) -> bool:
    """Whether two of the lines have the same place and the same average."""
    idx = lines.headers["idx"]
    names = ("kspace_encode_step_1", "kspace_encode_step_2", "average")
    places = np.zeros(len(lines), np.uint64)
    for name in names:
        places = (places << np.uint64(16)) | idx[name]
    return len(np.unique(places)) < len(places)


def kspace_and_mask(echo: Echo, encoding: Encoding) -> tuple[Array, NDArray[np.bool_]]:
    """(batch, 1, coil, y, x) and (y, x), as in `Raw`; sums are divided by their counts in place, so use it once."""
    kspace = echo.kspace
    xp = array_namespace(kspace)
    if (echo.counts > 1).any():
        kspace *= asarray_like(1 / np.maximum(echo.counts, 1), kspace, dtype=xp.float32)[..., None, None]
    if encoding.volume:
        return xp.permute_dims(kspace, (3, 2, 0, 1))[:, None], echo.counts > 0
    x = np.arange(kspace.shape[-1])
    mask = (x >= echo.start[..., None]) & (x < echo.stop[..., None]) & (echo.counts > 0)[..., None]
    if (echo.start > 0).any() or (echo.stop < len(x)).any():
        kspace *= asarray_like(mask[:, :, None], kspace)
    return xp.permute_dims(kspace, (0, 2, 1, 3))[:, None], mask[0]


def averages(echoes: Sequence[Echo]) -> float:
    """How many lines were averaged into one place: the harmonic mean over all places that got any."""
    counts = np.concatenate([echo.counts[echo.counts > 0] for echo in echoes])
    return float(len(counts) / np.sum(1 / counts))


def positions(headers: NDArray[np.void], encoding: Encoding) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The positions along y and z of the lines with these headers (line,).

    Raises InputError naming the first line that is outside of the grid."""
    found = []
    for step, offset, size in zip((1, 2), encoding.offsets, encoding.encoded.matrix[1:], strict=True):
        counter = headers["idx"][f"kspace_encode_step_{step}"].astype(np.int64)
        outside = (counter + offset < 0) | (counter + offset >= size)
        if outside.any():
            bad = int(np.argmax(outside))
            raise InputError(
                f"acquisition {int(headers['scan_counter'][bad])} has kspace_encode_step_{step} "
                f"{counter[bad]}, which is outside of the encoded matrix of {size} "
                f"(counters from {-offset} to {size - 1 - offset})"
            )
        found.append(counter + offset)
    return found[0], found[1]


def _alike(lines: Lines) -> Iterator[tuple[Lines, NDArray[np.int64]]]:
    """Lines of the same direction, centre and discarded samples together, and their indices."""
    fields = [lines.headers[name] for name in ("center_sample", "discard_pre", "discard_post")]
    for _, which in distinct(np.stack([has_flag(lines.headers, Flag.IS_REVERSE), *fields], axis=-1)):
        yield take(lines, which), which


def _on_grid(lines: Lines, encoding: Encoding) -> tuple[Array, int, int]:
    """Lines (line, coil, x), alike in layout, on the readout grid without oversampling, in image space for volumes.

    With them the first sample along x and one past the last. Raises InputError if they miss the centre."""
    header, data = lines.headers[0], lines.data
    n, size, reduced = data.shape[-1], encoding.encoded.matrix[0], encoding.reduced.matrix[0]
    centre, pre, post = (int(header[name]) for name in ("center_sample", "discard_pre", "discard_post"))
    if (centre == 0 or centre >= n) and n in (size, reduced):
        centre = n // 2  # not set
    if has_flag(lines.headers, Flag.IS_REVERSE)[0]:
        data, centre, pre, post = array_namespace(data).flip(data, axis=-1), n - 1 - centre, post, pre
    if centre <= reduced // 2 and n - centre <= reduced - reduced // 2:
        size = reduced  # an earlier gadget has removed the oversampling
    shift = size // 2 - centre
    start, stop = max(shift + pre, 0), min(shift + n - post, size)
    if n - pre - post - (stop - start) > size // 16 + 1:
        raise InputError(
            f"acquisition {int(header['scan_counter'])} has {n} samples with centre {centre}, which reach beyond "
            f"the readout of {size} that the header announces"
        )
    if not start <= size // 2 < stop:
        raise InputError(
            f"acquisition {int(header['scan_counter'])} has {n} samples with centre {centre} and {pre} + {post} "
            f"discarded, which misses the k-space centre of a readout of {size}"
        )
    if (n, start, stop) != (size, 0, size):
        filled = array_namespace(data).zeros((*data.shape[:2], size), dtype=data.dtype, device=device(data))
        filled[..., start:stop] = data[..., start - shift : stop - shift]
        data = filled
    if size == reduced and not encoding.volume:
        return data, start, stop
    if encoding.volume:
        return _image_along_x(data, reduced), 0, reduced
    step = size / reduced
    first = int(np.ceil((start - size // 2) / step)) + reduced // 2
    last = int(np.floor((stop - 1 - size // 2) / step)) + reduced // 2
    return _without_oversampling(data, reduced), max(first, 0), min(last + 1, reduced)


def _without_oversampling(data: Array, size: int) -> Array:
    """Lines (line, coil, x) with the middle `size` pixels of their field of view."""
    n = data.shape[-1]
    if n % 2 or size % 2:
        return fftc(resize(ifftc(data, axes=(-1,)), (size,), axes=(-1,)), axes=(-1,))
    # For even sizes centring is a factor (-1)^x before and after, which cancels: without it there is half the work.
    xp = array_namespace(data)
    image = xp.fft.ifft(data, norm="ortho")
    return xp.fft.fft(xp.concat([image[..., : size // 2], image[..., n - size // 2 :]], axis=-1), norm="ortho")


def _image_along_x(data: Array, size: int) -> Array:
    """Lines (line, coil, x), inverse-transformed along x; the middle `size` pixels."""
    n = data.shape[-1]
    if n % 2 or size % 2:
        return resize(ifftc(data, axes=(-1,)), (size,), axes=(-1,))
    xp = array_namespace(data)
    image = xp.fft.ifft(data, norm="ortho")
    image = xp.concat([image[..., n - size // 2 :], image[..., : size // 2]], axis=-1)
    image *= asarray_like((-1.0) ** (np.arange(size) - size // 2), data, dtype=xp.float32)
    return image


def _put(echo: Echo, data: Array, places: tuple[NDArray[Any], NDArray[Any]], start: int, stop: int) -> None:
    """Add lines (line, coil, x) at places (z, y). Lines of one place are added one after the other."""
    z, y = places
    for which in _passes(z * echo.counts.shape[1] + y):
        values = data if len(which) == len(y) else data[asarray_like(which, data)]
        at = (z[which], y[which])
        there = tuple(asarray_like(index, data) for index in at)
        if (echo.counts[at] == 0).all():
            echo.kspace[there] = values
        else:
            echo.kspace[there] += values
        echo.counts[at] += 1
        echo.start[at] = np.maximum(echo.start[at], start)
        echo.stop[at] = np.minimum(echo.stop[at], stop)


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
