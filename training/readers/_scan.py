"""ISMRMRD files of Cartesian scans: what their headers say. The lines themselves: `_kspace`.

Axes: z = encode step 2, y = encode step 1, x = readout for grids, with the k-space centre at n // 2.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.mrd.header import read_header
from training.readers.files import MOST_ALONG_AN_AXIS, MOST_VALUES, hdf5

__all__ = ["CALIBRATION", "GROUP", "REVERSE", "Grid", "Image", "Rows", "Scan", "gap", "is_scan", "positions", "scan"]

Rows = NDArray[np.int64]

GROUP = "dataset"
MOST_LINES = 1 << 24
MOST_NOISE_LINES = 4096
NOISE, CALIBRATION, CALIBRATION_AND_IMAGING, REVERSE = (1 << (flag - 1) for flag in (19, 20, 21, 22))
NO_IMAGE = sum(1 << (flag - 1) for flag in (19, 23, 24, 26, 27, 28, 29, 30, 31))
"""Noise, navigators, phase correction, feedback, dummies, surface coil correction, phase stabilisation."""
_COUNTERS = ("repetition", "set", "phase", "slice", "contrast", "kspace_encode_step_1", "kspace_encode_step_2")
_FIELDS = (
    *("flags", "number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample"),
    *("encoding_space_ref", "sample_time_us"),
)


@dataclass(frozen=True)
class Grid:
    """Where lines belong."""

    matrix: tuple[int, int, int]
    """(x, y, z) as encoded, readout oversampling included."""
    width: int
    """Along x without oversampling."""
    offsets: tuple[int, int]
    """What is added to the counters of encode steps 1 and 2."""
    volume: bool
    """Encode step 2 is in use; x is inverse-transformed."""


@dataclass(frozen=True)
class Image:
    """Lines of one slice or volume."""

    key: tuple[int, ...]
    """(repetition, set, phase, slice)."""
    echoes: tuple[Rows, ...]
    """Rows of the file, for each contrast."""
    calibration: Rows
    """Rows of separate calibration lines of the same slice; may be empty."""


@dataclass(frozen=True)
class Scan:
    """A file's headers."""

    path: str
    grid: Grid
    coils: int
    images: tuple[Image, ...]
    echo_times: tuple[float, ...]
    """s, of all contrasts; empty where the header does not say."""
    bandwidth: float
    """Relative receiver noise bandwidth."""
    noise: Rows
    """Rows of noise lines."""
    deviations: tuple[float, ...]
    """Standard deviation of each coil's noise, where the file has `rec_std`, as mridata.org's have."""
    heads: NDArray[np.void]
    """(line,) of what is needed of the acquisitions' headers."""
    patient: str
    """What the header calls the patient; empty: nothing. For comparing only: it goes nowhere else."""


def is_scan(path: Path) -> bool:
    """Whether an HDF5 file is ISMRMRD's. Raises InputError where it cannot be read."""
    with hdf5(path) as file:
        group = file.get(GROUP)
        return isinstance(group, h5py.Group) and "xml" in group and "data" in group


def scan(path: str | Path) -> Scan:
    """The headers of a file; kept in memory until the file changes. Raises InputError: not a Cartesian ISMRMRD scan,
    lines outside of the encoded matrix, coils that change."""
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such file")
    stat = Path(path).stat()
    return _scan(str(path), stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=512)
