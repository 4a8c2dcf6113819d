"""Scans in ISMRMRD's HDF5 files: header, acquisitions (see `mrnets.mrd.records`), waveforms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import ismrmrd
import numpy as np
from ismrmrd.hdf5 import acquisition_dtype, waveform_dtype, waveform_header_dtype
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.hdf5 import whole_hdf5
from mrnets.hdf5_reading import opened, require_lengths, require_own, require_sound
from mrnets.mrd.lines import ACQUISITION_HEADER, Batch, Item, Lines, coalesce
from mrnets.mrd.others import START, of_hdf5, of_start
from mrnets.mrd.records import acquisitions, explained, whole_headers
from mrnets.mrd.streams import MAGIC, Stream, is_stream, open_stream
from mrnets.mrd.xml import MAX_BYTES
from mrnets.physics.arrays import Array, to_numpy

__all__ = [
    "ENDINGS",
    "Scan",
    "append_waveform",
    "first_bytes",
    "hdf5",
    "header_in",
    "is_scan",
    "open_scan",
    "open_source",
    "write_scan",
]

Opening: TypeAlias = Callable[[str | Path], AbstractContextManager[h5py.File]]

ENDINGS = (".h5", ".hdf5", ".mrd", ".ismrmrd", ".stream")
"""Endings of files that hold a scan, as HDF5 or as a stream; the content tells which. siemens_to_ismrmrd writes streams
since its version 1.3."""
WAVEFORM_BLOCK = 1024
HEADER_BLOCK = 16384
MAX_ACQUISITIONS = 1 << 24


@dataclass(frozen=True)
class Scan:
    """An open scan; to be read while it is open."""

    path: str
    header: Any
    """The ISMRMRD header as the file holds it: text, bytes, or an array of either or of 8-bit integers."""
    folder: h5py.Group

    @property
    def acquisitions(self) -> int:
        """How many there are."""
        return len(self.folder["data"])

    def items(self) -> Iterator[Item]:
        """Lines and waveforms in the order of time. Waveforms come before the first acquisition with a later time
        stamp. Raises InputError for records that do not fit their headers, and where the file is corrupt."""
        return coalesce(_merge(self))

    def lines(self, rows: NDArray[np.integer[Any]]) -> Iterator[Lines]:
        """The acquisitions with these numbers (ascending). Raises InputError as `items` does."""
        return coalesce(acquisitions(self.path, self.folder["data"], rows))

    def headers(self, fields: Sequence[str]) -> NDArray[np.void]:
        """These fields of the headers of all acquisitions, (acquisition,). Samples are not read. Raises InputError."""
        records, count = self.folder["data"], self.acquisitions
        if count > MAX_ACQUISITIONS:
            raise InputError(f"{self.path}: has {count} acquisitions; at most {MAX_ACQUISITIONS} are taken.")
        found = np.empty(count, [(name, ACQUISITION_HEADER[name]) for name in fields])
        for start in range(0, count, HEADER_BLOCK):
            with explained(self.path):
                block = records.fields("head")[start : start + HEADER_BLOCK]
            whole = whole_headers(self.path, block)
            for name in fields:
                found[name][start : start + len(block)] = whole[name]
        return found


@contextmanager
def open_scan(path: str | Path, group: str = "dataset") -> Iterator[Scan]:
    """The scan in `group` of an ISMRMRD file.

    Raises InputError for a file that is missing, not HDF5, cut short or corrupt. Raises it for a missing group (it
    lists those with scans), header or acquisitions. Raises it for samples that are no floating-point numbers or that
    h5py cannot read.
    """
    with hdf5(path, opened) as file:
        with explained(path):
            folder = _scan_in(file, path, group)
            header = header_in(path, folder["xml"])
        yield Scan(str(path), header, folder)


def header_in(path: str | Path, node: Any) -> Any:
    """Return the ISMRMRD header as a node of a file holds it. Raises InputError and OSError before too much is read."""
    if not isinstance(node, h5py.Dataset):
        raise InputError(f"{path}: {node.name}, the ISMRMRD header, is no data set.")
    if node.dtype.kind not in "SUiu" and h5py.check_string_dtype(node.dtype) is None:
        # HDF5 can crash where a damaged file has lists of numbers here.
        raise InputError(f"{path}: the ISMRMRD header is neither text nor bytes.")
    size = node.nbytes or 0
    if size > MAX_BYTES:
        raise InputError(f"{path}: the ISMRMRD header has {size} bytes; at most {MAX_BYTES} are taken.")
    if size:
        require_lengths(path, node, 0, node.size)
    return node[()]


def _scan_in(file: h5py.File, path: str | Path, group: str) -> h5py.Group:
    if not _is_scan(file.get(group)):
        scans = _scans(file)
        if not scans and (told := of_hdf5(file, group)):
            raise InputError(f"{path}: {told}.")
        there = ", ".join(scans) or "none"
        raise InputError(f'{path}: there is no scan in the group "{group}"; groups with scans: {there}.')
    folder = file[group]
    for name in ("xml", "data", "waveforms"):
        if name in folder:
            require_own(file, f"{group}/{name}")
            require_sound(folder[name])
    if "xml" not in folder:
        raise InputError(f'{path}: the scan in the group "{group}" has no ISMRMRD header (data set xml).')
    if not len(folder["data"]):
        raise InputError(f'{path}: the scan in the group "{group}" has no acquisitions.')
    _require_numbers(path, folder["data"].dtype["data"])
    if "waveforms" in folder and not _has_fields(folder["waveforms"]):
        raise InputError(f'{path}: the waveforms in the group "{group}" do not have the fields of ISMRMRD.')
    return folder


def is_scan(path: str | Path, group: str = "dataset") -> bool:
    """Whether an HDF5 file has a scan in `group`. Raises InputError where the file cannot be read."""
    with hdf5(path) as file, explained(path):
        return _is_scan(file.get(group))


@contextmanager
def hdf5(path: str | Path, opening: Opening = h5py.File) -> Iterator[h5py.File]:
    """An HDF5 file, open for reading. Raises InputError: no such file, not HDF5."""
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such file.")
    with ExitStack() as stack:
        with explained(path):
            start = first_bytes(path)
            if is_stream(start):
                raise InputError(f"{path}: is a stream of ISMRMRD, not HDF5; ismrmrd_stream_to_hdf5 makes HDF5 of it.")
            if start.startswith(MAGIC):
                way = "mrd_to_ismrmrd and ismrmrd_stream_to_hdf5 make HDF5 of it"
                raise InputError(f"{path}: is a stream of MRD version 2, not HDF5; {way}.")
            if not h5py.is_hdf5(path) and (told := of_start(Path(path), first_bytes(path, START))):
                raise InputError(f"{path}: {told}.")
            file = stack.enter_context(opening(path))
        yield file


@contextmanager
def open_source(path: str | Path) -> Iterator[Scan | Stream]:
    """The scan in an ISMRMRD file: HDF5 (the group "dataset"), or a stream. Raises InputError as `open_scan` does."""
    if Path(path).is_file() and is_stream(first_bytes(path)):
        with explained(path):
            stream = open_stream(path)
        yield stream
        return
    with open_scan(path) as scan:
        yield scan


def first_bytes(path: str | Path, count: int = 8) -> bytes:
    """The first `count` bytes of a file; fewer of a shorter one. Raises InputError where it cannot be read."""
    with explained(path), open(path, "rb") as file:
        return file.read(count)


def _is_scan(node: Any) -> bool:
    return isinstance(node, h5py.Group) and _has_fields(node.get("data"))


def _has_fields(data: Any) -> bool:
    """Return whether `data` is a list of records with a head and data."""
    return isinstance(data, h5py.Dataset) and data.ndim == 1 and set(data.dtype.names or ()) >= {"head", "data"}


def _require_numbers(path: str | Path, stored: np.dtype[Any]) -> None:
    """Raises InputError for samples that cannot be read. h5py does not swap the bytes of arrays of changing length."""
    number = h5py.check_vlen_dtype(stored)
    part = number if number is None or number.names is None else number[0]
    if part is None or part.kind not in "fc":
        raise InputError(f"{path}: its samples are stored as {part or stored}; floating-point numbers were expected.")
    if part.newbyteorder("<") != part:
        raise InputError(f"{path}: its samples are stored in big-endian order; little-endian numbers were expected.")


def _scans(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visititems(lambda name, node: found.append(str(name)) if _is_scan(node) else None)
    return found


def _merge(scan: Scan) -> Iterator[Batch | ismrmrd.Waveform]:
    """Acquisitions and waveforms, each in the order of the file, merged by their time stamps."""
    waveforms = _waveforms(scan.path, scan.folder["waveforms"]) if "waveforms" in scan.folder else iter(())
    waveform = next(waveforms, None)
    for batch in acquisitions(scan.path, scan.folder["data"], np.arange(scan.acquisitions)):
        times, start = batch.headers["acquisition_time_stamp"], 0
        while waveform is not None and (later := times[start:] > waveform.time_stamp).any():
            before, start = start, start + int(np.argmax(later))
            if before < start:
                yield batch.part(before, start)
            yield waveform
            waveform = next(waveforms, None)
        yield batch.part(start, len(times))
    while waveform is not None:
        yield waveform
        waveform = next(waveforms, None)


def _waveforms(path: str | Path, records: h5py.Dataset) -> Iterator[ismrmrd.Waveform]:
    for start in range(0, len(records), WAVEFORM_BLOCK):
        with explained(path):
            require_lengths(path, records, start, min(start + WAVEFORM_BLOCK, len(records)))
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

    Raises TypeError for other items, and InputError as `mrnets.files.whole` does. No file is left if anything fails."""
    with whole_hdf5(path) as (file, draft):
        folder = file.create_group(group)
        folder.create_dataset("xml", (1,), h5py.special_dtype(vlen=bytes))[0] = header
        records = folder.create_dataset("data", (0,), acquisition_dtype, maxshape=(None,), chunks=(64,))
        for item in coalesce(items):
            _append_item(folder, records, item)
            draft.check()


