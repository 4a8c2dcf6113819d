"""ISMRMRD's HDF5 files: scans (header, acquisitions, waveforms) and image series.

Acquisitions are read in blocks; a record of the file is ismrmrd's: header, trajectory and samples of one acquisition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
from ismrmrd.hdf5 import (
    acquisition_dtype,
    image_header_dtype,
    waveform_dtype,
    waveform_header_dtype,
)

from gadgets.lines import ACQUISITION_HEADER, Item, Line, Lines, coalesce
from gadgets.messages import IMAGE_TYPES
from mrnets.errors import InputError
from mrnets.physics.arrays import Array, to_numpy

__all__ = ["ImageFile", "Scan", "open_scan", "read_images", "write_images", "write_scan"]

BLOCK_BYTES = 32 << 20
WAVEFORM_BLOCK = 1024


@dataclass(frozen=True)
class Scan:
    """An open scan."""

    header: bytes
    """The ISMRMRD header, XML."""
    acquisitions: int
    """How many there are."""
    items: Iterator[Item]
    """Lines and waveforms in the order of time; to be read while the scan is open."""


@contextmanager
def open_scan(path: str | Path, group: str = "dataset") -> Iterator[Scan]:
    """The scan in `group` of an ISMRMRD file. Waveforms come before the first acquisition with a later time stamp.

    Raises InputError, here or while items are read: no such file, not HDF5, cut short or corrupt, no such group (lists
    those with scans), no header, no acquisitions, records that do not fit their headers.
    """
    with _open(path) as file:
        if not _is_scan(file.get(group)):
            there = ", ".join(_scans(file)) or "none"
            raise InputError(f'{path}: there is no scan in the group "{group}"; groups with scans: {there}.')
        folder = file[group]
        if "xml" not in folder:
            raise InputError(f'{path}: the scan in the group "{group}" has no ISMRMRD header (data set xml).')
        if not len(folder["data"]):
            raise InputError(f'{path}: the scan in the group "{group}" has no acquisitions.')
        with _explained(path):
            header = folder["xml"][()]
        header = header if isinstance(header, (bytes, str)) else header.flat[0]
        header = header.encode() if isinstance(header, str) else header
        yield Scan(header, len(folder["data"]), coalesce(_merge(path, folder)))


@contextmanager
def _explained(path: str | Path) -> Iterator[None]:
    """HDF5's exceptions as InputError."""
    try:
        yield
    except (OSError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read; it is cut short, corrupt or not HDF5 ({reason}).") from error


@contextmanager
def _open(path: str | Path) -> Iterator[h5py.File]:
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such file.")
    with _explained(path):
        file = h5py.File(path, "r")
    with file:
        yield file


def _is_scan(node: Any) -> bool:
    data = node.get("data") if isinstance(node, h5py.Group) else None
    return isinstance(data, h5py.Dataset) and data.ndim == 1 and set(data.dtype.names or ()) >= {"head", "data"}


def _scans(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visititems(lambda name, node: found.append(name) if _is_scan(node) else None)
    return found


def _merge(path: str | Path, folder: h5py.Group) -> Iterator[Line | ismrmrd.Waveform]:
    """Acquisitions and waveforms, each in the order of the file, merged by their time stamps."""
    waveforms = _waveforms(path, folder["waveforms"]) if "waveforms" in folder else iter(())
    waveform = next(waveforms, None)
    for time, line in _acquisitions(path, folder["data"]):
        while waveform is not None and waveform.time_stamp < time:
            yield waveform
            waveform = next(waveforms, None)
        yield line
    while waveform is not None:
        yield waveform
        waveform = next(waveforms, None)


def _acquisitions(path: str | Path, records: h5py.Dataset) -> Iterator[tuple[int, Line]]:
    start, step = 0, 16
    while start < len(records):
        with _explained(path):
            block = records[start : start + step]
        headers = _headers(path, block["head"])
        rows = headers.view(np.uint8).reshape(len(headers), -1)
        times = headers["acquisition_time_stamp"].tolist()
        trajectories = block["traj"] if "traj" in block.dtype.names else [_NOTHING] * len(block)
        for n, (time, samples, trajectory) in enumerate(zip(times, block["data"], trajectories, strict=True)):
            yield time, Line(rows[n], _filler(f"{path}: acquisition {start + n}", samples, trajectory))
        start += len(block)
        mean = sum(samples.nbytes for samples in block["data"]) // len(block)
        step = max(1, min(2 * step, 4096, BLOCK_BYTES // max(mean, 1)))


_NOTHING = np.empty(0, np.float32)


def _headers(path: str | Path, headers: Array) -> Array:
    if headers.dtype.names != ACQUISITION_HEADER.names:
        raise InputError(f"{path}: its acquisition headers do not have the fields of ISMRMRD version 1.")
    return np.ascontiguousarray(headers.astype(ACQUISITION_HEADER, copy=False))


def _filler(what: str, samples: Array, trajectory: Array) -> Callable[[Array, Array], None]:
    def fill(data: Array, places: Array) -> None:
        numbers = samples.view(np.complex64) if samples.dtype != np.complex64 else samples
        if numbers.size != data.size or trajectory.size != places.size:
            raise InputError(
                f"{what} has {numbers.size} samples and {trajectory.size} trajectory values; "
                f"its header announces {data.size} and {places.size}."
            )
        data[...] = numbers.reshape(data.shape)
        places[...] = trajectory.reshape(places.shape)

    return fill


def _waveforms(path: str | Path, records: h5py.Dataset) -> Iterator[ismrmrd.Waveform]:
    for start in range(0, len(records), WAVEFORM_BLOCK):
        with _explained(path):
            block = records[start : start + WAVEFORM_BLOCK]
        for n, record in enumerate(block):
            head = np.zeros(1, waveform_header_dtype)
            head[0] = record["head"]
            shape = (int(head["channels"][0]), int(head["number_of_samples"][0]))
            if record["data"].size != shape[0] * shape[1]:
                raise InputError(f"{path}: waveform {start + n} does not have the samples that its header announces.")
            yield ismrmrd.Waveform(head.tobytes(), record["data"].view(np.uint32).reshape(shape))


# Writing


def write_scan(path: str | Path, header: str | bytes, items: Iterable[Item], group: str = "dataset") -> None:
    """Write Lines, acquisitions and waveforms as an ISMRMRD file; a file that is there is replaced.

    Raises TypeError for other items, and leaves no file if anything fails."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        with h5py.File(partial, "w") as file:
            folder = file.create_group(group)
            folder.create_dataset("xml", (1,), h5py.special_dtype(vlen=bytes))[0] = header
            records = folder.create_dataset("data", (0,), acquisition_dtype, maxshape=(None,), chunks=(64,))
            for item in coalesce(items):
                _append_item(folder, records, item)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _append_item(folder: h5py.Group, records: h5py.Dataset | None, item: Item) -> None:
    if isinstance(item, ismrmrd.Waveform):
        if "waveforms" not in folder:
            folder.create_dataset("waveforms", (0,), waveform_dtype, maxshape=(None,), chunks=(64,))
        _append(folder["waveforms"], _waveform_record(item))
    elif isinstance(item, Lines):
        _append(records, _line_records(item))
    elif isinstance(item, ismrmrd.Acquisition):
        head = np.frombuffer(bytes(item.getHead()), ACQUISITION_HEADER)
        _append(records, _line_records(Lines(head, item.data[None], item.traj[None] if item.traj.size else None)))
    else:
        raise TypeError(f"a scan has no place for a {type(item).__name__}")


def _append(dataset: h5py.Dataset, rows: Array) -> None:
    dataset.resize(len(dataset) + len(rows), axis=0)
    dataset[-len(rows) :] = rows


def _line_records(lines: Lines) -> Array:
    data = np.ascontiguousarray(to_numpy(lines.data), np.complex64)
    rows = np.empty(len(lines), acquisition_dtype)
    rows["head"] = lines.headers
    for n, row in enumerate(data):
        rows["data"][n] = row.view(np.float32).ravel()
        rows["traj"][n] = _NOTHING if lines.trajectory is None else lines.trajectory[n].ravel()
    return rows


def _waveform_record(waveform: ismrmrd.Waveform) -> Array:
    row = np.empty(1, waveform_dtype)
    row["head"] = np.frombuffer(bytes(waveform.getHead()), waveform_header_dtype)
    row["data"][0] = np.asarray(waveform.data, np.uint32).ravel()
    return row


@contextmanager
def write_images(path: str | Path, group: str = "dataset") -> Iterator[ImageFile]:
    """An image file to append to. It is `path` only when all went well, replacing a file that is there; until then, and
    for ever if anything fails after the first image, it is `path`.partial."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}.")
    images: ImageFile | None = None
    try:
        with h5py.File(partial, "w") as file:
            images = ImageFile(file.create_group(group))
            yield images
        partial.replace(path)
    finally:
        if images is None or not images.count:
            partial.unlink(missing_ok=True)


@dataclass
class ImageFile:
    """Image series in ISMRMRD's layout: `group/image_N` with data, header and attributes, N the series index.

    Images of one series that differ in shape or type go to `image_N_1`, `image_N_2`, and so on.
    """

    group: h5py.Group
    count: int = 0
    """Images so far."""

    def append(self, item: Item) -> None:
        """Add an image to its series, or a waveform. Raises TypeError for anything else."""
        if isinstance(item, ismrmrd.Waveform):
            _append_item(self.group, None, item)
        elif isinstance(item, ismrmrd.Image):
            self._append_image(item)
        else:
            raise TypeError(f"an image file has no place for a {type(item).__name__}")

    def _append_image(self, image: ismrmrd.Image) -> None:
        head = image.getHead()
        pixels = np.asarray(image.data, IMAGE_TYPES[head.data_type])
        stored = pixels.view(_stored(pixels.dtype))
        series = self._series(f"image_{head.image_series_index}", stored)
        attributes = image.attribute_string.encode("ascii", "xmlcharrefreplace")
        head.attribute_string_len = len(attributes)
        for name, row in (("data", stored), ("header", np.frombuffer(bytes(head), image_header_dtype)[0])):
            series[name].resize(len(series[name]) + 1, axis=0)
            series[name][-1] = row
        series["attributes"].resize(len(series["attributes"]) + 1, axis=0)
        series["attributes"][-1] = attributes.decode("ascii")
        self.count += 1

    def _series(self, name: str, pixels: Array) -> h5py.Group:
        number, found = 0, name
        while found in self.group:
            data = self.group[found]["data"]
            if data.shape[1:] == pixels.shape and data.dtype == pixels.dtype:
                return self.group[found]
            number += 1
            found = f"{name}_{number}"
        series = self.group.create_group(found)
        for key, shape, dtype in (
            ("data", pixels.shape, pixels.dtype),
            ("header", (), image_header_dtype),
            ("attributes", (), h5py.special_dtype(vlen=str)),
        ):
            series.create_dataset(key, (0, *shape), dtype, maxshape=(None, *shape), chunks=(1, *shape))
        return series


def _stored(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """ISMRMRD stores complex numbers as records of real and imag."""
    if dtype.kind != "c":
        return dtype
    part = f"<f{dtype.itemsize // 2}"
    return np.dtype([("real", part), ("imag", part)])


def read_images(path: str | Path, group: str = "dataset") -> Iterator[tuple[str, Array]]:
    """Name and pixels (image, channel, z, y, x) of each series in `group`. Raises InputError."""
    with _open(path) as file, _explained(path):
        folder = file.get(group)
        if not isinstance(folder, h5py.Group):
            raise InputError(f'{path}: there is no group "{group}".')
        for name, series in folder.items():
            if isinstance(series, h5py.Group) and "header" in series and "data" in series:
                pixels = series["data"][()]
                yield name, pixels.view(f"<c{pixels.dtype.itemsize}") if pixels.dtype.names else pixels
