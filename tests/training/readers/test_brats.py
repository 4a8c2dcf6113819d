from __future__ import annotations

import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest

from mrnets.errors import InputError
from tests.training import layouts_maps
from training.data import Sample, Slices
from training.readers import brats
from training.split import Split

SPLIT = Split(counts=(1, 1, 1))


def _take(source: Slices, number: int) -> Sample:
    return pickle.loads(pickle.dumps(source)).take([number], np.random.default_rng(0))


def _stored(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def test_published_files(tmp_path: Path) -> None:
    layouts_maps.write_brats(tmp_path, np.random.default_rng(0))
    source = brats.Reader().read(tmp_path, "train", SPLIT)
    assert source.labels == ("necrotic core", "oedema", "enhancing tumour", "whole tumour")
    assert len(source) == 7
    shown = [_take(source, n).names[0].rpartition(" ")[2] for n in range(7)]
    assert sorted(set(shown)) == ["1", "2", "3", "4", "5"]  # the first and the last slice are empty
    sample = _take(source, shown.index("3"))
    name = tmp_path / "BraTS-GLI-00000-000" / "BraTS-GLI-00000-000"
    for n, kind in enumerate(("t1c", "t1n", "t2f", "t2w")):
        np.testing.assert_array_equal(sample.image[0, n], _stored(Path(f"{name}-{kind}.nii.gz"))[:, :, 3].T)
    seg = _stored(Path(f"{name}-seg.nii.gz"))[:, :, 3].T
    for plane, wanted in zip(sample.labels[0], (seg == 1, seg == 2, seg == 3, seg > 0), strict=True):
        np.testing.assert_array_equal(plane, wanted)
    assert list(brats.Reader().check(tmp_path, SPLIT)) == []


def test_converted_files(tmp_path: Path) -> None:
    layouts_maps.write_brats_converted(tmp_path, np.random.default_rng(0))
    sample = _take(brats.Reader().read(tmp_path, "test", SPLIT), 3)
    folder = tmp_path / "ASNR-MICCAI-BraTS2023-GLI-Challenge-TrainingData"
    stored = _stored(folder / "BraTS-GLI-00002-000.nii.gz")
    np.testing.assert_array_equal(sample.image[0], stored[..., 3].swapaxes(-1, -2))
    assert bool(sample.labels[0, 3].any())
    assert list(brats.Reader().check(tmp_path, SPLIT)) == []


def test_neighbouring_slices_repeat_the_edges(tmp_path: Path) -> None:
    layouts_maps.write_brats(tmp_path, np.random.default_rng(0))
    path = tmp_path / "BraTS-GLI-00000-000" / "BraTS-GLI-00000-000-t1c.nii.gz"
    values = _stored(path) + 1 + np.arange(24)[:, None, None] // 23  # something in every slice
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), path)
    source = brats.Reader(slices=3).read(tmp_path, "train", SPLIT)
    for number, wanted in ((0, (0, 0, 1)), (3, (2, 3, 4)), (6, (5, 6, 6))):
        sample = _take(source, number)
        assert sample.image.shape == (1, 4, 3, 20, 24)
        assert sample.labels.shape == (1, 4, 3, 20, 24)
        np.testing.assert_array_equal(sample.image[0, 0], values[..., list(wanted)].T.astype(np.float32))


def test_scans_of_a_patient_stay_together(tmp_path: Path) -> None:
    layouts_maps.write_brats(tmp_path, np.random.default_rng(0), subjects=2)
    twin = tmp_path / "BraTS-GLI-00000-001"
    twin.mkdir()
    for path in (tmp_path / "BraTS-GLI-00000-000").iterdir():
        (twin / path.name.replace("00000-000", "00000-001")).write_bytes(path.read_bytes())
    source = brats.Reader().read(tmp_path, "train", Split(counts=(1, 1, 0)))
    assert {Path(p.path).name for p in source.places} == {"BraTS-GLI-00000-000", "BraTS-GLI-00000-001"}


def _label_four(path: Path) -> None:
    seg = _stored(path / "BraTS-GLI-00000-000-seg.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.where(seg == 3, 4, seg), np.eye(4)), path / "BraTS-GLI-00000-000-seg.nii.gz")


def _other_grid(path: Path) -> None:
    values = np.ones((24, 19, 7), np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path / "BraTS-GLI-00000-000-t1n.nii.gz")


def _absurd(path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((1, 1, 1), np.float32), np.eye(4))
    header = image.header.copy()
    header["dim"][1:4] = 30000
    (path / "BraTS-GLI-00000-000-t1c.nii.gz").unlink()
    (path / "BraTS-GLI-00000-000-t1c.nii").write_bytes(header.binaryblock + bytes(8))


def _not_finite(path: Path) -> None:
    values = np.full((24, 20, 7), np.nan, np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path / "BraTS-GLI-00000-000-t2w.nii.gz")


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda p: (p / "BraTS-GLI-00000-000-t2w.nii.gz").unlink(), "00000-000-t2w.nii.gz: there is no such file"),
        (lambda p: (p / "BraTS-GLI-00000-000-t1c.nii.gz").write_bytes(b"no"), "00000-000-t1c.nii.gz: cannot be read"),
        (_absurd, "absurdly large"),
        (_other_grid, "has the grid"),
        (_label_four, r"seg.nii.gz: labels must be of \[0, 1, 2, 3\], and there is 4"),
        (_not_finite, "not finite"),
    ],
)
def test_faults_are_named(tmp_path: Path, break_it: object, sentence: str) -> None:
    layouts_maps.write_brats(tmp_path, np.random.default_rng(0))
    break_it(tmp_path / "BraTS-GLI-00000-000")  # type: ignore[operator]
    found = list(brats.Reader().check(tmp_path, SPLIT))
    assert found
    with pytest.raises(InputError, match=sentence):
        raise InputError(found[0])
    with pytest.raises(InputError):
        _take(brats.Reader().read(tmp_path, "train", SPLIT), 3)


def test_scans_without_labels_are_left_out(tmp_path: Path) -> None:
    layouts_maps.write_brats(tmp_path, np.random.default_rng(0))
    (tmp_path / "BraTS-GLI-00001-000" / "BraTS-GLI-00001-000-seg.nii.gz").unlink()
    (found,) = brats.Reader().check(tmp_path, Split(counts=(1, 1, 0)))
    assert "BraTS-GLI-00001-000: no labels" in found
    source = brats.Reader().read(tmp_path, "validation", Split(counts=(1, 1, 0)))
    assert {p.subject for p in source.places} == {"BraTS-GLI-00002"}
