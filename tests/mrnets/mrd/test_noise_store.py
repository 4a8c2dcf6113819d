"""Noise of other scans: keys, the blob that Gadgetron keeps, coils by their names, a folder."""

import json
import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ismrmrd import xsd

from mrnets.errors import InputError
from mrnets.mrd.noise import Noise, NoiseScan
from mrnets.mrd.noise_store import Folder, Key, Record, decoded, dependency, encoded, fitting, own, record
from tests.gadgets import synthetic


def header(*names: str, measurement: str = "scan", noise: str | None = None, subject: str | None = None) -> Any:
    made = synthetic.header(synthetic.encoding((16, 12, 1)), bandwidth=0.7)
    depends = [("SenMap", "other"), *([("Noise", noise)] if noise else [])]
    made.measurementInformation = xsd.measurementInformationType(
        measurementID=measurement,
        patientPosition=xsd.patientPositionType.HFS,
        measurementDependency=[xsd.measurementDependencyType(dependencyType=t, measurementID=i) for t, i in depends],
    )
    made.acquisitionSystemInformation.coilLabel = [xsd.coilLabelType(coilNumber=0, coilName=name) for name in names]
    if subject:
        made.subjectInformation = xsd.subjectInformationType(patientID=subject)
    return made


@pytest.fixture
def kept(rng: np.random.Generator) -> Record:
    matrix = rng.standard_normal((3, 3)) + 1j * rng.standard_normal((3, 3))
    return Record(Noise((matrix @ matrix.conj().T).astype(np.complex64), 10.0), ("A", "B", "C"), 512, 0.793)


def blob(matrix: Any, words: Any, **fields: Any) -> bytes:
    """As Gadgetron writes it, field by field."""
    text = words if isinstance(words, bytes) else json.dumps(words).encode()
    start = {"magic": b"SFNDAM", "version": 1, "kind": 7, "dimensions": 2, "rows": 3, "columns": 3, "length": len(text)}
    return struct.pack("<6sIIIQQQ", *(start | fields).values()) + np.asarray(matrix, "<c8").tobytes() + text


WORDS = {"channels": 3, "labels": ["A", "B", "C"], "noiseDwellTimeUs": 10.0, "receiverNoiseBandwidth": 0.793}
WORDS["sampleCount"] = 512


def test_the_blob_is_gadgetrons(kept: Record) -> None:
    """Gadgetron's covariance is D^H D with D (sample, coil), first index fastest: ours (coil, coil) row by row."""
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((3, 100)) + 1j * rng.standard_normal((3, 100))
    ours = samples @ samples.conj().T
    theirs = (samples.T.conj().T @ samples.T).ravel(order="F")
    np.testing.assert_allclose(theirs, ours.ravel())
    found = decoded(blob(kept.noise.covariance, WORDS))
    np.testing.assert_array_equal(found.noise.covariance, kept.noise.covariance)
    assert (found.noise.dwell, found.labels, found.samples, found.bandwidth) == (10.0, ("A", "B", "C"), 512, 0.793)
    assert decoded(encoded(kept)).labels == kept.labels
    np.testing.assert_array_equal(decoded(encoded(kept)).noise.covariance, kept.noise.covariance)


@pytest.mark.parametrize(
    ("fields", "words", "sentence"),
    [
        ({"magic": b"SFNDAN"}, WORDS, "no noise covariance"),
        ({"version": 2}, WORDS, "no noise covariance"),
        ({"kind": 8}, WORDS, "no noise covariance"),
        ({"rows": 4}, WORDS, "does not fit"),
        ({"rows": 2**62, "columns": 2**62}, WORDS, "does not fit"),
        ({"length": 2**40}, WORDS, "does not fit"),
        ({}, b"{", "cannot be understood"),
        ({}, b"[" * 100_000, "cannot be understood"),
        ({}, {**WORDS, "labels": None}, "cannot be understood"),
        ({}, {**WORDS, "noiseDwellTimeUs": -1}, "dwell time -1"),
        ({}, {**WORDS, "receiverNoiseBandwidth": "nan"}, "bandwidth nan"),
    ],
)
def test_other_blobs_are_refused(fields: dict[str, Any], words: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        decoded(blob(np.eye(3), words, **fields))


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InputError, match="NaN or Inf"):
        decoded(blob(np.full((3, 3), np.nan), WORDS))
    with pytest.raises(InputError, match="5 bytes"):
        decoded(b"SFNDA")


