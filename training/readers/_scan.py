"""ISMRMRD files (HDF5, streams) of Cartesian scans: which of their lines make which image. The lines: `_kspace`.

Axes: z = encode step 2, y = encode step 1, x = readout for grids, with the k-space centre at n // 2.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ismrmrd.xsd import ismrmrdHeader
from numpy.typing import NDArray

from mrnets.errors import InputError, naming
from mrnets.mrd import files
from mrnets.mrd.calibration import nearest
from mrnets.mrd.dimensions import dimensions_of_header, dimensions_of_lines
from mrnets.mrd.direction import directed_headers
from mrnets.mrd.encoding import NOTHING_BY_HAND, ByHand, Dimensions, Encoding, encoding_of
from mrnets.mrd.flags import Flag, Roles, has_flag, is_doubtful, roles
from mrnets.mrd.header import read_header
from mrnets.mrd.images import Key, by_image
from mrnets.mrd.kspace import belong, line_counts, on_grid, positions
from mrnets.mrd.left_out import outside_note
from training.readers._centre import NOTHING_SEEN, SeenCentres, seen_centres
from training.readers.files import MAX_VALUES

__all__ = ["Calibration", "Image", "Origin", "Rows", "Scan", "gap", "scan", "scan_of"]

Rows = NDArray[np.int64]
Echoes = dict[Key, dict[int, Rows]]
"""Rows of the file, by image and contrast."""

_FIELDS = (
    *("flags", "scan_counter", "number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample"),
    *("encoding_space_ref", "sample_time_us", "idx"),
)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """A file in the state in which it was read, and what a user says of it."""

    path: str
    changed: int
    """Time of the last change, ns."""
    size: int
    by_hand: ByHand


@dataclass(frozen=True)
class Calibration:
    """Separate calibration lines of one slice or volume."""

    rows: Rows
    """Rows of the file, of the first contrast."""
    encoding: Encoding


@dataclass(frozen=True)
class Image:
    """Lines of one slice or volume."""

    key: Key
    echoes: tuple[Rows, ...]
    """Rows of the file, for each contrast."""
    contrasts: tuple[int, ...]
    calibration: Calibration | None


@dataclass(frozen=True)
class Scan:
    """A file's headers."""

    origin: Origin
    header: ismrmrdHeader
    encoding: Encoding
    """The encoding space with the most lines of images; others are calibrations at most."""
    coils: int
    images: tuple[Image, ...]
    """Ordered by their keys."""
    noise: Rows
    """Rows of noise lines."""
    navigators: dict[Key, Rows]
    """Rows of phase-correction lines, by the image that they were sent for."""
    deviations: tuple[float, ...]
    """Standard deviation of each coil's noise, where the file has `rec_std`, as mridata.org's have."""
    heads: NDArray[np.void]
    """(line,) of what is needed of the acquisitions' headers."""

    @property
    def path(self) -> str:
        """The file."""
        return self.origin.path

    @property
    def width(self) -> int:
        """Readout positions without oversampling."""
        return self.encoding.reduced.matrix[0]

    @property
    def patient(self) -> str:
        """The patient by the header's name or number; empty: nothing. For comparing only: it goes nowhere else."""
        subject = self.header.subjectInformation
        return str(getattr(subject, "patientID", None) or getattr(subject, "patientName", None) or "")


def scan(path: str | Path, by_hand: ByHand = NOTHING_BY_HAND) -> Scan:
    """The headers of a file; kept in memory until the file changes.

    Raises InputError: not a Cartesian ISMRMRD scan, too many lines outside of the encoded matrix, coils that change."""
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such file")
    stat = Path(path).stat()
    return scan_of(Origin(str(path), stat.st_mtime_ns, stat.st_size, by_hand))


@functools.lru_cache(maxsize=512)
def scan_of(origin: Origin) -> Scan:
    """The headers of a file as it was. Raises InputError as `scan`."""
    with files.open_source(origin.path) as opened:
        heads = directed_headers(opened.headers(_FIELDS), origin.by_hand)
        xml = opened.header
        deviations = _deviations(opened.folder, heads) if isinstance(opened, files.Scan) else ()
    with naming(origin.path):
        return _sorted(origin, read_header(xml).logged(origin.path).header, heads, deviations)