def _scan(path: str, changed: int, size: int) -> Scan:
    with hdf5(path) as file:
        group = file.get(GROUP)
        if not isinstance(group, h5py.Group) or "xml" not in group or "data" not in group:
            raise InputError(f"{path}: not ISMRMRD (it has no {GROUP}/xml and {GROUP}/data)")
        xml = group["xml"][()]
        heads = _heads(path, group["data"])
        deviations = _deviations(group, heads)
    try:
        header = read_header(xml).header
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    image = (heads["flags"] & NO_IMAGE) == 0
    if not image.any():
        raise InputError(f"{path}: has no lines of an image")
    spaces, counts = np.unique(heads["encoding_space_ref"][image], return_counts=True)
    space = int(spaces[np.argmax(counts)])
    image &= heads["encoding_space_ref"] == space
    coils = np.unique(heads["active_channels"][image])
    if len(coils) > 1:
        raise InputError(f"{path}: the number of coils changes within the scan ({', '.join(map(str, coils))})")
    if coils[0] < 1 or heads["number_of_samples"][image].min() < 1:
        raise InputError(f"{path}: has acquisitions without coils or samples")
    grid, separate = _grid(path, header, space, heads[image])
    _require_on_grid(path, grid, heads, image)
    if grid.matrix[1] * grid.matrix[2] * int(coils[0]) * (1 if grid.volume else grid.width) > MOST_VALUES:
        raise InputError(f"{path}: slices of {grid.matrix} samples and {coils[0]} coils are absurdly large")
    calibration = image & ((heads["flags"] & CALIBRATION) != 0)
    both = (heads["flags"] & CALIBRATION_AND_IMAGING) != 0
    reference = image & (calibration | both) if separate else np.zeros_like(image)
    image = image & (both | ~calibration) if separate else image
    if not image.any():
        raise InputError(f"{path}: has only calibration lines")
    return Scan(
        path=path,
        grid=grid,
        coils=int(coils[0]),
        images=tuple(_images(heads, image, reference)),
        echo_times=tuple(float(te) * 1e-3 for te in getattr(header.sequenceParameters, "TE", None) or ()),
        bandwidth=_bandwidth(header),
        noise=np.flatnonzero((heads["flags"] & NOISE) != 0)[:MOST_NOISE_LINES],
        deviations=deviations,
        heads=heads,
        patient=_patient(header),
    )


def gap(scan: Scan, image: Image) -> str:
    """What keeps an image from being fully sampled, in a few words; empty: nothing does.

    Lines beyond a band around the centre may be missing (zero-filled scans, elliptical ones), within it none.
    """
    x, y, z = scan.grid.matrix
    for number, rows in enumerate(image.echoes):
        heads = scan.heads[rows]
        sampled = np.zeros((z, y), bool)
        sampled[positions(scan.grid, heads)] = True
        lines, partitions = (np.flatnonzero(sampled.any(axis=axis)) for axis in (0, 1))
        for name, found, size in (("encode step 1", lines, y), ("encode step 2", partitions, z)):
            lower, upper = size // 2 - found[0], found[-1] + 1 - size // 2
            if size > 1 and min(lower, upper + size % 2) < 0.8 * max(lower, upper):
                return f"contrast {number}: {name} covers {found[0]} to {found[-1]} of {size}, one-sided"
        for line in sampled[partitions[0] : partitions[-1] + 1]:
            there = np.flatnonzero(line)
            if not len(there) or len(there) < there[-1] + 1 - there[0]:
                return f"contrast {number}: {int(sampled.sum())} of {y * z} lines were sampled, with gaps"
        for line in sampled[:, lines].T:
            there = np.flatnonzero(line)
            if len(there) < there[-1] + 1 - there[0]:
                return f"contrast {number}: {int(sampled.sum())} of {y * z} lines were sampled, with gaps"
        samples = heads["number_of_samples"].astype(int) - heads["discard_pre"] - heads["discard_post"]
        if (samples < 0.8 * np.where(samples > scan.grid.width, x, scan.grid.width)).any():
            return f"contrast {number}: partial echo"
    return ""


# Headers


def _heads(path: str, records: Any) -> NDArray[np.void]:
    if (
        not isinstance(records, h5py.Dataset)
        or records.ndim != 1
        or not {"head", "data"} <= set(records.dtype.names or ())
    ):
        raise InputError(f"{path}: {GROUP}/data must hold acquisitions")
    if len(records) > MOST_LINES:
        raise InputError(f"{path}: has {len(records)} acquisitions, which is absurdly many")
    kinds = {name: records.dtype["head"][name] for name in _FIELDS} | dict.fromkeys(_COUNTERS, np.dtype(np.uint16))
    kept = np.zeros(len(records), [(name, "<u8" if name == "flags" else kind) for name, kind in kinds.items()])
    for start in range(0, len(records), 16384):
        block = records.fields("head")[start : start + 16384]
        for name in _FIELDS:
            kept[name][start : start + len(block)] = block[name]
        for name in _COUNTERS:
            kept[name][start : start + len(block)] = block["idx"][name]
    return kept


