"""Noise measurements that are kept for other scans: their keys, and the form in which they are kept.

The form is that of Gadgetron's blob `noise_covariance` in an MRD storage server. Gadgetron and this project so find
what the other has kept. The blob: "SFNDAM", u32 version 1, u32 type 7 (complex64), u32 2, u64 channels twice, u64
length of the text, the covariance, and the text. The text is JSON with channels, labels, sampleCount, noiseDwellTimeUs
and receiverNoiseBandwidth.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ismrmrd.xsd import ismrmrdHeader

from mrnets.errors import InputError
from mrnets.files import make_folder, write_bytes
from mrnets.mrd.noise import Noise, NoiseScan, bandwidth

__all__ = ["Folder", "Key", "Record", "Store", "decoded", "dependency", "encoded", "fitting", "named", "own", "record"]

MAX_COILS = 1024
MAX_TEXT = 1 << 20
MAX_BLOB = 16 << 20
MAX_FILES, MAX_SIZE = 1000, 1 << 30
"""Noise measurements that a folder keeps, and their bytes. Those that were not used for the longest time go first."""
MAX_AGE = 30 * 86400
"""s between the last use of a noise measurement and that of the newest one, after which it goes."""

_START = struct.Struct("<6sIIIQQQ")
_MAGIC, _VERSION, _COMPLEX64, _DIMENSIONS = b"SFNDAM", 1, 7, 2


@dataclass(frozen=True)
class Key:
    """The key of a noise measurement. Empty: the header does not say."""

    measurement: str
    """The measurement ID of the scan that measured the noise."""
    subject: str = ""
    device: str = ""
    session: str = ""


@dataclass(frozen=True)
class Record:
    """A noise measurement as it is kept."""

    noise: Noise
    labels: tuple[str, ...]
    """Names of the coils, in the order of the covariance; none where the header does not name each."""
    samples: int
    """How many samples of each coil were measured."""
    bandwidth: float
    """The relative receiver noise bandwidth."""


class Store(Protocol):
    """A place for blobs."""

    def get(self, key: Key) -> bytes | None:
        """Return the newest blob of that key; None where there is none. Raises InputError where that is not known."""

    def put(self, key: Key, blob: bytes) -> None:
        """Keep a blob. Raises InputError."""


@dataclass(frozen=True)
class Folder:
    """A folder with a file for each key. File names contain no patient data."""

    path: Path

    def get(self, key: Key) -> bytes | None:
        """Return the blob of that key, or None. Raises InputError for a file that cannot be read."""
        file = self._file(key)
        try:
            with open(file, "rb") as opened:
                with suppress(OSError):  # a folder that is only read
                    os.utime(file)
                return opened.read(MAX_BLOB + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror or error}") from None

    def put(self, key: Key, blob: bytes) -> None:
        """Keep a blob. Raises InputError where the folder cannot be written."""
        make_folder(self.path)
        write_bytes(self._file(key), blob)
        _forget(self.path)

    def _file(self, key: Key) -> Path:
        words = json.dumps([key.measurement, key.subject, key.device, key.session])
        return self.path / f"{hashlib.sha256(words.encode()).hexdigest()[:32]}.noise"


def _forget(folder: Path) -> None:
    """Remove the noise measurements of a folder that are too many or too old.

    What another process removes is gone, too."""
    found = []
    for path in folder.glob("*.noise"):
        with suppress(OSError):
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    found.sort(reverse=True)
    size = 0
    for count, (used, bytes_, path) in enumerate(found):
        size += bytes_
        if count >= MAX_FILES or size > MAX_SIZE or found[0][0] - used > MAX_AGE:
            with suppress(OSError):
                path.unlink()


def own(header: ismrmrdHeader) -> Key | None:
    """Return the key of the header's own scan; None where it has no measurement ID."""
    information = header.measurementInformation
    return _key(header, information.measurementID) if information and information.measurementID else None


def dependency(header: ismrmrdHeader) -> Key | None:
    """Return the key of the scan whose noise the header names (measurementDependency Noise); None without one."""
    information = header.measurementInformation
    for one in information.measurementDependency if information else ():
        if (one.dependencyType or "").lower() == "noise" and one.measurementID:
            return _key(header, one.measurementID)
    return None


def named(measurement: str) -> Key:
    """Return the key of the scan with that measurement ID, where no header is at hand."""
    device, subject, session = _words(measurement)
    return Key(measurement, subject, device, session)


