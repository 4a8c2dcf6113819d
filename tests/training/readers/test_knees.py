"""Stanford knees: both forms of their files."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from mrnets.errors import InputError
from tests.training.layouts import write_knees, write_knees_converted
from training.readers.knees import Reader
from training.split import Split


def test_both_forms_give_the_same(tmp_path: Path) -> None:
    write_knees(tmp_path / "a", np.random.default_rng(3))
    write_knees_converted(tmp_path / "b", np.random.default_rng(3))
    for number in range(3):
        one, other = (
            Reader().read(tmp_path / f, "train", Split()).take([number], np.random.default_rng(0)).raw for f in "ab"
        )
        np.testing.assert_array_equal(one.kspace, other.kspace)
        assert bool(one.mask.all())
        assert one.readout == other.readout == "x"
        assert one.kspace.shape == (1, 1, 4, 20, 24)
        assert other.noise is None
        np.testing.assert_allclose(one.noise, np.diag([1, 4, 9, 16]))


def test_files_are_subjects(tmp_path: Path, rng: np.random.Generator) -> None:
    write_knees_converted(tmp_path, rng, 19)
    parts = [Reader().read(tmp_path, part, Split(counts=(13, 3, 3))) for part in ("train", "validation", "test")]
    assert [len(p.subjects) for p in parts] == [13, 3, 3]
    assert [p.index for p in Reader(trim=(1, 0)).read(tmp_path, "test", Split()).places[:2]] == [1, 2]
    with pytest.raises(InputError, match="has 3 slices, of which"):
        Reader(trim=(2, 1)).read(tmp_path, "test", Split())


def test_check(tmp_path: Path, rng: np.random.Generator) -> None:
    write_knees(tmp_path / "a", rng)
    write_knees_converted(tmp_path / "b", rng)
    assert list(Reader().check(tmp_path / "a", Split())) == []
    assert list(Reader().check(tmp_path / "b", Split())) == []
    with h5py.File(next((tmp_path / "a").glob("00000001*")), "a") as file:
        file["dataset/data"].resize(50, axis=0)
    with h5py.File(tmp_path / "b" / "knee1.h5", "a") as file:
        del file["kspace"]
        file["kspace"] = np.zeros((3, 4, 20, 24))
    assert "00000001-d0a0" in (found := next(Reader().check(tmp_path / "a", Split())))
    assert found.endswith("one-sided; cut short?")
    assert "knee1.h5: kspace must be complex numbers" in next(Reader().check(tmp_path / "b", Split()))