def _grid(path: str, header: Any, space: int, heads: NDArray[np.void]) -> tuple[Grid, bool]:
    """The grid, and whether calibration lines are no lines of the image."""
    if space >= len(header.encoding):
        raise InputError(f"{path}: its data refer to encoding space {space}, the header has {len(header.encoding)}")
    encoding = header.encoding[space]
    trajectory = getattr(encoding.trajectory, "value", encoding.trajectory)
    if trajectory not in (None, "cartesian"):
        raise InputError(f"{path}: has a {trajectory} trajectory; only cartesian scans can be read")
    encoded, recon = encoding.encodedSpace, encoding.reconSpace
    x, y, z = (int(getattr(encoded.matrixSize, axis)) for axis in "xyz")
    if not all(1 <= n <= MOST_ALONG_AN_AXIS for n in (x, y, z)) or x * y * z > MOST_VALUES:
        raise InputError(f"{path}: its header has the matrix {x} x {y} x {z}, which is empty or absurdly large")
    if heads["kspace_encode_step_2"].min() == heads["kspace_encode_step_2"].max():
        z = 1  # slices of a volume that was transformed along z, or 2-D
    whole, wanted = (space.fieldOfView_mm.x for space in (encoded, recon))
    reduced = max(round(x * wanted / whole), 1) if whole and wanted and 0 < wanted < whole else x
    limits = encoding.encodingLimits
    steps = [getattr(limits, f"kspace_encoding_step_{n}", None) for n in (1, 2)]
    offsets = [
        _offset(heads[f"kspace_encode_step_{n + 1}"], limit, size)
        for n, (limit, size) in enumerate(zip(steps, (y, z), strict=True))
    ]
    mode = getattr(encoding.parallelImaging, "calibrationMode", None)
    separate = getattr(mode, "value", mode) not in ("embedded", "interleaved")
    return Grid((x, y, z), reduced, (offsets[0], offsets[1]), z > 1), separate


def _offset(counters: NDArray[np.uint16], limit: Any, size: int) -> int:
    """From counter to position: the announced centre comes to size // 2. Some converters leave the centre at 0."""
    if size == 1:
        return -int(counters[0])
    if limit is None:
        return 0
    offset = size // 2 - int(limit.center)
    return 0 if limit.center == 0 and int(counters.max()) + offset >= size else offset


def _require_on_grid(path: str, grid: Grid, heads: NDArray[np.void], image: NDArray[np.bool_]) -> None:
    for step, offset, size in zip((1, 2), grid.offsets, grid.matrix[1:], strict=True):
        counter = heads[f"kspace_encode_step_{step}"].astype(np.int64)
        outside = image & ((counter + offset < 0) | (counter + offset >= size))
        if outside.any():
            row = int(np.argmax(outside))
            raise InputError(
                f"{path}: acquisition {row} has kspace_encode_step_{step} {counter[row]}, outside of the encoded "
                f"matrix of {size} (counters from {-offset} to {size - 1 - offset})"
            )


def _images(heads: NDArray[np.void], image: NDArray[np.bool_], reference: NDArray[np.bool_]) -> Iterator[Image]:
    names = ("repetition", "set", "phase", "slice")
    keys = np.stack([heads[name] for name in names], axis=-1)
    rows = np.flatnonzero(image)
    unique, which = np.unique(keys[rows], axis=0, return_inverse=True)
    order = np.argsort(which.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(which.reshape(-1)))
    for key, own in zip(unique, np.split(rows[order], ends[:-1]), strict=True):
        contrast = heads["contrast"][own]
        echoes = tuple(own[contrast == c] for c in np.unique(contrast))
        calibration = np.flatnonzero(reference & (heads["slice"] == key[-1]))
        first = calibration[heads["contrast"][calibration] == heads["contrast"][calibration].min(initial=65535)]
        yield Image(tuple(int(k) for k in key), echoes, first)


def _deviations(group: h5py.Group, heads: NDArray[np.void]) -> tuple[float, ...]:
    found = group.get("rec_std")
    if not isinstance(found, h5py.Dataset) or found.dtype.kind != "f" or found.size != heads["active_channels"][-1]:
        return ()
    values = np.asarray(found[()], np.float64).ravel()
    return tuple(values.tolist()) if (np.isfinite(values) & (values > 0)).all() else ()


def _bandwidth(header: Any) -> float:
    value = getattr(header.acquisitionSystemInformation, "relativeReceiverNoiseBandwidth", None)
    return 0.793 if value is None else float(value)


def _patient(header: Any) -> str:
    subject = header.subjectInformation
    return str(getattr(subject, "patientID", None) or getattr(subject, "patientName", None) or "")


def positions(grid: Grid, heads: NDArray[np.void]) -> tuple[Rows, Rows]:
    """(z, y)."""
    y, z = (heads[f"kspace_encode_step_{n + 1}"].astype(np.int64) + grid.offsets[n] for n in (0, 1))
    return z, y
