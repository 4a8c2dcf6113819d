from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

from mrnets.errors import InputError
from mrnets.physics.coils import reduce
from mrnets.physics.fourier import ifftc
from tests.training import layouts_maps
from training.data import Sample, Slices
from training.readers import skmtea_joint, skmtea_segmentation
from training.settings import Masks
from training.split import Split
from training.undersample import masked


def _take(source: Slices, number: int) -> Sample:
    return pickle.loads(pickle.dumps(source)).take([number], np.random.default_rng(0))


def test_images_and_the_classes_of_the_paper(tmp_path: Path) -> None:
    layouts_maps.write_skmtea_segmentation(tmp_path, np.random.default_rng(0))
    source = skmtea_segmentation.Reader().read(tmp_path, "train", Split(counts=(86, 33, 36)))
    assert [(Path(p.path).stem, p.index) for p in source.places] == [("MTR_005", n) for n in (31, 32, 33)]
    sample = _take(source, 1)
    with h5py.File(tmp_path / "image_files" / "MTR_005.h5") as file:
        np.testing.assert_array_equal(sample.image[0, 0], file["echo1"][:, :, 32])
        seg = file["seg"][:, :, 32] > 0
    # the file's planes: patellar, femoral, medial and lateral tibial cartilage, medial and lateral meniscus
    order = ("lateral tibial cartilage", "medial tibial cartilage", "lateral meniscus", "medial meniscus")
    assert source.labels == order
    np.testing.assert_array_equal(sample.labels[0], np.moveaxis(seg[..., [3, 2, 5, 4]], -1, 0))
    merged = _take(skmtea_segmentation.Reader(classes="merged").read(tmp_path, "train", Split()), 1).labels[0]
    np.testing.assert_array_equal(merged[2], seg[..., 2] | seg[..., 3])
    np.testing.assert_array_equal(merged[3], seg[..., 4] | seg[..., 5])
    assert len(skmtea_segmentation.Reader(classes="all").read(tmp_path, "train", Split()).labels) == 6
    assert list(skmtea_segmentation.Reader().check(tmp_path, Split())) == []


@pytest.mark.parametrize(("echoes", "contrasts"), [("echo2", 1), ("both", 2), ("rss", 1)])
def test_echoes_and_neighbours(tmp_path: Path, echoes: str, contrasts: int) -> None:
    layouts_maps.write_skmtea_segmentation(tmp_path, np.random.default_rng(0))
    source = skmtea_segmentation.Reader(echoes=echoes, slices=3).read(tmp_path, "test", Split())  # type: ignore[arg-type]
    sample = _take(source, 0)
    assert sample.image.shape == (1, contrasts, 3, 24, 20)
    assert sample.labels.shape == (1, 4, 3, 24, 20)
    with h5py.File(tmp_path / "image_files" / "MTR_007.h5") as file:
        one, two = (file[k][:, :, 32] for k in ("echo1", "echo2"))
    np.testing.assert_allclose(sample.image[0, -1, 2], np.hypot(one, two) if echoes == "rss" else two, rtol=1e-6)


def test_counts_split_a_folder_without_annotations(tmp_path: Path) -> None:
    layouts_maps.write_skmtea_segmentation(tmp_path, np.random.default_rng(0), subjects=4)
    source = skmtea_segmentation.Reader().read(tmp_path / "image_files", "test", Split(counts=(2, 1, 1)))
    assert {p.subject for p in source.places} == {"test/MTR_008"}  # the folder above has them
    for path in (tmp_path / "annotations").rglob("*.json"):
        path.unlink()
    source = skmtea_segmentation.Reader().read(tmp_path, "train", Split(counts=(2, 1, 1)))
    assert {p.subject for p in source.places} == {
        "MTR_005",
        "MTR_006",
    }


@pytest.mark.parametrize(
    ("key", "values", "sentence"),
    [
        ("echo2", None, "echo2"),
        ("echo1", np.ones((24, 20, 63), np.float32), "echo1 has the shape"),
        ("seg", np.ones((24, 20, 64, 5), np.uint8), "must have 6 tissues"),
        ("seg", np.full((24, 20, 64, 6), 2, np.uint8), "must be 0 or 1"),
        ("echo1", np.full((24, 20, 64), np.nan, np.float32), "not finite"),
    ],
)
def test_faults_of_images_are_named(tmp_path: Path, key: str, values: object, sentence: str) -> None:
    layouts_maps.write_skmtea_segmentation(tmp_path, np.random.default_rng(0))
    with h5py.File(tmp_path / "image_files" / "MTR_005.h5", "a") as file:
        del file[key]
        if values is not None:
            file[key] = values
    found = list(skmtea_segmentation.Reader().check(tmp_path, Split()))
    assert found
    assert all(sentence in one and "MTR_005.h5" in one for one in found)


