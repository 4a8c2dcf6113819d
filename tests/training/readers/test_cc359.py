"""Calgary-Campinas: the Fourier convention of its files, trimming, parts, masks, and what check says."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from mrnets.errors import InputError
from mrnets.physics.fourier import ifftc
from tests.training.layouts import cc359_kspace, coil_images, write_cc359, write_cc359_masks
from training.readers.cc359 import Reader, _centred
from training.split import Split


def test_images_are_those_of_the_files_own_transform(tmp_path: Path, rng: np.random.Generator) -> None:
    write_cc359(tmp_path, rng)
    source = Reader().read(tmp_path, "train", Split())
    raw = source.take([1], rng).raw
    with h5py.File(source.places[1].path) as file:
        stored = file["kspace"][source.places[1].index]
    expected = np.abs(np.fft.ifft2(stored[..., ::2] + 1j * stored[..., 1::2], axes=(0, 1)))
    np.testing.assert_allclose(np.abs(ifftc(raw.kspace)[0, 0].numpy()), np.moveaxis(expected, -1, 0), atol=1e-6)
    assert raw.readout == "batch"
    assert bool(raw.mask.all())
    assert raw.kspace.shape == (1, 1, 4, 24, 20)


@pytest.mark.parametrize("shape", [(8, 6), (9, 6), (8, 7), (9, 7), (218, 170)])
@pytest.mark.parametrize("centre", ["middle", "corner"])
def test_images_come_back_with_a_smooth_phase(shape: tuple[int, int], centre: str, rng: np.random.Generator) -> None:
    images = coil_images(rng, 2, shape)
    kspace = cc359_kspace(images)
    if centre == "corner":
        kspace = np.fft.ifftshift(kspace, axes=(-2, -1))
    found = np.asarray(ifftc(_centred(kspace, centre)))  # type: ignore[arg-type]
    turn = np.vdot(images, found) / np.vdot(images, images)
    assert abs(turn) == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(found, images * turn, atol=2e-5)


def test_no_sample_moves(rng: np.random.Generator) -> None:
    kspace = rng.standard_normal((1, 9, 6)) + 1j * rng.standard_normal((1, 9, 6))
    np.testing.assert_allclose(np.abs(_centred(kspace, "middle")) * np.sqrt(54), np.abs(kspace), rtol=1e-5)


def test_slices_beyond_the_anatomy_are_left_out(tmp_path: Path, rng: np.random.Generator) -> None:
    write_cc359(tmp_path, rng)
    assert [p.index for p in Reader().read(tmp_path, "validation", Split()).places] == [51, 52, 53]
    assert len(Reader(trim=(0, 0)).read(tmp_path, "validation", Split())) == 104
    with pytest.raises(InputError, match=r"P2\.7\.h5: kspace has 104 slices, of which reader.options.trim \[60, 50\]"):
        Reader(trim=(60, 50)).read(tmp_path, "validation", Split())


def test_train_and_val_are_the_data_sets_own_folders(tmp_path: Path, rng: np.random.Generator) -> None:
    write_cc359(tmp_path, rng)
    assert Reader().read(tmp_path, "train", Split()).subjects == ("Train/e0_P0.7", "Train/e1_P1.7")
    assert Reader().read(tmp_path, "validation", Split()).subjects == ("Val/e2_P2.7",)


def test_masks_of_the_challenge_come_with_the_slices(tmp_path: Path, rng: np.random.Generator) -> None:
    write_cc359(tmp_path / "data", rng)
    write_cc359_masks(tmp_path / "masks", rng)
    options = {"masks": str(tmp_path / "masks"), "accelerations": (5.0, 10.0)}
    source = Reader(**options).read(tmp_path / "data", "train", Split())
    for number, name in ((0, "R10"), (1, "R5")):  # slices 51, 52
        stored = np.load(tmp_path / "masks" / f"{name}_24x20.npy")
        np.testing.assert_array_equal(source.take([number], rng).mask[0, 0, 0], stored[(51 + number) % 7])
    assert not list(Reader(**options).check(tmp_path / "data", Split()))


def test_masks_made_for_each_file_are_taken_first(tmp_path: Path, rng: np.random.Generator) -> None:
    write_cc359(tmp_path / "data", rng)
    write_cc359_masks(tmp_path / "masks", rng)
    own = rng.random((104, 24, 20)) < 0.2
    with h5py.File(tmp_path / "masks" / "e0_P0.7.h5", "w") as file:
        file["mask_5x"] = own
    sample = Reader(masks=str(tmp_path / "masks")).read(tmp_path / "data", "train", Split()).take([0], rng)
    np.testing.assert_array_equal(sample.mask[0, 0, 0], own[51])


def test_undersampled_files_are_no_targets(tmp_path: Path, rng: np.random.Generator) -> None:
    write_cc359(tmp_path, rng)
    (tmp_path / "Test").mkdir()
    path = tmp_path / "Test" / "e9_P9.7.h5"
    mask = rng.random((24, 20)) < 0.3
    with h5py.File(tmp_path / "Train" / "e0_P0.7.h5") as source, h5py.File(path, "w") as file:
        file["kspace"] = source["kspace"][()] * mask[..., None]
    assert list(Reader().check(tmp_path, Split())) == []  # nothing is trained on it
    with pytest.raises(InputError, match=r"e9_P9\.7\.h5: slice 51 is undersampled"):
        Reader().read(tmp_path, "test", Split()).take([0], rng)
    raw = Reader(prospective=True).read(tmp_path, "test", Split()).take([0], rng).raw
    mask[:, 17:] = False
    np.testing.assert_array_equal(raw.mask[0, 0, 0], mask)
    path.rename(tmp_path / "Train" / "e9_P9.7.h5")
    assert "e9_P9.7.h5: slice 52 is undersampled" in next(Reader().check(tmp_path, Split()))


def test_check_is_content_with_the_published_layout(tmp_path: Path, rng: np.random.Generator) -> None:
    write_cc359(tmp_path, rng)
    assert list(Reader().check(tmp_path, Split())) == []


def test_check_names_what_is_malformed(tmp_path: Path, rng: np.random.Generator) -> None:
    write_cc359(tmp_path, rng)
    with h5py.File(tmp_path / "Train" / "e0_P0.7.h5", "a") as file:
        file["kspace"][52, 3, 3, 3] = np.nan
    for name, key, shape in (
        ("odd", "kspace", (104, 4, 4, 3)),
        ("rank", "kspace", (104, 4, 4)),
        ("key", "k_space", (104, 4, 4, 2)),
    ):
        with h5py.File(tmp_path / "Train" / f"{name}.h5", "w") as file:
            file[key] = np.zeros(shape, np.float32)
    with h5py.File(tmp_path / "Train" / "complex.h5", "w") as file:
        file["kspace"] = np.zeros((104, 4, 4, 2), np.complex64)
    found = "\n".join(Reader().check(tmp_path, Split()))
    for expected in (
        "odd.h5: kspace must have an even number of channels (real, imaginary), got 3",
        "rank.h5: kspace must have the axes (slice, y, x, 2 coils), got the shape (104, 4, 4)",
        "key.h5: unknown data set: 'kspace'; did you mean 'k_space'?",
        "complex.h5: kspace must be real numbers, got complex64",
        "e0_P0.7.h5, slice 52: k-space with values that are not finite",
    ):
        assert expected in found
    assert len(found.splitlines()) == 5


def test_check_names_masks_that_do_not_fit(tmp_path: Path, rng: np.random.Generator) -> None:
    write_cc359(tmp_path / "data", rng)
    write_cc359_masks(tmp_path / "masks", rng, (24, 18))
    (tmp_path / "masks" / "R5_24x18.npy").rename(tmp_path / "masks" / "R5.npy")
    found = list(Reader(masks=str(tmp_path / "masks")).check(tmp_path / "data", Split()))
    assert "masks of (24, 18) do not fit the slices of" in found[0]
    found = list(Reader(masks=str(tmp_path / "masks"), accelerations=(10.0,)).check(tmp_path / "data", Split()))
    assert "no masks for" in found[0]


def test_check_sees_a_centre_that_is_elsewhere(tmp_path: Path, rng: np.random.Generator) -> None:
    write_cc359(tmp_path, rng)
    assert "set reader.options.centre=middle" in next(Reader(centre="corner").check(tmp_path, Split()))


def test_check_of_nothing(tmp_path: Path) -> None:
    assert list(Reader().check(tmp_path / "no", Split())) == [f"{tmp_path / 'no'}: no such folder"]