def _sorted(origin: Origin, header: ismrmrdHeader, heads: NDArray[np.void], deviations: tuple[float, ...]) -> Scan:
    used, doubtful = roles(heads, embedded=True).image, is_doubtful(heads)
    certain = used & ~doubtful
    if not used.any():
        raise InputError("has no lines of an image")
    if not certain.any():  # without others, doubtful lines are those of the image
        certain, doubtful = used, np.zeros_like(used)
    spaces = {
        int(n): _space(header, int(n), heads[certain], origin.by_hand)
        for n in np.unique(heads["encoding_space_ref"][certain])
    }
    role = _roles(heads, [n for n, space in spaces.items() if space.embedded])
    image = role.image & ~doubtful
    if not image.any():
        raise InputError("has only calibration lines")
    numbers, counts = np.unique(heads["encoding_space_ref"][image], return_counts=True)
    number = int(numbers[np.argmax(counts)])
    in_space = heads["encoding_space_ref"] == number
    rows = np.flatnonzero(image & in_space)
    encoding = _placed(origin, header, heads[rows[0]], spaces[number].dimensions)
    if (seen := seen_centres(encoding, header, heads, rows, origin.path, origin.by_hand)) != NOTHING_SEEN:
        encoding = _placed(origin, header, heads[rows[0]], spaces[number].dimensions, seen)
    coils = _coils(heads[certain])
    x, y, z = encoding.reduced.matrix
    if y * z * coils * (1 if encoding.volume else x) > MAX_VALUES:
        raise InputError(f"slices of {x} x {y} x {z} samples and {coils} coils are absurdly large")
    for note in (*encoding.guesses, _off_grid(heads[rows], encoding)):
        if note:
            _logger.warning("%s: %s", origin.path, note)
    echoes = _with_doubtful(heads, _echoes(heads, rows), _echoes(heads, np.flatnonzero(doubtful & in_space)), encoding)
    images = tuple(_images(echoes, _references(header, heads, role, spaces, origin.by_hand)))
    noise, navigators = np.flatnonzero(role.noise), _navigators(heads, number)
    return Scan(origin, header, encoding, coils, images, noise, navigators, deviations, heads)


def _placed(
    origin: Origin,
    header: ismrmrdHeader,
    first: NDArray[np.void],
    dimensions: Dimensions | None,
    seen: SeenCentres = NOTHING_SEEN,
) -> Encoding:
    """The encoding space of a line. seen: the centres that the data show."""
    number = int(first["encoding_space_ref"])
    return encoding_of(header, number, first, dimensions=dimensions, by_hand=origin.by_hand, seen=seen)


def _navigators(heads: NDArray[np.void], space: int) -> dict[Key, Rows]:
    flagged = has_flag(heads, Flag.IS_PHASECORR_DATA) & ~has_flag(heads, Flag.IS_NOISE_MEASUREMENT)
    rows = np.flatnonzero(flagged & (heads["encoding_space_ref"] == space))
    found: dict[Key, Rows] = {}
    for key, _, which in by_image(heads[rows], space):
        found[key] = np.sort(np.concatenate([found.get(key, rows[:0]), rows[which]]))
    return found


def _off_grid(heads: NDArray[np.void], encoding: Encoding) -> str:
    outside = np.flatnonzero(~on_grid(*positions(heads, encoding), encoding))
    first = int(heads["scan_counter"][outside[0]]) if len(outside) else -1
    return outside_note(len(heads), len(outside), first, encoding)


def gap(scan: Scan, image: Image) -> str:
    """The gap that keeps an image from being fully sampled, in a few words; empty: there is none.

    Lines beyond a band around the centre may be missing (zero-filled scans, elliptical ones), within it none.
    """
    x, y, z = scan.encoding.encoded.matrix
    for number, rows in enumerate(image.echoes):
        heads = scan.heads[rows]
        sampled = line_counts(heads, scan.encoding) > 0
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
        if (samples < 0.8 * np.where(samples > scan.width, x, scan.width)).any():
            return f"contrast {number}: partial echo"
    return ""


@dataclass(frozen=True)
class _Space:
    """An encoding space before its first lines are known."""

    dimensions: Dimensions | None
    embedded: bool