def _append_item(folder: h5py.Group, records: h5py.Dataset, item: Item) -> None:
    if isinstance(item, ismrmrd.Waveform):
        append_waveform(folder, item)
    elif isinstance(item, Lines):
        _append(records, _line_records(item))
    elif isinstance(item, ismrmrd.Acquisition):
        head = np.frombuffer(bytes(item.getHead()), ACQUISITION_HEADER)
        _append(records, _line_records(Lines(head, item.data[None], item.traj[None] if item.traj.size else None)))
    else:
        raise TypeError(f"a scan has no place for a {type(item).__name__}")


def append_waveform(folder: h5py.Group, waveform: ismrmrd.Waveform) -> None:
    """Add a waveform to the group of a scan or of images."""
    if "waveforms" not in folder:
        folder.create_dataset("waveforms", (0,), waveform_dtype, maxshape=(None,), chunks=(64,))
    _append(folder["waveforms"], _waveform_record(waveform))


def _append(dataset: h5py.Dataset, rows: Array) -> None:
    dataset.resize(len(dataset) + len(rows), axis=0)
    dataset[-len(rows) :] = rows


def _line_records(lines: Lines) -> Array:
    data = np.ascontiguousarray(to_numpy(lines.data), np.complex64)
    rows = np.empty(len(lines), acquisition_dtype)
    rows["head"] = lines.headers
    for n, row in enumerate(data):
        rows["data"][n] = row.view(np.float32).ravel()
        rows["traj"][n] = np.empty(0, np.float32) if lines.trajectory is None else lines.trajectory[n].ravel()
    return rows


def _waveform_record(waveform: ismrmrd.Waveform) -> Array:
    row = np.empty(1, waveform_dtype)
    row["head"] = np.frombuffer(bytes(waveform.getHead()), waveform_header_dtype)
    row["data"][0] = np.asarray(waveform.data, np.uint32).ravel()
    return row
