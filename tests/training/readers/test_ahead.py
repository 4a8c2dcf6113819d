from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mrnets.errors import InputError
from mrnets.physics.coils import reduce
from mrnets.physics.fourier import ifftc
from tests.training import layouts_maps
from training.data import Sample, Slices
from training.readers import ahead
from training.readers._anatomy_mask import anatomy_mask
from training.split import Split


def _take(source: Slices, number: int) -> Sample:
    return pickle.loads(pickle.dumps(source)).take([number], np.random.default_rng(0))


def _combined(sample: Sample) -> torch.Tensor:
    assert sample.raw is not None
    return reduce(ifftc(sample.raw.kspace), sample.raw.sens)[0]


def test_published_files_give_the_image_across_the_readout(tmp_path: Path) -> None:
    layouts_maps.write_ahead(tmp_path, np.random.default_rng(0))
    source = ahead.Reader(scale=1.0, cache=str(tmp_path / "cache")).read(tmp_path, "train", Split(counts=(1, 1, 1)))
    assert [p.index for p in source.places] == [2, 3, 4, 5]  # the middle half of 8
    sample = _take(source, 1)
    images, maps = layouts_maps.echoes_and_maps(np.random.default_rng(0), (8, 24, 20), 4)
    norm = np.sqrt(np.sum(np.abs(maps[:, 3]) ** 2, axis=0))
    raw = sample.raw
    assert raw is not None
    assert raw.readout == "batch"
    assert raw.kspace.shape == (1, 4, 4, 20, 24)  # y is encode step 2
    np.testing.assert_allclose(_combined(sample).numpy(), (images[:, 3] * norm).swapaxes(-1, -2), rtol=0, atol=2e-4)
    np.testing.assert_allclose(raw.sens.abs().square().sum(2).numpy(), 1, atol=1e-5)
    assert raw.echo_times.tolist() == pytest.approx([3e-3, 11.5e-3, 20e-3, 28.5e-3])
    assert raw.sens_method == "given"
    assert bool(raw.mask.all())
    assert list(ahead.Reader().check(tmp_path, Split(counts=(1, 1, 1)))) == []


def test_converted_files_give_their_target(tmp_path: Path) -> None:
    layouts_maps.write_ahead_converted(tmp_path, np.random.default_rng(0))
    sample = _take(ahead.Reader().read(tmp_path, "validation", Split(counts=(1, 1, 1))), 1)
    with h5py.File(tmp_path / "preprocessed" / "mp2rageme_002_axial.h5") as file:
        target, maps = file["target"][1], file["sensitivity_map"][1]
    norm = np.sqrt(np.sum(np.abs(maps) ** 2, axis=0))
    np.testing.assert_allclose(_combined(sample).numpy(), 1e-4 * target / norm, atol=1e-5)
    with h5py.File(tmp_path / "segmentation_masks" / "mp2rageme_002_axial.h5") as file:
        np.testing.assert_array_equal(sample.region[0], file["anatomy_mask"][1] > 0)
    assert sample.raw.readout == "x"
    assert list(ahead.Reader().check(tmp_path, Split(counts=(1, 1, 1)))) == []


def test_odd_sizes_keep_the_place_of_the_image() -> None:
    image = np.random.default_rng(0).standard_normal((2, 5, 7)) + 0j
    stored = np.fft.fftshift(np.fft.fftn(image, axes=(-2, -1)), axes=(-2, -1))
    np.testing.assert_allclose(ifftc(ahead._centred(stored)), image, atol=1e-5)


def test_the_brain_is_found_where_no_file_says_it(tmp_path: Path) -> None:
    layouts_maps.write_ahead_converted(tmp_path, np.random.default_rng(0))
    for path in (tmp_path / "segmentation_masks").iterdir():
        path.unlink()
    split = Split(counts=(1, 1, 1))
    assert _take(ahead.Reader().read(tmp_path, "train", split), 0).region is not None
    assert _take(ahead.Reader(region=False).read(tmp_path, "train", split), 0).region is None
    # a dim brain in a bright skull
    y, x = np.mgrid[-60:60, -50:50]
    radius = np.hypot(y / 55, x / 45)
    brain = radius < 0.7
    mask = anatomy_mask(0.45 * brain + 1.0 * ((radius > 0.8) & (radius < 0.95)))
    assert np.sum(mask & brain) * 2 / (mask.sum() + brain.sum()) > 0.95
    assert anatomy_mask(np.zeros((8, 8))).all()


def test_the_paper_split_goes_by_the_names_of_files_not_of_folders(tmp_path: Path) -> None:
    layouts_maps.write_ahead_converted(tmp_path, np.random.default_rng(0), subjects=3)
    for folder, number in (("train", 1), ("val", 2), ("test", 3)):
        (tmp_path / "preprocessed" / folder).mkdir()
        name = f"mp2rageme_{number:03}_axial.h5"
        (tmp_path / "preprocessed" / name).rename(tmp_path / "preprocessed" / folder / name)
    source = ahead.Reader().read(tmp_path, "test", Split(counts=(1, 1, 1)))
    assert {p.subject for p in source.places} == {"mp2rageme_003_axial"}


def _delete(path: Path, key: str) -> None:
    with h5py.File(path, "a") as file:
        del file[key]


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda f: (f / "mp2rageme_002_inv2_te3.h5").unlink(), "subject 002 has no file"),
        (lambda f: (f / "coilsens_003.h5").unlink(), "subject 003 has no sensitivities, coilsens_003.h5"),
        (lambda f: _delete(f / "coilsens_001.h5", "1imag"), "1imag"),
        (lambda f: (f / "mp2rageme_001_inv2_te1.h5").write_bytes(b"no"), "mp2rageme_001_inv2_te1.h5"),
    ],
)
def test_faults_of_published_files_are_named(tmp_path: Path, break_it: object, sentence: str) -> None:
    layouts_maps.write_ahead(tmp_path, np.random.default_rng(0), coils=1)
    break_it(tmp_path)  # type: ignore[operator]
    split = Split(counts=(1, 1, 1))
    (found,) = ahead.Reader().check(tmp_path, split)
    assert sentence in found
    with pytest.raises(InputError, match=sentence):
        [ahead.Reader().read(tmp_path, part, split) for part in ("train", "validation", "test")]


@pytest.mark.parametrize(
    ("key", "values", "sentence"),
    [
        ("sensitivity_map", np.ones((2, 4, 24, 19), np.complex64), "sensitivity_map has the shape"),
        ("kspace", np.ones((2, 4, 4, 24, 20), np.float32), "kspace must be complex numbers"),
        ("kspace", np.ones((2, 3, 4, 24, 20), np.complex64), "kspace has 3 echoes, option echo_times 4"),
        ("kspace", np.full((2, 4, 4, 24, 20), np.nan, np.complex64), "not finite"),
    ],
)
def test_faults_of_converted_files_are_named(tmp_path: Path, key: str, values: object, sentence: str) -> None:
    layouts_maps.write_ahead_converted(tmp_path, np.random.default_rng(0))
    with h5py.File(tmp_path / "preprocessed" / "mp2rageme_001_axial.h5", "a") as file:
        del file[key]
        file[key] = values
    assert any(sentence in found for found in ahead.Reader().check(tmp_path, Split(counts=(1, 1, 1))))


def test_an_empty_folder_is_one_sentence(tmp_path: Path) -> None:
    assert len(list(ahead.Reader().check(tmp_path, Split()))) == 1