def _space(header: ismrmrdHeader, index: int, heads: NDArray[np.void], by_hand: ByHand) -> _Space:
    own = heads[heads["encoding_space_ref"] == index]
    dimensions = by_hand.known_dimensions or dimensions_of_header(header, index)
    dimensions = dimensions or dimensions_of_lines(header, index, own, whole=True)
    return _Space(dimensions, encoding_of(header, index).embedded)


def _roles(heads: NDArray[np.void], embedding: list[int]) -> Roles:
    """The roles of all lines; `embedding`: encoding spaces whose calibration lines are lines of images, too."""
    embedded, separate = (roles(heads, embedded=flag) for flag in (True, False))
    mixed = np.isin(heads["encoding_space_ref"], embedding)
    return Roles(
        embedded.noise,
        np.where(mixed, embedded.image, separate.image),
        np.where(mixed, embedded.calibration, separate.calibration),
    )


def _coils(heads: NDArray[np.void]) -> int:
    coils = np.unique(heads["active_channels"])
    if len(coils) > 1:
        raise InputError(f"the number of coils changes within the scan ({', '.join(map(str, coils))})")
    if coils[0] < 1 or heads["number_of_samples"].min() < 1:
        raise InputError("has acquisitions without coils or samples")
    return int(coils[0])


def _references(
    header: ismrmrdHeader, heads: NDArray[np.void], role: Roles, spaces: dict[int, _Space], by_hand: ByHand
) -> dict[Key, Calibration]:
    """Separate calibration lines by the image that they were sent for."""
    found: dict[Key, Calibration] = {}
    for index, space in spaces.items():
        rows = np.flatnonzero(role.calibration & (heads["encoding_space_ref"] == index))
        if not len(rows):
            continue
        encoding = encoding_of(header, index, heads[rows[0]], dimensions=space.dimensions, by_hand=by_hand)
        echoes = sorted((key, contrast, n) for n, (key, contrast, _) in enumerate(by_image(heads[rows], index)))
        lines = [rows[which] for _, _, which in by_image(heads[rows], index)]
        for key, _, n in echoes:
            found.setdefault(key, Calibration(lines[n], encoding))
    return found


def _echoes(heads: NDArray[np.void], rows: Rows) -> Echoes:
    """The rows of each contrast of each image, of lines of one encoding space."""
    echoes: Echoes = {}
    for key, contrast, which in by_image(heads[rows], int(heads["encoding_space_ref"][rows[0]]) if len(rows) else 0):
        echoes.setdefault(key, {})[contrast] = rows[which]
    return echoes


def _with_doubtful(heads: NDArray[np.void], echoes: Echoes, doubtful: Echoes, encoding: Encoding) -> Echoes:
    """The images with doubtful lines, where all of an image's belong to it."""
    made = dict(echoes)
    for key, more in doubtful.items():
        own = echoes.get(key)
        if own and all(_belong(heads, own, contrast, rows, encoding) for contrast, rows in more.items()):
            none = np.empty(0, np.int64)
            made[key] = {n: np.sort(np.concatenate([own.get(n, none), more.get(n, none)])) for n in {*own, *more}}
    return made


def _belong(heads: NDArray[np.void], own: dict[int, Rows], contrast: int, rows: Rows, encoding: Encoding) -> bool:
    beside = own.get(contrast, np.empty(0, np.int64))
    line = heads[beside[0] if len(beside) else next(iter(own.values()))[0]]
    return belong(heads[rows], line, line_counts(heads[beside], encoding), encoding)


def _images(echoes: Echoes, references: dict[Key, Calibration]) -> Iterator[Image]:
    """Images ordered by their keys."""
    for key in sorted(echoes):
        contrasts = tuple(sorted(echoes[key]))
        reference = nearest(references, key)
        calibration = None if reference is None else references[reference]
        yield Image(key, tuple(echoes[key][n] for n in contrasts), contrasts, calibration)


def _deviations(group: Any, heads: NDArray[np.void]) -> tuple[float, ...]:
    found = group.get("rec_std")
    if not isinstance(found, h5py.Dataset) or found.dtype.kind != "f" or found.size != heads["active_channels"][-1]:
        return ()
    values = np.asarray(found[()], np.float64).ravel()
    return tuple(values.tolist()) if (np.isfinite(values) & (values > 0)).all() else ()
