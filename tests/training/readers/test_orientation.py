"""However the files of a data set are stored, networks see their slices as `python -m gadgets segment` shows them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from gadgets.segment.volumes import read_images
from tests.training.cases import cases
from training.data import Reader, Sample, Slices
from training.readers import brats, isles, labelled
from training.split import Split

CASES = cases()
CONTRASTS = {"brats": ("t1c", "t1n", "t2f", "t2w"), "isles": ("adc", "dwi"), "labelled": ("T1",)}
AXIAL = ("RAS", "LAS", "LPI", "PLS", "ARI")
SPLIT = Split(counts=(1, 1, 1))


def write_labelled(folder: Path, rng: np.random.Generator) -> None:
    for name in "abc":
        (folder / name).mkdir(parents=True)
        affine = np.diag([-1.0, -2, 3, 1])
        images = {"T1": rng.random((12, 10, 6)) + 0.5, "seg": rng.integers(0, 2, (12, 10, 6))}
        for kind, values in images.items():
            image = nibabel.Nifti1Image(values.astype(np.float32), affine)
            nibabel.save(image, folder / name / f"{kind}.nii.gz")


WRITERS = {"brats": CASES["brats"].write, "isles": CASES["isles"].write, "labelled": write_labelled}


def reader_of(name: str, slices: int = 1) -> Reader:
    if name == "labelled":
        return labelled.Reader(contrasts=("T1*",), label_map="seg*", slices=slices)
    return {"brats": brats.Reader, "isles": isles.Reader}[name](slices=slices)


def turned(folder: Path, order: str) -> Path:
    """Return a copy of a data set whose files have axes that lead where the letters of `order` say."""
    copy = folder.with_name(f"{folder.name}_{order}")
    shutil.copytree(folder, copy)
    for path in folder.rglob("*.nii.gz"):
        image = nibabel.load(path)
        turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(order))
        nibabel.save(image.as_reoriented(turn), copy / path.relative_to(folder))
    return copy


def samples(name: str, folder: Path, slices: int = 1) -> tuple[Slices, list[Sample]]:
    source: Any = reader_of(name, slices).read(folder, "train", SPLIT)
    return source, [source.take([n], np.random.default_rng(0)) for n in range(len(source))]


@pytest.mark.parametrize(("order", "slices"), [(order, 3 if order.endswith("I") else 1) for order in AXIAL])
@pytest.mark.parametrize("name", WRITERS)
def test_slices_are_the_same_however_they_are_stored(name: str, order: str, slices: int, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / "data", np.random.default_rng(0))
    _, before = samples(name, tmp_path / "data", slices)
    _, after = samples(name, turned(tmp_path / "data", order), slices)
    last = 6 if order.endswith("I") and name != "labelled" else None  # these readers number slices as the file does
    by_number = {one.places[0].index: one for one in after}
    compared = 0
    for one in before:
        number = one.places[0].index
        other = by_number.get(number if last is None else last - number)
        if other is not None:  # a slice that shows something may stand for one that does not
            torch.testing.assert_close(one.image, other.image, rtol=1e-4, atol=1e-3)
            assert torch.equal(one.labels, other.labels)
            compared += 1
    assert compared > len(before) // 2


@pytest.mark.parametrize("order", AXIAL)
@pytest.mark.parametrize("name", WRITERS)
def test_training_and_the_command_segment_show_a_network_the_same(name: str, order: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / "data", np.random.default_rng(0))
    copy = turned(tmp_path / "data", order)
    for kind in CONTRASTS[name][:2]:  # interpolation gives values below 0
        for path in copy.rglob(f"*{kind}.nii.gz"):
            image = nibabel.load(path)
            values = image.get_fdata(dtype=np.float32)
            nibabel.save(nibabel.Nifti1Image(values - 0.3 * values.max(), image.affine), path)
    source, found = samples(name, copy)
    folder = Path(source.places[0].path)
    files = [next(folder.glob(f"*{kind}.nii.gz")) for kind in CONTRASTS[name]]
    shown = np.stack([image.volume.array for image in read_images([str(path) for path in files])])
    for sample in found:
        mine = sample.image[0, : len(files)].numpy()
        mine, volumes = (values / values.max(axis=(-2, -1), keepdims=True).clip(1e-6) for values in (mine, shown))
        assert min(float(np.abs(mine - volumes[:, z]).max()) for z in range(volumes.shape[1])) < 1e-6


def test_slices_that_are_not_axial_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    CASES["brats"].write(tmp_path / "data", np.random.default_rng(0))
    folder = turned(tmp_path / "data", "PSL")
    _, found = samples("brats", folder)
    assert "-seg.nii.gz: its slices are not axial; they are taken as stored" in caplog.text
    stored = nibabel.load(next(folder.glob("*00000-000/*t1c.nii.gz"))).get_fdata()
    assert found[0].image.shape[-2:] == stored.shape[1::-1]