def test_coils_are_found_by_their_names(kept: Record) -> None:
    noise = fitting(kept, header("C", "A"))
    np.testing.assert_array_equal(noise.covariance, kept.noise.covariance[np.ix_([2, 0], [2, 0])])
    assert noise.dwell == 10.0
    for unnamed in (header(), header("A", "A", "B")):
        assert fitting(kept, unnamed) is kept.noise
    assert fitting(replace(kept, labels=()), header("X")).covariance is kept.noise.covariance
    with pytest.raises(InputError, match="without the coils D"):
        fitting(kept, header("A", "D"))


def test_keys() -> None:
    assert own(header(measurement="45387_66015401_66015410_93")) == Key(
        "45387_66015401_66015410_93", "66015401", "45387", "66015410"
    )
    assert dependency(header(noise="n", subject="p")) == Key("n", "p")
    assert dependency(header()) is None
    assert own(synthetic.header(synthetic.encoding((16, 12, 1)))) is None


def test_a_record_of_noise_lines(rng: np.random.Generator) -> None:
    scan = NoiseScan()
    scan.add(synthetic.noise_lines(synthetic.coil_images(rng, 3, 40, 16)[:, 0].swapaxes(0, 1), dwell=8.0))
    made = record(scan, header("A", "B", "C"))
    assert (made.labels, made.samples, made.bandwidth, made.noise.dwell) == (("A", "B", "C"), 640, 0.7, 8.0)
    assert record(scan, header("A", "B")).labels == ()


def test_a_folder_keeps_what_it_is_given(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "noise")
    key = Key("a/../b", "patient 1")
    assert folder.get(key) is None
    folder.put(key, b"one")
    folder.put(key, b"two")
    assert folder.get(key) == b"two"
    assert folder.get(replace(key, subject="patient 2")) is None
    (file,) = folder.path.iterdir()
    assert "patient" not in file.name
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make the folder"):
        Folder(tmp_path / "file" / "noise").put(key, b"one")


def used(folder: Folder, key: Key, ago: float) -> None:
    """Let a noise measurement have been used last so many seconds ago."""
    file = folder._file(key)
    time = file.stat().st_mtime - ago
    os.utime(file, (time, time))


def test_a_folder_keeps_so_many_measurements_the_last_used(kept: Record, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("mrnets.mrd.noise_store.MAX_FILES", 3)
    folder = Folder(tmp_path)
    keys = [Key(str(n)) for n in range(4)]
    for n, key in enumerate(keys[:3]):
        folder.put(key, encoded(kept))
        used(folder, key, 10 - n)
    assert folder.get(keys[0]) is not None  # and so it was used later than the others
    folder.put(keys[3], encoded(kept))
    assert [folder.get(key) is not None for key in keys] == [True, False, True, True]


def test_a_folder_keeps_so_many_bytes_and_no_file_of_others(kept: Record, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("mrnets.mrd.noise_store.MAX_SIZE", 2 * len(encoded(kept)))
    other = tmp_path / "notes.txt"
    other.write_text("of somebody else")
    folder = Folder(tmp_path)
    for n in range(4):
        folder.put(Key(str(n)), encoded(kept))
        used(folder, Key(str(n)), 10 - n)
    assert [folder.get(Key(str(n))) is not None for n in range(4)] == [False, False, True, True]
    assert other.exists()


def test_a_folder_keeps_what_was_used_in_the_last_days(kept: Record, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    keys = [Key(str(n)) for n in range(3)]
    for key in keys:
        folder.put(key, encoded(kept))
    for days, key in zip((40, 40, 20), keys, strict=True):
        used(folder, key, days * 86400)
    assert folder.get(keys[0]) is not None  # and so it was used today
    folder.put(Key("new"), encoded(kept))
    assert [folder.get(key) is not None for key in keys] == [True, False, True]
