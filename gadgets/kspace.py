"""K-space in the making: where lines belong, how they get onto the grid, and what is sampled in the end.

Axes: line, coil, sample for blocks of lines; z, y, coil, x for k-space, z being encode step 2 and y encode step 1. In
volumes x is inverse-transformed as lines come in. The k-space centre is at n // 2 of every axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import device
from numpy.typing import NDArray

from gadgets.encoding import Encoding
from gadgets.frame import Limit
from gadgets.lines import Flag, Lines, has_flag
from mrnets.errors import InputError
from mrnets.physics.arrays import Array, array_namespace, asarray_like
from mrnets.physics.fourier import fftc, ifftc, resize
from mrnets.physics.masks import LEAST_CALIBRATION, calibration_region

__all__ = [
    "Echo",
    "acquired_twice",
    "add_lines",
    "centre_block",
    "distinct",
    "has_centre_block",
    "kspace_and_mask",
    "on_spacing_of",
    "take",
]


@dataclass
class Echo:
    """One echo of one slice or volume."""

    kspace: Array
    """(z, y, coil, x): sums over averages. A view: in memory y lies within coil, as `Raw` wants it."""
    counts: NDArray[np.int32]
    """(z, y): how many lines each place has got."""
    start: NDArray[np.int32]
    """(z, y): the first sample along x that all of them have."""
    stop: NDArray[np.int32]
    """(z, y): one past the last."""
    header: NDArray[np.void]
    """() of `ACQUISITION_HEADER`: of the line nearest to the k-space centre, `distance` lines from it."""
    distance: int = np.iinfo(np.int32).max

    @classmethod
    def empty(cls, encoding: Encoding, lines: Lines) -> Echo:
        """For lines like `lines`, on their device."""
        xp = array_namespace(lines.data)
        x, y, z = encoding.reduced.matrix
        memory = xp.zeros((z, lines.data.shape[1], y, x), dtype=xp.complex64, device=device(lines.data))
        counts, start, stop = np.zeros((3, z, y), np.int32)
        stop[...] = x
        return cls(xp.moveaxis(memory, 1, 2), counts, start, stop, lines.headers[0].copy())

    def readout_limit(self) -> Limit:
        """What was sampled along x."""
        used = self.counts > 0
        return Limit(int(self.start[used].min()), self.kspace.shape[-1] // 2, int(self.stop[used].max()) - 1)


def add_lines(echo: Echo, lines: Lines, encoding: Encoding) -> None:
    """Put lines where they belong. Raises InputError naming a line that does not belong on the grid."""
    y, z = _positions(lines, encoding)
    for part, which in _alike(lines):
        data, start, stop = _on_grid(part, encoding)
        _put(echo, data, (z[which], y[which]), start, stop)
    distance = np.abs(y - encoding.encoded.matrix[1] // 2) + np.abs(z - encoding.encoded.matrix[2] // 2)
    nearest = int(np.argmin(distance))
    if distance[nearest] < echo.distance:
        echo.distance = int(distance[nearest])
        echo.header = lines.headers[nearest].copy()


def acquired_twice(lines: Lines) -> bool:
    """Whether two of the lines have the same place and the same average."""
    idx = lines.headers["idx"]
    names = ("kspace_encode_step_1", "kspace_encode_step_2", "average")
    places = np.zeros(len(lines), np.uint64)
    for name in names:
        places = (places << np.uint64(16)) | idx[name]
    return len(np.unique(places)) < len(places)


def kspace_and_mask(echo: Echo, encoding: Encoding) -> tuple[Array, NDArray[np.bool_]]:
    """(batch, 1, coil, y, x) and (y, x), as in `Raw`; averages are divided by their number. Ends the use of `echo`."""
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


def has_centre_block(mask: NDArray[np.bool_]) -> bool:
    """Whether there is a fully sampled block around the centre that is worth the name."""
    return min(calibration_region(mask)) >= LEAST_CALIBRATION


def centre_block(kspace: Array, mask: NDArray[np.bool_]) -> Array | None:
    """The largest fully sampled block around the centre, (batch, 1, coil, y', x'); None if it is too small."""
    return resize(kspace[:, :1], calibration_region(mask)) if has_centre_block(mask) else None


def on_spacing_of(block: Array, source: Encoding, target: Encoding) -> Array:
    """A calibration block of `source` on the k-space spacing of `target`: in image space, to the same field of view.

    Raises InputError if one is 3-D and the other is not."""
    if source.volume != target.volume:
        raise InputError(f"sort: calibration lines of {source.name} are 2-D and {target.name} is 3-D, or the reverse")

    def side(n: int, axis: int) -> int:
        a, b = source.reduced.fov[axis], target.reduced.fov[axis]
        return max(round(n * b / a), 1) if a and b else n

    sides = [side(n, axis) for n, axis in zip(block.shape[-2:], (2, 1) if target.volume else (1, 0), strict=True)]
    if sides != list(block.shape[-2:]):
        block = fftc(resize(ifftc(block), sides))
    if not target.volume:
        return block
    block = resize(block, (side(block.shape[0], 0),), axes=(0,))
    if block.shape[0] != target.reduced.matrix[0]:
        block = ifftc(resize(fftc(block, axes=(0,)), (target.reduced.matrix[0],), axes=(0,)), axes=(0,))
    return block


def take(lines: Lines, which: NDArray[Any]) -> Lines:
    """Some of the lines, by index; all of them without a copy."""
    if len(which) == len(lines):
        return lines
    data = lines.data[asarray_like(which, lines.data)]
    trajectory = None if lines.trajectory is None else lines.trajectory[which]
    return replace(lines, headers=lines.headers[which], data=data, trajectory=trajectory)


def distinct(rows: NDArray[Any]) -> Iterator[tuple[tuple[int, ...], NDArray[np.int64]]]:
    """Each distinct row of (line, field), in order of first appearance, and the lines that have it."""
    if (rows == rows[0]).all():
        yield tuple(int(value) for value in rows[0]), np.arange(len(rows))
        return
    unique, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    for n in np.argsort(first):
        yield tuple(int(value) for value in unique[n]), np.flatnonzero(inverse.reshape(-1) == n)


def _positions(lines: Lines, encoding: Encoding) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where lines belong along y and z. Raises InputError naming the first that is outside of the grid."""
    positions = []
    for step, offset, size in zip((1, 2), encoding.offsets, encoding.encoded.matrix[1:], strict=True):
        counter = lines.headers["idx"][f"kspace_encode_step_{step}"].astype(np.int64)
        outside = (counter + offset < 0) | (counter + offset >= size)
        if outside.any():
            bad = int(np.argmax(outside))
            raise InputError(
                f"sort: acquisition {int(lines.headers['scan_counter'][bad])} has kspace_encode_step_{step} "
                f"{counter[bad]}, which is outside of the encoded matrix of {size} "
                f"(counters from {-offset} to {size - 1 - offset})"
            )
        positions.append(counter + offset)
    return positions[0], positions[1]


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
            f"sort: acquisition {int(header['scan_counter'])} has {n} samples with centre {centre}, which reach beyond "
            f"the readout of {size} that the header announces"
        )
    if not start <= size // 2 < stop:
        raise InputError(
            f"sort: acquisition {int(header['scan_counter'])} has {n} samples with centre {centre} and {pre} + {post} "
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
    """Add lines (line, coil, x) at places (z, y); a place that comes several times gets one line after the other."""
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
