"""3-D ISMRMRD scans as slices: converted once, since every readout position needs all lines.

The converted file holds `kspace` (x, echo, coil, z, y) complex64, inverse-transformed along x, and `mask` (z, y). With
separate calibration lines it also holds `calibration` (x, 1, coil, z', y'), and how many images are in its mean.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.files import Draft
from mrnets.hdf5 import whole_hdf5
from mrnets.mrd.calibration import Mean
from training.readers._calibration import calibration, windows
from training.readers._kspace import doubt, gridded
from training.readers._scan import Origin, Scan
from training.readers.files import hdf5

__all__ = ["position", "same_mask"]

FORMAT = 3
ADVICE = "3-D scans are converted to slices once; set reader.options.cache to a folder with room for them"


def position(scan: Scan, number: int, x: int, cache: str) -> tuple[NDArray[Any], NDArray[np.bool_], Mean]:
    """k-space (echo, coil, z, y), mask (z, y) and calibration (1, 1, coil, z', y') of an image at readout position x.

    The scan is converted first, unless that was done since its last change. The converted file is in the folder
    `cache`, or in .slices beside the scan where `cache` is empty. Raises InputError, also where the folder cannot be
    written.
    """
    target = _target(scan, number, cache)
    if not _is_fresh(target, scan):
        with _one_at_a_time(target):
            if not _is_fresh(target, scan):
                _convert(scan, number, target)
    with hdf5(target) as file:
        found = Mean(None)
        if "calibration" in file:
            found = Mean(file["calibration"][x : x + 1], int(file["calibration"].attrs["images"]))
        return file["kspace"][x], file["mask"][()], found


def same_mask(path: str, masks: Sequence[Any]) -> NDArray[np.bool_]:
    """The mask of all echoes. Raises InputError where they differ."""
    if any(not np.array_equal(masks[0], other) for other in masks[1:]):
        raise InputError(f"{path}: its contrasts are sampled differently, and cannot be echoes of one example")
    return np.asarray(masks[0])


def _target(scan: Scan, number: int, cache: str) -> Path:
    source = Path(scan.path).resolve()
    folder = Path(cache) if cache else source.parent / ".slices"
    key = hashlib.sha256(str(source).encode()).hexdigest()[:12]
    return folder / f"{source.stem}-{key}-{number}.h5"


def _stamp(origin: Origin) -> tuple[int, int, int, int]:
    return FORMAT, origin.size, origin.changed, zlib.crc32(repr(origin.by_hand).encode())


def _is_fresh(target: Path, scan: Scan) -> bool:
    if not target.is_file():
        return False
    try:
        with hdf5(target) as file:
            return tuple(int(n) for n in file.attrs.get("source", ())) == _stamp(scan.origin)
    except InputError:
        return False


@contextmanager
def _one_at_a_time(target: Path) -> Iterator[None]:
    """Let one of all processes convert, while the others wait."""
    from filelock import FileLock

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_suffix(".lock"))
        lock.acquire()
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}; {ADVICE}") from None
    try:
        yield
    finally:
        lock.release()


def _convert(scan: Scan, number: int, target: Path) -> None:
    with whole_hdf5(target, ADVICE) as (file, draft):
        _write(scan, number, file, draft)
        file.attrs["source"] = _stamp(scan.origin)


def _write(scan: Scan, number: int, file: h5py.File, draft: Draft) -> None:
    width, y, z = scan.encoding.reduced.matrix
    image, chunk = scan.images[number], (1, 1, scan.coils, z, y)
    kspace = file.create_dataset("kspace", (width, len(image.echoes), *chunk[2:]), np.complex64, chunks=chunk)
    masks = []
    for echo, rows in enumerate(image.echoes):
        for window in windows(scan, scan.encoding):
            block, mask = gridded(scan, rows, scan.encoding, image.key, window)
            doubt(scan, block, mask)
            for n, position in enumerate(block[:, 0], start=window.start):
                kspace[n, echo] = position
                draft.check()
        masks.append(mask)
    file["mask"] = same_mask(scan.path, masks)
    found = calibration(scan, number, masks[0])
    if found.block is not None:
        file["calibration"] = found.block
        file["calibration"].attrs["images"] = found.images
