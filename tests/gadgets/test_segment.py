"""`python -m gadgets segment`: labels of images in files, where they belong, whatever way the files store them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gadgets import estimate
from gadgets.__main__ import main
from gadgets.imagefiles import read_images
from gadgets.segment import volumes
from mrnets import store
from mrnets.contract import Estimate
from mrnets.errors import InputError
from mrnets.preparation import Preparation
from mrnets.prepare_image import prepare_image
from tests.gadgets.networks import save

nibabel = pytest.importorskip("nibabel")
highdicom = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")
image = pytest.importorskip("PIL.Image")

SHAPE = (20, 24, 6)
"""(x, y, z) of the volumes in LPS."""
CLASSES = ["necrotic core", "oedema", "enhancing tumour", "whole tumour"]
CONTRASTS = ("t1c", "t1", "flair", "t2")
STORED = {"t1c": "RAS", "t1": "LPS", "flair": "PSR", "t2": "LAS"}
"""How the file of each contrast stores the same voxels."""


pytestmark = pytest.mark.usefixtures("no_networks_of_other_tests")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with four contrasts, and we are in it. Each shows a bright block of its own in a head."""
    monkeypatch.chdir(tmp_path)
    for name, pixels in zip(CONTRASTS, heads(), strict=True):
        nibabel.save(stored(pixels, STORED[name]), f"case_{name}.nii.gz")
    return tmp_path


def heads() -> list[np.ndarray]:
    """Pixels (x, y, z) of each contrast in LPS: 1 in the head, 3 in a block, 4 in a corner; 0 outside."""
    made = []
    for n in range(len(CONTRASTS)):
        pixels = np.zeros(SHAPE, np.float32)
        pixels[2:18, 3:21] = 1
        pixels[2, 3] = 4
        pixels[block(n)] = 3
        made.append(pixels)
    return made