def test_raw_data_are_the_image_with_its_labels(tmp_path: Path) -> None:
    layouts_maps.write_skmtea_joint(tmp_path, np.random.default_rng(0))
    source = skmtea_joint.Reader().read(tmp_path, "train", Split(counts=(86, 33, 36)))
    assert len(source) == 3
    sample = _take(source, 1)
    raw = sample.raw
    assert raw is not None
    assert raw.readout == "batch"
    assert raw.kspace.shape == (1, 1, 3, 20, 24)  # y is kz
    with h5py.File(tmp_path / "files_recon_calib-24" / "MTR_005.h5") as file:
        kspace, maps, mask = file["kspace"][1, :, :, 0], file["maps"][1, ..., 0], file["masks/poisson_4.0x"][()]
    np.testing.assert_array_equal(raw.kspace[0, 0], kspace.T)
    np.testing.assert_allclose(raw.sens.abs().square().sum(2).numpy(), 1, atol=1e-5)
    image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=(0, 1)), axes=(0, 1), norm="ortho"), axes=(0, 1))
    norm = np.sqrt(np.sum(np.abs(maps) ** 2, axis=-1))
    expected = np.sum(image * maps.conj(), axis=-1) / norm
    np.testing.assert_allclose(reduce(ifftc(raw.kspace), raw.sens)[0, 0].numpy(), expected.T, atol=1e-5)
    labels = np.asarray(nibabel.load(tmp_path / "segmentation_masks/raw-data-track/MTR_005.nii.gz").dataobj)[1]
    numbers = np.array([4, 3, 6, 5])[:, None, None]
    np.testing.assert_array_equal(sample.labels[0], numbers == labels.T)
    np.testing.assert_array_equal(sample.mask[0, 0, 0, 2:18, 2:22], mask.T > 0)
    assert int(sample.mask.sum()) == int(mask.sum())
    assert list(skmtea_joint.Reader().check(tmp_path, Split())) == []


def test_echoes_masks_in_turn_and_no_labels(tmp_path: Path) -> None:
    layouts_maps.write_skmtea_joint(tmp_path, np.random.default_rng(0))
    for labels in (tmp_path / "segmentation_masks" / "raw-data-track").iterdir():
        labels.unlink()
    reader = skmtea_joint.Reader(echo="sum", acceleration=(4.0, 6.0), labels=False)
    assert list(reader.check(tmp_path, Split())) == []
    source = reader.read(tmp_path, "train", Split())
    assert source.labels == ()
    samples = [_take(source, n) for n in range(3)]
    both = _take(skmtea_joint.Reader(echo="both", labels=False).read(tmp_path, "train", Split()), 1)
    with h5py.File(tmp_path / "files_recon_calib-24" / "MTR_005.h5") as file:
        kspace, masks = file["kspace"][1], [file[f"masks/poisson_{a}.0x"][()].T > 0 for a in (4, 6, 4)]
    np.testing.assert_allclose(samples[1].raw.kspace[0, 0], kspace.sum(2).T, rtol=1e-6)
    np.testing.assert_array_equal(both.raw.kspace[0], np.moveaxis(kspace, (2, 3), (0, 1)).swapaxes(-1, -2))
    for sample, mask in zip(samples, masks, strict=True):
        assert sample.labels is None
        np.testing.assert_array_equal(sample.mask[0, 0, 0, 2:18, 2:22], mask)


def test_the_crop_of_kspace_takes_everything_to_what_was_acquired(tmp_path: Path) -> None:
    layouts_maps.write_skmtea_joint(tmp_path, np.random.default_rng(0))
    sample = _take(skmtea_joint.Reader().read(tmp_path, "train", Split()), 0)
    small = masked(sample, Masks(source="data", kspace_crop=(16, 20)), [np.random.default_rng(0)])
    with h5py.File(tmp_path / "files_recon_calib-24" / "MTR_005.h5") as file:
        mask = file["masks/poisson_4.0x"][()]
    assert small.raw is not None
    np.testing.assert_array_equal(small.raw.mask[0, 0, 0], mask.T > 0)
    assert small.labels.shape == (1, 4, 16, 20)
    assert small.raw.readout == "batch"


def _rewrite(path: Path, key: str, values: object) -> None:
    with h5py.File(path, "a") as file:
        del file[key]
        if values is not None:
            file[key] = values


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda f, m: m.unlink(), "MTR_005.nii.gz: there is no such file"),
        (lambda f, m: _rewrite(f, "masks/poisson_4.0x", None), "'masks/poisson_4.0x'; did you mean"),
        (lambda f, m: _rewrite(f, "maps", np.ones((3, 24, 20, 2, 1), np.complex64)), "maps must have the shape"),
        (lambda f, m: _rewrite(f, "kspace", np.ones((3, 24, 20, 2, 3), np.float32)), "kspace must be complex numbers"),
        (lambda f, m: _rewrite(f, "kspace", np.ones((3, 24, 20, 6), np.complex64)), "kspace must have the axes"),
        (
            lambda f, m: nibabel.save(nibabel.Nifti1Image(np.full((3, 24, 20), 7, np.uint8), np.eye(4)), m),
            "and there is 7",
        ),
        (
            lambda f, m: nibabel.save(nibabel.Nifti1Image(np.zeros((3, 20, 24), np.uint8), np.eye(4)), m),
            "has the grid",
        ),
    ],
)
def test_faults_of_raw_data_are_named(tmp_path: Path, break_it: object, sentence: str) -> None:
    layouts_maps.write_skmtea_joint(tmp_path, np.random.default_rng(0))
    labels = tmp_path / "segmentation_masks" / "raw-data-track" / "MTR_005.nii.gz"
    break_it(tmp_path / "files_recon_calib-24" / "MTR_005.h5", labels)  # type: ignore[operator]
    found = list(skmtea_joint.Reader().check(tmp_path, Split()))
    assert found
    assert all(sentence in one for one in found)
    with pytest.raises(InputError):
        _take(skmtea_joint.Reader().read(tmp_path, "train", Split()), 1)


def test_annotations_that_are_not_are_one_sentence(tmp_path: Path) -> None:
    layouts_maps.write_skmtea_joint(tmp_path, np.random.default_rng(0))
    (tmp_path / "annotations" / "v1.0.0" / "train.json").write_text("[1]", encoding="utf-8")
    (found,) = skmtea_joint.Reader().check(tmp_path, Split())
    assert "train.json" in found
