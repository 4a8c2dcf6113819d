from __future__ import annotations

import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest

from mrnets.errors import InputError
from tests.training import layouts_maps
from training.data import Sample, Slices
from training.readers import isles
from training.split import Split

SPLIT = Split(counts=(1, 1, 1))


def _take(source: Slices, number: int) -> Sample:
    return pickle.loads(pickle.dumps(source)).take([number], np.random.default_rng(0))


def _stored(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def _session(folder: Path, kind: str, number: int = 1) -> Path:
    return folder / kind / f"sub-strokecase{number:04}" / "ses-0001" / f"sub-strokecase{number:04}_ses-0001"


def test_published_files(tmp_path: Path) -> None:
    layouts_maps.write_isles(tmp_path, np.random.default_rng(0))
    source = isles.Reader().read(tmp_path, "train", SPLIT)
    assert source.labels == ("lesion",)
    sample = _take(source, 3)
    assert sample.image.shape == (1, 3, 20, 24)
    assert sample.names[0].endswith("slice 3")
    for n, kind in enumerate(("adc", "dwi")):
        np.testing.assert_array_equal(
            sample.image[0, n], _stored(Path(f"{_session(tmp_path, 'rawdata')}_{kind}.nii.gz"))[..., 3].T
        )
    mask = _stored(Path(f"{_session(tmp_path, 'derivatives')}_msk.nii.gz"))
    np.testing.assert_array_equal(sample.labels[0, 0], mask[..., 3].T > 0)
    assert list(isles.Reader().check(tmp_path, SPLIT)) == []


def test_flair_comes_to_the_grid_of_the_dwi(tmp_path: Path) -> None:
    """A linear ramp in millimetres is the same ramp on the other grid."""
    layouts_maps.write_isles(tmp_path, np.random.default_rng(0))
    path = Path(f"{_session(tmp_path, 'rawdata')}_flair.nii.gz")
    affine = nibabel.load(path).affine
    x, y, z = np.meshgrid(*map(np.arange, (48, 40, 7)), indexing="ij")
    nibabel.save(nibabel.Nifti1Image((100 + x + 2 * y + 10 * z).astype(np.float32), affine), path)
    source = isles.Reader(slices=3).read(tmp_path, "train", SPLIT)
    flair = _take(source, 3).image[0, 2]
    assert flair.shape == (3, 20, 24)
    # DWI pixel (i, j, k) is at x = 10 + 2 i mm, FLAIR's index 2 i + 1, 2 j, k
    inner = flair[1, 2:-2, 2:-2].numpy()
    i, j = np.meshgrid(np.arange(2, 22), np.arange(2, 18), indexing="xy")
    np.testing.assert_allclose(inner, 100 + (2 * i + 1) + 2 * (2 * j) + 10 * 3, atol=1e-3)
    np.testing.assert_allclose((flair[2] - flair[1]).numpy()[2:-2, 2:-2], 10, atol=1e-3)


def test_converted_files_and_lesions_only(tmp_path: Path) -> None:
    layouts_maps.write_isles_converted(tmp_path, np.random.default_rng(0))
    source = isles.Reader().read(tmp_path, "train", SPLIT)
    assert len(source) == 3
    stored = _stored(tmp_path / "data" / "sub-strokecase0001.nii.gz")
    np.testing.assert_array_equal(_take(source, 1).image[0], stored[..., 1])  # (y, x) already
    assert list(isles.Reader().check(tmp_path, SPLIT)) == []


def test_lesions_only(tmp_path: Path) -> None:
    layouts_maps.write_isles(tmp_path, np.random.default_rng(0))
    source = isles.Reader(lesions_only=True).read(tmp_path, "validation", SPLIT)
    assert [p.index for p in source.places] == [2, 3, 4]
    assert bool(_take(source, 0).labels.any())


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda f: Path(f"{_session(f, 'rawdata')}_flair.nii.gz").unlink(), "flair.nii.gz: there is no such file"),
        (lambda f: Path(f"{_session(f, 'rawdata')}_adc.nii.gz").write_bytes(b"\x1f\x8b"), "adc.nii.gz: cannot be read"),
        (
            lambda f: nibabel.save(
                nibabel.Nifti1Image(np.full((24, 20, 7), 2, np.uint8), np.eye(4)),
                f"{_session(f, 'derivatives')}_msk.nii.gz",
            ),
            r"msk.nii.gz: labels must be of \[0, 1\], and there is 2",
        ),
    ],
)
def test_faults_are_named(tmp_path: Path, break_it: object, sentence: str) -> None:
    layouts_maps.write_isles(tmp_path, np.random.default_rng(0))
    break_it(tmp_path)  # type: ignore[operator]
    found = list(isles.Reader().check(tmp_path, SPLIT))
    assert found
    with pytest.raises(InputError, match=sentence):
        raise InputError(found[0])
    with pytest.raises(InputError):
        _take(isles.Reader().read(tmp_path, "train", SPLIT), 3)