def block(number: int) -> tuple[slice, slice, slice]:
    return slice(3 + number, 7 + 2 * number), slice(4, 9 + number), slice(1 + number // 2, 4)


def oblique() -> np.ndarray:
    """An affine matrix of LPS voxels to RAS: 1.5 x 1 x 2 mm, turned by 10 degrees."""
    turn, affine = np.deg2rad(10), np.eye(4)
    turned = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine[:3, :3] = turned @ np.diag([-1.5, -1.0, 2.0])
    affine[:3, 3] = 12.0, -7.5, 31.0
    return affine


def stored(pixels: np.ndarray, orientation: str) -> "nibabel.Nifti1Image":
    given = nibabel.Nifti1Image(pixels, oblique())
    here = nibabel.orientations.io_orientation(given.affine)
    wanted = nibabel.orientations.axcodes2ornt(orientation)
    return given.as_reoriented(nibabel.orientations.ornt_transform(here, wanted))


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Weights of a network on four contrasts. Class n is where the contrast n is about 3/4 of its maximum."""
    path = save(
        tmp_path / "mine.safetensors",
        "segunet",
        CLASSES,
        options={"contrasts": 4, "classes": 4},
        classes="overlapping",
        normalisation="minmax",
    )

    class Bright(torch.nn.Module):
        def forward(self, scan):
            return Estimate(logits=0.1 - (scan.image - 0.75).abs())

    load = store.load
    monkeypatch.setattr(store, "load", lambda *given: replace(load(*given), network=Bright()))
    return path


def segment(*words: str, status: int = 0) -> None:
    assert main(["segment", *words]) == status


def files() -> list[str]:
    return [f"case_{name}.nii.gz" for name in ("t1", "t2", "flair", "t1c")]


def test_labels_lie_where_the_contrasts_show_them(place, weights, capsys):
    segment(*files(), "-c", "brats", "-w", weights, "-o", "out")
    told = capsys.readouterr().err.splitlines()
    assert told[:4] == [f"{name}: case_{name}.nii.gz" for name in CONTRASTS]
    reference = nibabel.load("case_t1c.nii.gz")
    for n, name in enumerate(CLASSES):
        found = nibabel.load(f"out/{name.replace(' ', '-')}.nii.gz")
        np.testing.assert_array_equal(found.affine, reference.affine)
        assert found.header["sform_code"] == reference.header["sform_code"]
        assert nibabel.aff2axcodes(found.affine) == tuple(STORED["t1c"])
        wanted = np.zeros(SHAPE)
        wanted[block(n)] = 1
        np.testing.assert_array_equal(found.get_fdata(), stored(wanted, STORED["t1c"]).get_fdata())
        beside = json.loads(Path(f"out/{name.replace(' ', '-')}.json").read_text())
        assert beside["Labels"] == {"0": "background", "1": name}
        assert beside["Notice"] == "NOT FOR CLINICAL USE"


def test_a_network_sees_each_contrast_as_training_does(place, tmp_path):
    """A network with weights: its labels are those of the slices in LPS, prepared by the weights file."""
    path = save(
        tmp_path / "real.safetensors",
        "segunet",
        ["background", "a", "b"],
        options={"contrasts": 4, "classes": 3, "channels": 4},
        provenance={"contrasts": ["t1c", "t1n", "t2f", "t2w"]},
        normalisation="minmax",
    )
    segment(*files(), "-c", "brats", "-w", path, "-o", "out", "-q")
    trained = store.load(path)
    images = torch.from_numpy(np.stack(heads()).transpose(3, 0, 2, 1).copy())  # (z, contrast, y, x)
    with torch.inference_mode():
        scan = prepare_image(images, Preparation.from_json(trained.preparation)).scan
        numbers = trained.network(scan).logits.argmax(1).numpy()
    numbers[~(images != 0).any(1).numpy()] = 0
    assert len(np.unique(numbers)) > 1
    found = nibabel.load("out/labels.nii.gz").get_fdata()
    np.testing.assert_array_equal(found, stored(numbers.transpose(2, 1, 0).astype(float), "RAS").get_fdata())


def test_segmentations_refer_to_dicom_images(place, weights):
    """The images of the first run, as DICOM, are those of a second one."""
    segment(*files(), "-c", "brats", "-w", weights, "-o", "out", "-q")
    series = [str(path) for path in sorted(Path("out/dicom").glob("*_Image*"))]
    assert len(series) == 4
    segment(*series, "-c", "brats", "-w", weights, "-o", "again", "-q")
    sources = {pydicom.dcmread(path).SOPInstanceUID for path in Path(series[0]).iterdir()}
    for n, name in enumerate(CLASSES):
        first, second = (nibabel.load(f"{folder}/{name.replace(' ', '-')}.nii.gz") for folder in ("out", "again"))
        back = nibabel.as_closest_canonical(second)
        np.testing.assert_array_equal(back.get_fdata(), nibabel.as_closest_canonical(first).get_fdata())
        np.testing.assert_allclose(back.affine, nibabel.as_closest_canonical(first).affine, atol=1e-3)
        made = highdicom.seg.segread(f"again/dicom/{n + 1:04d}.dcm")
        assert made.get_segment_description(1).segment_label == name
        assert {uid for _, _, uid in made.get_source_image_uids()} <= sources
        assert made.SeriesDescription.endswith("NOT FOR CLINICAL USE")
        volume = made.get_volume(segment_numbers=[1], combine_segments=True)
        lps = volume.to_patient_orientation("SPL")
        assert lps.array.sum() == first.get_fdata().sum()
        (place_of, *_) = lps.map_indices_to_reference(np.argwhere(lps.array)[:1])
        voxel = np.argwhere(first.get_fdata())
        there = (voxel @ first.affine[:3, :3].T + first.affine[:3, 3]) * (-1, -1, 1)
        assert np.linalg.norm(there - place_of, axis=1).min() < 0.01


def test_the_picture_shows_the_labels_on_the_image(place, weights):
    segment(*files(), "-c", "brats", "-w", weights, "-o", "out", "-q")
    picture = np.asarray(image.open("out/montage.png").convert("RGB")).astype(int)
    slices = 3  # that have labels
    assert picture.shape[1] == max(160, slices * SHAPE[0])
    grey, painted = picture[: SHAPE[1], : slices * SHAPE[0]], picture[SHAPE[1] : 2 * SHAPE[1], : slices * SHAPE[0]]
    assert (grey.max(-1) == grey.min(-1)).all()
    coloured = painted.max(-1) != painted.min(-1)
    seen = np.concatenate([sum(_mask(n)[:, :, z] for n in range(4)).T > 0 for z in (1, 2, 3)], axis=1)
    np.testing.assert_array_equal(coloured, seen)


def _mask(number: int) -> np.ndarray:
    mask = np.zeros(SHAPE, int)
    mask[block(number)] = 1
    return mask


def test_a_shipped_network_takes_one_image_by_any_name(place, capsys):
    segment("case_t1.nii.gz", "-c", "tissue", "-o", "out")
    assert capsys.readouterr().err.splitlines()[0] == "t1: case_t1.nii.gz"
    names = {name for name, _ in read_images("out/images.h5")}
    assert names == {"image_1", "image_2"}
    assert nibabel.load("out/labels.nii.gz").shape == nibabel.load("case_t1.nii.gz").shape


def test_negative_pixels_are_0_and_are_told(place, weights, caplog):
    given = nibabel.load("case_t2.nii.gz")
    pixels = given.get_fdata()
    pixels[0, 0, 0] = -5
    nibabel.save(nibabel.Nifti1Image(pixels.astype(np.float32), given.affine), "case_t2.nii.gz")
    segment(*files(), "-c", "brats", "-w", weights, "-o", "out")
    assert "1 negative pixel of case_t2.nii.gz, taken for 0" in caplog.text
    comments = json.loads(Path("out/oedema.json").read_text())["Comments"]
    assert "negative" in comments[0]


def test_a_file_that_does_not_say_where_its_voxels_lie_is_told(place, weights, caplog):
    segment(*files(), "-c", "brats", "-w", weights, "-o", "placed")
    assert "sform_code" not in caplog.text
    for name, pixels in zip(CONTRASTS, heads(), strict=True):
        unplaced = nibabel.Nifti1Image(pixels, None)
        unplaced.set_sform(None, 0)
        unplaced.set_qform(None, 0)
        nibabel.save(unplaced, f"case_{name}.nii.gz")
    segment(*files(), "-c", "brats", "-w", weights, "-o", "out")
    sentence = "case_t1.nii.gz does not say where its voxels lie (sform_code and qform_code are 0)"
    assert sentence in caplog.text
    assert sentence in json.loads(Path("out/oedema.json").read_text())["Comments"][0]


def shifted(name: str, by: float) -> None:
    given = nibabel.load(f"case_{name}.nii.gz")
    affine = given.affine.copy()
    affine[0, 3] += by
    nibabel.save(nibabel.Nifti1Image(given.get_fdata().astype(np.float32), affine), f"case_{name}.nii.gz")


def test_what_lies_within_rounding_is_one_grid(place, weights):
    shifted("t2", 0.005)
    segment(*files(), "-c", "brats", "-w", weights, "-o", "out", "-q")


@pytest.mark.parametrize("fault", ["moved", "cut", "not finite", "not NIfTI", "four axes"])
def test_images_that_cannot_be_are_one_sentence(place, weights, capsys, fault):
    if fault == "moved":
        shifted("flair", 0.5)
        words = "case_t1c.nii.gz and case_flair.nii.gz are not on one grid (corners 0.5 mm apart)"
    elif fault == "cut":
        nibabel.save(nibabel.load("case_flair.nii.gz").slicer[:-1], "case_flair.nii.gz")
        words = "not on one grid ((6, 24, 20) and "
    elif fault == "not finite":
        pixels = np.full(SHAPE, np.nan, np.float32)
        nibabel.save(nibabel.Nifti1Image(pixels, oblique()), "case_flair.nii.gz")
        words = "case_flair.nii.gz: has pixels that are not finite"
    elif fault == "not NIfTI":
        Path("case_flair.nii.gz").write_bytes(b"no NIfTI")
        words = "case_flair.nii.gz: cannot be read as NIfTI"
    else:
        nibabel.save(nibabel.Nifti1Image(np.ones((*SHAPE, 2), np.float32), oblique()), "case_flair.nii.gz")
        words = "must have the axes (x, y, z), got the shape (20, 24, 6, 2)"
    segment(*files(), "-c", "brats", "-w", weights, "-o", "out", status=1)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gadgets segment: ")]
    assert words in line
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["case_t1.nii.gz", "case_t2.nii.gz", "case_flair.nii.gz"], "There is no t1c; t1c=FILE names it."),
        (["case_t1.nii.gz", "t1=case_t2.nii.gz"], "case_t1.nii.gz and case_t2.nii.gz are both t1; name one of them."),
        (["none.nii.gz"], "none.nii.gz: there is no such file or folder"),
        (["empty"], "empty: there are no DICOM images"),
        (["mine.safetensors"], "is no NIfTI file"),
        (["case_t1.nii.gz", "--orientation", "LPX"], "--orientation LPX: three letters"),
        (["case_t1.nii.gz", "--set", "network.contrasts=adc,dwi,pd"], "'pd' is no contrast that is known"),
        (["case_t1.nii.gz", "-w", "varnet_brain"], "varnet_brain is for scans"),
        (["case_t1.nii.gz", "-o", "full"], "full is no empty folder"),
    ],
)
def test_options_that_cannot_be_are_one_sentence(place, weights, capsys, words, sentence):
    Path("empty").mkdir()
    Path("full").mkdir()
    Path("full/file").touch()
    both = [] if "-w" in words else ["-w", weights]
    segment("-c", "brats", *both, "-q", *words, status=1)
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
    assert not Path("labels").exists()


def test_a_chain_without_weights_says_what_to_give(place, capsys):
    segment("case_t1.nii.gz", "-c", "isles", status=1)
    assert "chain isles.xml names no weights; give those of a segmentation network: --weights FILE" in (
        capsys.readouterr().err
    )


def test_a_slice_without_labels_is_no_success(place, weights, capsys, monkeypatch):
    """The network fails on the last slice: nothing that looks whole is left."""
    usual = estimate._segmented

    def failing(frames, how):
        if int(frames[0].headers[0, 0]["idx"]["slice"]) == SHAPE[2] - 1:
            raise ArithmeticError("it breaks")
        return usual(frames, how)

    monkeypatch.setattr(estimate, "_segmented", failing)
    segment(*files(), "-c", "brats", "-w", weights, "-o", "out", "-q", status=1)
    line = capsys.readouterr().err.splitlines()[-1]
    assert "1 slice without labels, first 5: " in line
    assert "it breaks" in line
    assert not list(Path("out").glob("*.nii.gz"))


def test_orientations_are_the_network_s(place):
    for orientation, axis in (("LPS", 2), ("RPS", 2), ("PSL", 1)):
        (found,) = volumes.read_images(["case_t1.nii.gz"], orientation)
        assert found.volume.get_closest_patient_orientation() == tuple(
            highdicom.PatientOrientationValuesBiped(c.replace("S", "H").replace("I", "F")) for c in orientation[::-1]
        )
        assert found.volume.spatial_shape[0] == {2: SHAPE[2], 1: SHAPE[0]}[axis]


def test_series_in_one_folder_are_told_apart_by_their_names(place, weights):
    segment(*files(), "-c", "brats", "-w", weights, "-o", "out", "-q")
    assert sorted(str(one.name) for one in volumes.read_images(["out/dicom"])) == sorted(CONTRASTS)
    with pytest.raises(InputError, match="has 12 series; one was expected for t1"):
        volumes.read_images(["t1=out/dicom"])
    for path in Path("out/dicom").glob("*Image*/*.dcm"):
        path.unlink()
    with pytest.raises(InputError, match="none of its 8 series has a name that tells a contrast"):
        volumes.read_images(["out/dicom"])
