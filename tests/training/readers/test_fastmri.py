"""fastMRI: images against the files' own reconstruction, parts, prospective masks, and what check says."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from mrnets.physics.coils import rss
from mrnets.physics.fourier import ifftc, resize
from tests.training.layouts import write_fastmri, write_fastmri_singlecoil
from training.readers.fastmri import Reader
from training.split import Split


def test_images_are_the_files_reconstruction_with_phase_encoding_along_y(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_fastmri(tmp_path, rng)
    source = Reader().read(tmp_path, "train", Split())
    sample = source.take([1], rng)
    with h5py.File(source.places[1].path) as file:
        expected = file["reconstruction_rss"][1]
    found = rss(resize(ifftc(sample.raw.kspace), (20, 20)))[0, 0].numpy()
    np.testing.assert_allclose(found.T, expected, atol=1e-6)
    assert sample.raw.kspace.shape == (1, 1, 4, 24, 40)  # y = phase encoding, x = oversampled readout
    assert sample.raw.readout == "x"
    assert bool(sample.raw.mask.all())


def test_parts_are_the_data_sets_own_folders(tmp_path: Path, rng: np.random.Generator) -> None:
    write_fastmri(tmp_path, rng, test=True)
    assert Reader().read(tmp_path, "train", Split()).subjects == tuple(
        f"multicoil_train/file_brain_AXT2_200_{n:03}" for n in range(2)
    )
    assert Reader().read(tmp_path, "validation", Split()).subjects == ("multicoil_val/file_brain_AXT2_200_002",)
    assert Reader().read(tmp_path, "test", Split()).subjects == ("multicoil_test/file_brain_AXT2_200_003",)


def test_files_of_one_patient_are_for_one_part(tmp_path: Path, rng: np.random.Generator) -> None:
    """T1 and T2 of a brain are two files. A network that learned from the one knows the other."""
    write_fastmri(tmp_path, rng, subjects=8)
    files = sorted(tmp_path.rglob("*.h5"))
    (tmp_path / "all").mkdir()
    for number, path in enumerate(files):
        with h5py.File(path, "a") as file:
            file.attrs["patient_id"] = f"patient {number % 4}"
        path.rename(tmp_path / "all" / path.name)
    split = Split(counts=(2, 1, 1))
    parts = [Reader().read(tmp_path / "all", part, split).subjects for part in ("train", "validation", "test")]
    numbers = [sorted(int(name[-3:]) for name in part) for part in parts]
    assert numbers == [[0, 1, 4, 5], [2, 6], [3, 7]]
    named = Reader().read(tmp_path / "all", "validation", Split(validation=("_007",))).subjects
    assert named == ("file_brain_AXT2_200_007",)
    assert list(Reader().check(tmp_path / "all", split)) == []


def test_test_files_are_as_they_were_sampled(tmp_path: Path, rng: np.random.Generator) -> None:
    write_fastmri(tmp_path, rng, test=True)
    raw = Reader().read(tmp_path, "test", Split()).take([0], rng).raw
    assert raw.mask.shape == (1, 1, 1, 24, 40)
    np.testing.assert_array_equal(np.flatnonzero(raw.mask[0, 0, 0, :, 7]), [0, 4, 8, 10, 11, 12, 13, 16, 20])
    assert not bool(raw.kspace[..., 1, :].any())


def test_acquisitions_can_be_chosen(tmp_path: Path, rng: np.random.Generator) -> None:
    write_fastmri(tmp_path, rng)
    with h5py.File(tmp_path / "multicoil_train" / "file_brain_AXT2_200_001.h5", "a") as file:
        file.attrs["acquisition"] = "AXT1"
    assert len(Reader(acquisitions=("AXT2",)).read(tmp_path, "train", Split())) == 2
    assert len(Reader(acquisitions=("AXT1", "AXT2")).read(tmp_path, "train", Split())) == 4
    assert "no file has one of the acquisitions T3" in next(Reader(acquisitions=("T3",)).check(tmp_path, Split()))


def test_a_volume_that_is_not_finite_is_left_out(
    tmp_path: Path, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    write_fastmri(tmp_path, rng)
    path = tmp_path / "multicoil_train" / "file_brain_AXT2_200_000.h5"
    with h5py.File(path, "a") as file:
        file["kspace"][:, 0, 5, 5] = np.nan
    sample = Reader().read(tmp_path, "train", Split()).take([0], rng)
    assert sample.names == ("multicoil_train/file_brain_AXT2_200_001, slice 0",)
    assert f"{path}, slice 1: values that are not finite" in caplog.text
    assert list(Reader().check(tmp_path, Split())) == [f"{path}, slice 1: k-space with values that are not finite"]


def test_check_is_content_with_the_published_layout(tmp_path: Path, rng: np.random.Generator) -> None:
    write_fastmri(tmp_path, rng, test=True)
    assert list(Reader().check(tmp_path, Split())) == []


def test_check_names_what_is_malformed(tmp_path: Path, rng: np.random.Generator) -> None:
    write_fastmri(tmp_path, rng)
    with h5py.File(tmp_path / "multicoil_train" / "plane.h5", "w") as file:
        file["kspace"] = np.zeros((40, 24), np.complex64)
    with h5py.File(tmp_path / "multicoil_train" / "mask.h5", "w") as file:
        file["kspace"], file["mask"] = np.zeros((2, 4, 40, 24), np.complex64), np.ones(40, bool)
    with h5py.File(tmp_path / "multicoil_val" / "file_brain_AXT2_200_002.h5", "a") as file:
        file["mask"] = np.ones(24, bool)
    found = list(Reader().check(tmp_path, Split()))
    assert "mask.h5: mask has 40 lines, kspace has 24" in found[0]
    assert "plane.h5: kspace must have the axes (slice, coil, readout, phase encoding), got the shape" in found[1]
    assert "AXT2_200_002.h5: undersampled" in found[2]
    assert len(found) == 3


@pytest.mark.parametrize(("shape", "expected"), [((40, 24), 0), ((24, 40), 1), ((40, 40), 0), ((24, 24), 0)])
def test_axes_exchanged_against_the_files_own_header_are_told(
    tmp_path: Path, rng: np.random.Generator, shape: tuple[int, int], expected: int
) -> None:
    write_fastmri(tmp_path, rng)
    path = tmp_path / "multicoil_train" / "file_brain_AXT2_200_001.h5"
    with h5py.File(path, "a") as file:
        del file["kspace"]
        file["kspace"] = np.ones((2, 4, *shape), np.complex64)
    found = list(Reader().check(tmp_path, Split()))
    assert len(found) == expected
    for line in found:
        assert line.startswith(f"{path}: ")
        assert "40 samples of readout" in line
        assert "exchanged" in line


@pytest.mark.parametrize("header", [b"<ismrmrdHeader/>", b"no XML", b""])
def test_a_header_that_cannot_be_read_is_named_and_the_rest_is_checked(
    tmp_path: Path, rng: np.random.Generator, header: bytes
) -> None:
    write_fastmri(tmp_path, rng)
    paths = [tmp_path / "multicoil_train" / f"file_brain_AXT2_200_{n:03}.h5" for n in range(2)]
    with h5py.File(paths[0], "a") as file:
        del file["ismrmrd_header"]
        file["ismrmrd_header"] = header or h5py.Empty("S1")
    with h5py.File(paths[1], "a") as file:
        file["mask"] = np.ones(24, bool)
    first, second = Reader().check(tmp_path, Split())
    assert first.startswith(f"{paths[0]}: ")
    assert "undersampled" in second


def test_a_single_coil_has_no_axis_in_the_file(tmp_path: Path, rng: np.random.Generator) -> None:
    write_fastmri_singlecoil(tmp_path, rng)
    source = Reader(acquisitions=("CORPD_FBK",)).read(tmp_path, "train", Split())
    assert source.subjects == ("singlecoil_train/file1000000", "singlecoil_train/file1000001")
    assert len(Reader().read(tmp_path, "validation", Split()).subjects) == 1
    sample = source.take([1], rng)
    assert sample.raw.kspace.shape == (1, 1, 1, 24, 40)
    with h5py.File(source.places[1].path) as file:
        expected = file["reconstruction_esc"][1]
    found = ifftc(sample.raw.kspace)[0, 0, 0].abs()
    np.testing.assert_allclose(resize(found, (20, 20)).numpy().T, expected, atol=1e-6)
    assert list(Reader().check(tmp_path, Split())) == []
