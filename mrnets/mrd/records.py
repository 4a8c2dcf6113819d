"""Acquisitions of an ISMRMRD file. A record of the file is ismrmrd's: header, trajectory, samples.

Samples go from the file straight to where they are wanted, if they lie there as ismrmrd's own library writes them.
Otherwise, and where the file is damaged, h5py reads them in blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.hdf5_heap import REFERENCE, Heaps
from mrnets.hdf5_reading import Stored, require_lengths
from mrnets.mrd.lines import ACQUISITION_HEADER, Batch
from mrnets.physics.arrays import Array

__all__ = ["acquisitions", "explained", "whole_headers"]

Fill: TypeAlias = Callable[[int, Array, Array], None]
"""As `Batch.fill`."""
Rows: TypeAlias = NDArray[np.integer[Any]]
"""Numbers of records, ascending."""

BLOCK_BYTES = 32 << 20
BLOCK_RECORDS = 4096
_NOTHING = np.empty(0, np.float32)


@contextmanager
def explained(path: str | Path) -> Iterator[None]:
    """Raises HDF5's exceptions as InputError."""
    try:
        yield
    except BlockingIOError as error:  # HDF5 locks a file that is being written
        raise InputError(f"{path}: is open in another program that writes it; close it there first.") from error
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read; it is cut short, corrupt or not HDF5 ({reason}).") from error


def acquisitions(path: str, records: h5py.Dataset, rows: Rows) -> Iterator[Batch]:
    """Yield the acquisitions with these numbers in batches; they are read while `records` are open.

    Raises InputError for records that do not fit their headers, and where the file is corrupt."""
    start, step = 0, 16
    with open(path, "rb", buffering=0) as file:
        layout = _layout(records, file.fileno())
        while start < len(rows):
            which = rows[start : start + step]
            batch = None if layout is None else _in_heaps(path, records, which, layout)
            batch = batch or _by_library(path, records, which)
            yield batch
            start += len(which)
            each = _bytes(batch.headers, records.dtype["data"]) // len(which)
            step = max(1, min(2 * step, BLOCK_RECORDS, BLOCK_BYTES // max(each, 1)))


def _bytes(headers: NDArray[np.void], stored: np.dtype[Any]) -> int:
    """Return the memory that records take once h5py has read them; a trajectory may have double precision.

    stored: the type of their samples. A header that announces less than its record has is refused when it is filled."""
    number = h5py.check_vlen_dtype(stored)
    part = number[0] if number.names else number
    sample = part.itemsize * (1 if part.kind == "c" else 2)
    names = ("number_of_samples", "active_channels", "trajectory_dimensions")
    samples, coils, dimensions = (headers[name].astype(np.int64) for name in names)
    return int((samples * (coils * sample + dimensions * 8)).sum())


def whole_headers(path: str | Path, headers: Array) -> NDArray[np.void]:
    """Return headers (acquisition,) as the wire has them. Raises InputError for those of another version."""
    if headers.dtype.names != ACQUISITION_HEADER.names:
        raise InputError(f"{path}: its acquisition headers do not have the fields of ISMRMRD version 1.")
    return np.ascontiguousarray(headers.astype(ACQUISITION_HEADER, copy=False))


# By h5py


def _by_library(path: str, records: h5py.Dataset, which: Rows) -> Batch:
    with explained(path):
        require_lengths(path, records, int(which[0]), int(which[-1]) + 1)
        block = _records(records, which)
    headers = whole_headers(path, block["head"])
    trajectories = block["traj"] if "traj" in block.dtype.names else [_NOTHING] * len(block)

    def fill(first: int, data: Array, places: Array) -> None:
        for n, (samples, own) in enumerate(zip(data, places, strict=True), first):
            _fill(f"{path}: acquisition {which[n]}", block["data"][n], trajectories[n], samples, own)

    return Batch(headers, fill)


def _records(records: h5py.Dataset, which: Rows) -> Array:
    """Records by number. HDF5 reads a range much faster than single records, so a range with gaps is read whole."""
    first, end = int(which[0]), int(which[-1]) + 1
    if end - first == len(which):
        return records[first:end]
    return records[first:end][which - first] if end - first <= 4 * len(which) else records[which]


def _fill(what: str, samples: Array, trajectory: Array, data: Array, places: Array) -> None:
    """Fill the samples and the trajectory of one line. Raises InputError where the file does not have as many."""
    numbers = _real(samples)
    if numbers.size != 2 * data.size or trajectory.size != places.size:
        raise InputError(
            f"{what} has {numbers.size / 2:g} samples and {trajectory.size} trajectory values; "
            f"its header announces {data.size} and {places.size}."
        )
    data[...] = numbers.view(np.complex64).reshape(data.shape)
    places[...] = trajectory.reshape(places.shape)


def _real(samples: Array) -> NDArray[np.float32]:
    """Real and imaginary parts in a row. The file may hold complex numbers, and double precision."""
    parts = samples.view(samples.dtype[0]) if samples.dtype.names else samples
    return np.ascontiguousarray(parts.view(parts.real.dtype), np.float32)


# From the heaps of the file


@dataclass(frozen=True)
class _Layout:
    """Where records of the file are, and where a record has its parts: bytes from its start."""

    stored: Stored
    head: int
    samples: int
    trajectory: int | None


def _layout(records: h5py.Dataset, file: int) -> _Layout | None:
    """Return where the parts of a record are; None for records that only h5py reads."""
    created, types, kind = records.file.id.get_create_plist(), records.dtype, records.id.get_type()
    at = {kind.get_member_name(n).decode(): kind.get_member_offset(n) for n in range(kind.get_nmembers())}
    usual = tuple(created.get_sizes()) == (8, 8) and not created.get_userblock()
    usual &= bool(types["head"] == ACQUISITION_HEADER)
    usual &= all(h5py.check_vlen_dtype(types[name]) == np.dtype("<f4") for name in ("data", "traj") if name in at)
    stored = Stored.of(records, file) if usual else None
    return None if stored is None else _Layout(stored, at["head"], at["data"], at.get("traj"))


def _in_heaps(path: str, records: h5py.Dataset, which: Rows, layout: _Layout) -> Batch | None:
    """The records that are in the file as it is; None where one of them is not as its header announces."""
    raw = layout.stored.records(which)
    if raw is None:
        return None
    headers = _part(raw, layout.head, ACQUISITION_HEADER)
    samples, trajectories = (
        np.zeros(len(raw), REFERENCE) if at is None else _part(raw, at, REFERENCE)
        for at in (layout.samples, layout.trajectory)
    )
    count = headers["number_of_samples"].astype(np.int64)
    announced = 2 * count * headers["active_channels"], count * headers["trajectory_dimensions"]
    if any((found["length"] != size).any() for found, size in zip((samples, trajectories), announced, strict=True)):
        return None
    heaps = Heaps(layout.stored.file)

    def fill(first: int, data: Array, places: Array) -> None:
        for n, (line, own) in enumerate(zip(data, places, strict=True), first):
            try:
                for reference, into in ((samples[n], line), (trajectories[n], own)):
                    if into.size:
                        _, heap, number = reference.item()
                        heaps.read(heap, number, into)
            except (OSError, OverflowError):  # damaged, and h5py says how
                _by_library(path, records, which[n : n + 1]).fill(0, data[n - first :][:1], places[n - first :][:1])

    return Batch(headers, fill)


def _part(raw: NDArray[np.uint8], at: int, kind: np.dtype[np.void]) -> NDArray[np.void]:
    """Return one part of each record (record, byte)."""
    return np.ascontiguousarray(raw[:, at : at + kind.itemsize]).view(kind)[:, 0]