def _words(measurement: str) -> tuple[str, str, str]:
    """Return device, subject and study in a measurement ID; empty ones where it is of another form."""
    words = measurement.split("_")
    return (words[0], words[1], words[2]) if len(words) == 4 else ("", "", "")


def _key(header: ismrmrdHeader, measurement: str) -> Key:
    """A key with the header's patient, device and study, or else those in an ID device_subject_study_number."""
    subject, study = header.subjectInformation, header.studyInformation
    system = header.acquisitionSystemInformation
    device, patient, session = _words(measurement)
    return Key(
        measurement,
        (subject.patientID if subject else None) or patient,
        (system.deviceID if system else None) or device,
        (study.studyID if study else None) or session,
    )


def record(scan: NoiseScan, header: ismrmrdHeader) -> Record:
    """Return what is to be kept of the noise lines of a scan. Raises InputError as `NoiseScan.measured` does."""
    samples = sum(lines.data.shape[0] * lines.data.shape[2] for lines in scan.lines)
    names = _labels(header)
    return Record(scan.measured(), names if len(names) == scan.coils else (), samples, bandwidth(header))


def fitting(kept: Record, header: ismrmrdHeader) -> Noise:
    """Return kept noise with the coils of the header, matched by their names where both sides have names.

    Raises InputError where the header names a coil that the noise measurement did not have."""
    wanted = _labels(header)
    if not kept.labels or not wanted or len(set(wanted)) < len(wanted) or len(set(kept.labels)) < len(kept.labels):
        return kept.noise
    absent = [name for name in wanted if name not in kept.labels]
    if absent:
        raise InputError(f"it was measured without the coils {', '.join(absent[:5])}")
    order = [kept.labels.index(name) for name in wanted]
    return Noise(kept.noise.covariance[np.ix_(order, order)], kept.noise.dwell)


def _labels(header: ismrmrdHeader) -> tuple[str, ...]:
    system = header.acquisitionSystemInformation
    return tuple(str(label.coilName) for label in system.coilLabel) if system else ()


def encoded(kept: Record) -> bytes:
    """Return the blob of a record."""
    matrix = np.ascontiguousarray(kept.noise.covariance, "<c8")
    words = {
        "channels": len(matrix),
        "labels": list(kept.labels),
        "noiseDwellTimeUs": kept.noise.dwell,
        "receiverNoiseBandwidth": kept.bandwidth,
        "sampleCount": kept.samples,
    }
    text = json.dumps(words).encode()
    start = _START.pack(_MAGIC, _VERSION, _COMPLEX64, _DIMENSIONS, *matrix.shape, len(text))
    return start + matrix.tobytes() + text


def decoded(blob: bytes) -> Record:
    """Return the record of a blob. Raises InputError for what is none, or holds values that cannot be."""
    if len(blob) < _START.size or len(blob) > MAX_BLOB:
        raise InputError(f"a noise covariance of {len(blob)} bytes is none")
    magic, version, kind, dimensions, rows, coils, length = _START.unpack_from(blob)
    if (magic, version, kind, dimensions) != (_MAGIC, _VERSION, _COMPLEX64, _DIMENSIONS):
        raise InputError("it is no noise covariance of complex64 in the form SFNDAM 1")
    size = rows * coils * 8
    if not (1 <= rows == coils <= MAX_COILS and length <= MAX_TEXT and len(blob) == _START.size + size + length):
        raise InputError(f"a noise covariance of {rows} x {coils} coils does not fit in {len(blob)} bytes")
    covariance = np.frombuffer(blob, "<c8", rows * coils, _START.size).reshape(rows, coils).astype(np.complex64)
    if not np.isfinite(covariance).all():
        raise InputError("a noise covariance has NaN or Inf")
    return _with_words(covariance, blob[_START.size + size :])


def _with_words(covariance: Any, text: bytes) -> Record:
    try:
        words = json.loads(text)
        dwell, receiver = float(words["noiseDwellTimeUs"]), float(words["receiverNoiseBandwidth"])
        labels, samples = tuple(str(label) for label in words["labels"]), int(words["sampleCount"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"the text of a noise covariance cannot be understood: {error}") from None
    if not (0 <= dwell < math.inf and 0 <= receiver < math.inf):
        raise InputError(f"a noise covariance has the dwell time {dwell} and the bandwidth {receiver}")
    return Record(Noise(covariance, dwell), labels if len(labels) == len(covariance) else (), samples, receiver)
