"""Opening files: what is refused, in which words, and that nothing stays open."""

import gzip
import pickle
from functools import partial
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import torch

from mrnets.errors import InputError
from training.data import Place, Sample, Slices
from training.readers import files
from training.split import Split


def h5(path: Path, **sets: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for key, values in sets.items():
            file[key] = values
    return path


def test_files_are_found_by_their_endings_and_named_after_their_place(tmp_path: Path) -> None:
    for name in ("b/two.H5", "a.h5", ".hidden/c.h5", "note.txt", "d.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.h5").mkdir()
    assert list(files.listed(tmp_path, ".h5")) == ["a", "b/two"]
    assert list(files.listed(tmp_path, ".nii", ".nii.gz")) == ["d"]
    with pytest.raises(InputError, match=r"no files \*\.mat"):
        files.listed(tmp_path, ".mat")
    (tmp_path / "b" / "two.mrd").touch()
    assert list(files.listed(tmp_path, ".mrd")) == ["b/two"]
    with pytest.raises(InputError, match=r"two\.mrd: has the name of two\.H5, and one subject has one file"):
        files.listed(tmp_path, ".h5", ".mrd")
    with pytest.raises(InputError, match="no such folder"):
        files.listed(tmp_path / "nowhere", ".h5")


def test_a_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path = h5(tmp_path / "a.h5", kspace=np.zeros((4, 100, 100), np.complex64))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"a\.h5: cannot be read; it is cut short"), files.hdf5(path):
        pass
    with pytest.raises(InputError, match=r"no\.h5: there is no such file"), files.hdf5(tmp_path / "no.h5"):
        pass


def test_a_chunk_that_is_corrupt_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("kspace", data=np.arange(5000.0), chunks=(5000,), compression="gzip")
    content = bytearray(path.read_bytes())
    content[-4000:] = bytes(4000)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.h5: cannot be read"), files.hdf5(path) as file:
        file["kspace"][()]


@pytest.mark.parametrize(
    ("values", "kind", "says"),
    [
        (np.zeros((2, 3), np.complex64), "complex", r"must have the axes \(slice, y, x\), got the shape \(2, 3\)"),
        (np.zeros((2, 3, 4), np.float32), "complex", "must be complex numbers, got float32"),
        (np.zeros((2, 3, 4), np.complex64), "real", "must be real numbers, got complex64"),
        (np.zeros((2, 3, 4), np.float32), "integer", "must be whole numbers, got float32"),
        (np.zeros((2, 0, 4), np.complex64), "complex", r"\(2, 0, 4\), which is empty"),
    ],
)
def test_an_array_of_another_layout_is_refused(tmp_path: Path, values: np.ndarray, kind: files.Kind, says: str) -> None:
    path = h5(tmp_path / "a.h5", kspace=values)
    with pytest.raises(InputError, match=says), files.hdf5(path) as file:
        files.array(file, "kspace", ("slice", "y", "x"), kind)


def test_an_absurdly_large_array_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("kspace", (2, 60000, 60000), np.complex64, chunks=(1, 100, 100))
    with pytest.raises(InputError, match="absurdly large"), files.hdf5(path) as file:
        files.array(file, "kspace", ("slice", "y", "x"))


def test_a_missing_key_names_the_nearest(tmp_path: Path) -> None:
    path = h5(tmp_path / "a.h5", kspce=np.zeros(3))
    with pytest.raises(InputError, match=r"a\.h5.*'kspace'; did you mean 'kspce'"), files.hdf5(path) as file:
        files.array(file, "kspace", ("x",))


def test_data_in_other_files_are_not_followed(tmp_path: Path) -> None:
    h5(tmp_path / "other.h5", kspace=np.zeros(3, np.complex64))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = h5py.ExternalLink("other.h5", "kspace")
        layout = h5py.VirtualLayout((3,), np.complex64)
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "kspace", (3,))
        file.create_virtual_dataset("virtual", layout)
    for key in ("kspace", "virtual"):
        with pytest.raises(InputError, match="not followed"), files.hdf5(tmp_path / "a.h5") as file:
            files.array(file, key, ("x",))


