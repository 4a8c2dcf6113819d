"""Lines of ISMRMRD files, read in blocks and put on their grid.

It comes to the k-space to which the gadgets' sort comes; tests hold this. Axes: line, coil, sample for lines; z =
encode step 2, y = encode step 1, x = readout for grids, with the k-space centre at n // 2.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.physics.fourier import fftc, ifftc, resize
from mrnets.physics.whiten import covariance, noise_scale
from training.readers._scan import GROUP, REVERSE, Image, Rows, Scan, positions, scan
from training.readers.files import hdf5

__all__ = ["gridded", "noise"]

BLOCK_BYTES = 32 << 20


@np.errstate(invalid="ignore", over="ignore")  # values that are not finite are found by whoever takes the slice
def gridded(scan: Scan, rows: Rows, part: slice = slice(None)) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
    """k-space (z, y, coil, x) of the lines `rows`, averaged where a place comes several times, and what was sampled,
    (z, y, x). In volumes x is inverse-transformed; `part` of it. Memory: that, and a block of lines."""
    grid = scan.grid
    x = np.arange(grid.width)[part]
    kspace = np.zeros((grid.matrix[2], grid.matrix[1], scan.coils, len(x)), np.complex64)
    counts = np.zeros(kspace.shape[:2], np.int32)
    start, stop = np.zeros(counts.shape, np.int32), np.full(counts.shape, grid.width, np.int32)
    for which, data in _lines(scan, rows):
        heads = scan.heads[which]
        alike = ("number_of_samples", "center_sample", "discard_pre", "discard_post")
        kinds = np.stack([*(heads[name].astype(np.int64) for name in alike), heads["flags"] & REVERSE], axis=-1)
        for kind in np.unique(kinds, axis=0):
            chosen = np.flatnonzero((kinds == kind).all(axis=-1))
            line = np.stack([data[n] for n in chosen])
            values, first, end = _on_grid(scan, line, heads[chosen[0]], int(which[chosen[0]]))
            at = positions(grid, heads[chosen])
            np.add.at(counts, at, 1)
            if counts[at].max() > 1:  # slow, but right where a place comes twice
                np.add.at(kspace, at, values[..., part])
            else:
                kspace[at] = values[..., part]
            np.maximum.at(start, at, first)
            np.minimum.at(stop, at, end)
    if (counts > 1).any():
        kspace *= (1 / np.maximum(counts, 1)).astype(np.float32)[..., None, None]
    mask = (x >= start[..., None]) & (x < stop[..., None]) & (counts > 0)[..., None]
    if start.any() or (stop < grid.width).any():
        kspace *= mask[:, :, None]
    return kspace, mask


def noise(scan: Scan, image: Image) -> NDArray[np.complex64] | None:
    """Covariance (coil, coil) at the dwell time of `image`; None where no noise was measured. Raises InputError."""
    if len(scan.noise):
        stat = Path(scan.path).stat()
        matrix = _covariance(scan.path, stat.st_mtime_ns, stat.st_size)
        if len(matrix) != scan.coils:
            raise InputError(f"{scan.path}: {scan.coils} coils, but {len(matrix)} in the noise measurement")
        dwells = [float(scan.heads["sample_time_us"][rows[0]]) for rows in (image.echoes[0], scan.noise)]
        return matrix / np.float32(noise_scale(dwells[0], dwells[1], scan.bandwidth) ** 2)
    return np.diag(np.square(scan.deviations)).astype(np.complex64) if scan.deviations else None


@functools.lru_cache(maxsize=64)
def _covariance(path: str, changed: int, size: int) -> NDArray[np.complex64]:
    found = scan(path)
    lines = [line for _, block in _lines(found, found.noise) for line in block]
    try:
        return np.asarray(covariance(np.concatenate(lines, axis=-1)))
    except (InputError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None


def _lines(scan: Scan, rows: Rows) -> Iterator[tuple[Rows, list[NDArray[np.complex64]]]]:
    """Rows of the file and their samples, each (coil, sample), in blocks."""
    heads = scan.heads
    most = int(heads["number_of_samples"][rows].max(initial=1)) * int(heads["active_channels"][rows].max(initial=1)) * 8
    step = max(1, min(4096, BLOCK_BYTES // max(most, 1)))
    with hdf5(scan.path) as file:
        records = file[GROUP]["data"].fields("data")
        for start in range(0, len(rows), step):
            which = rows[start : start + step]
            dense = which[-1] + 1 - which[0] <= 4 * len(which)
            read = records[which[0] : which[-1] + 1][which - which[0]] if dense else records[which]
            yield which, [_samples(scan, int(n), samples) for n, samples in zip(which, read, strict=True)]


def _samples(scan: Scan, row: int, samples: Any) -> NDArray[np.complex64]:
    head = scan.heads[row]
    shape = (int(head["active_channels"]), int(head["number_of_samples"]))
    values = samples if samples.dtype == np.complex64 else np.ascontiguousarray(samples, np.float32).view(np.complex64)
    if values.size != shape[0] * shape[1]:
        raise InputError(f"{scan.path}: acquisition {row} has {values.size} samples, its header says {shape}")
    return values.reshape(shape)


def _on_grid(scan: Scan, data: Any, head: np.void, row: int) -> tuple[Any, int, int]:
    """Lines (line, coil, x), alike in layout, on the grid without oversampling, transformed along x for volumes; with
    the first sample along x and one past the last. Raises InputError for samples that do not belong on it."""
    n, size, width = data.shape[-1], scan.grid.matrix[0], scan.grid.width
    centre, pre, post = (int(head[name]) for name in ("center_sample", "discard_pre", "discard_post"))
    if (centre == 0 or centre >= n) and n in (size, width):
        centre = n // 2  # not set
    if head["flags"] & REVERSE:
        data, centre, pre, post = data[..., ::-1], n - 1 - centre, post, pre
    if centre <= width // 2 and n - centre <= width - width // 2:
        size = width  # oversampling was removed before
    shift = size // 2 - centre
    start, stop = max(shift + pre, 0), min(shift + n - post, size)
    if n - pre - post - (stop - start) > size // 16 + 1 or not start <= size // 2 < stop:
        raise InputError(
            f"{scan.path}: acquisition {row} has {n} samples with centre {centre}, which do not fit a readout of {size}"
        )
    if (n, start, stop) != (size, 0, size):
        filled = np.zeros((*data.shape[:2], size), np.complex64)
        filled[..., start:stop] = data[..., start - shift : stop - shift]
        data = filled
    if scan.grid.volume:
        return resize(ifftc(data, axes=(-1,)), (width,), axes=(-1,)), 0, width
    if size == width:
        return data, start, stop
    step = size / width
    first = math.ceil((start - size // 2) / step) + width // 2
    last = math.floor((stop - 1 - size // 2) / step) + width // 2
    return fftc(resize(ifftc(data, axes=(-1,)), (width,), axes=(-1,)), axes=(-1,)), max(first, 0), min(last + 1, width)