def test_masks_serve_in_turn(tmp_path: Path) -> None:
    masks = np.eye(3, dtype=np.uint8)[:, None].repeat(2, 1)
    np.save(tmp_path / "m.npy", masks)
    h5(tmp_path / "m.h5", mask_5x=masks, one=masks[1])
    for path in (tmp_path / "m.npy", tmp_path / "m.h5"):
        np.testing.assert_array_equal(files.read_mask(path, 4, "mask_5x"), masks[1] > 0)
    np.testing.assert_array_equal(files.read_mask(tmp_path / "m.h5", 7, "one"), masks[1] > 0)
    with pytest.raises(InputError, match="'mask_5'; did you mean 'mask_5x'"):
        files.read_mask(tmp_path / "m.h5", 0, "mask_5")


def test_masks_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"m\.npy: cannot be read as \.npy"):
        files.read_mask(tmp_path / "m.npy", 0, "")
    np.save(tmp_path / "c.npy", np.zeros((2, 2), np.complex64))
    with pytest.raises(InputError, match="must be numbers"):
        files.read_mask(tmp_path / "c.npy", 0, "")


def test_voxels_are_read_in_part_and_scaled(tmp_path: Path) -> None:
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = nibabel.Nifti1Image(data, np.eye(4))
    image.header.set_slope_inter(2, 1)
    nibabel.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_allclose(files.voxels(tmp_path / "a.nii.gz", (..., 2)), 2.0 * data[..., 2] + 1, rtol=1e-6)
    with pytest.raises(InputError, match=r"must have the axes \(x, y\), got the shape \(2, 3, 4\)"):
        files.nifti(tmp_path / "a.nii.gz", ("x", "y"))


def test_a_nifti_file_that_is_cut_short_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(rng.random((20, 20, 20)), np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"a\.nii\.gz: cannot be read; it is cut short"):
        files.voxels(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("left", [0.4, 0.99])
def test_a_header_is_enough_to_find_a_file_cut_short_at_its_end(
    name: str, left: float, tmp_path: Path, rng: np.random.Generator
) -> None:
    """`check` reads a few slices only, and training would end when it comes to the others."""
    path = tmp_path / name
    nibabel.save(nibabel.Nifti1Image(rng.random((20, 20, 20)), np.eye(4)), path)
    files.nifti(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole))])
    with pytest.raises(InputError, match=rf"{name}: cannot be read; it is cut short"):
        files.nifti(path)


def test_a_packed_file_in_several_pieces_is_whole(tmp_path: Path, rng: np.random.Generator) -> None:
    """As bgzip writes it. The size at its end is that of the last piece."""
    image = nibabel.Nifti1Image(rng.random((20, 20, 20)), np.eye(4))
    content = image.to_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content[:9000]) + gzip.compress(content[9000:]))
    np.testing.assert_array_equal(files.voxels(tmp_path / "a.nii.gz"), image.get_fdata(dtype=np.float32))


def load(place: Place, bad: int) -> Sample:
    if place.index == 3:
        raise InputError("three is malformed")
    kspace = np.full((1, 1, 4, 4), np.nan if place.index == bad else 1, np.complex64)
    return Sample(names=(str(place.index),), raw=files.full(kspace, "x"))


def test_a_few_slices_are_examined() -> None:
    source = Slices(tuple(Place("a.h5", n, "a") for n in range(4)), partial(load, bad=1))
    assert list(files.examined(source)) == [
        "a.h5, slice 1: k-space with values that are not finite",
        "three is malformed",
    ]
    many = Slices(tuple(Place("a.h5", 3, "a") for _ in range(1000)), partial(load, bad=1))
    assert len(list(files.examined(many))) == files.EXAMINED
    assert list(files.examined(Slices((), partial(load, bad=1)))) == []


def test_slices_are_of_the_subjects_of_a_part_and_can_be_pickled(tmp_path: Path) -> None:
    found = {f"s{n}": tmp_path / f"s{n}.h5" for n in range(4)}
    source = files.slices(found, "validation", Split(counts=(2, 1, 1)), lambda path: range(2), partial(load, bad=9))
    assert [(p.subject, p.index) for p in source.places] == [("s2", 0), ("s2", 1)]
    again = pickle.loads(pickle.dumps(source))
    assert torch.equal(again.take([1], np.random.default_rng(0)).raw.kspace, torch.ones((1, 1, 1, 4, 4)) + 0j)


def test_a_part_without_subjects_is_a_problem() -> None:
    assert list(files.split_problems(["a", "b"], Split(validation=("c",)))) == [
        "validation: none of the 2 subjects; see reader.split"
    ]
    assert not list(files.split_problems(["a", "b", "c"], Split()))
