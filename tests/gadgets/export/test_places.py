"""A marker lies at the same place of the patient in the image file, in DICOM and in NIfTI: to 0.01 mm."""

from dataclasses import replace
from pathlib import Path

import h5py
import ismrmrd
import nibabel
import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")

from gadgets.__main__ import main  # noqa: E402
from gadgets.simulate import Settings, make_scan  # noqa: E402
from mrnets.mrd.files import write_scan  # noqa: E402
from mrnets.mrd.lines import Lines  # noqa: E402

SMALL = Settings(coils=3, matrix=32, fov=200.0, acceleration=1.0, calibration=8, seed=5)
SCANS = {
    "oblique": replace(SMALL, slices=3, thickness=5.0, offset=7.0),
    "sagittal": replace(SMALL, slices=4, orientation="sagittal", offset=-11.0),
    "3-D": replace(SMALL, slices=8, three_d=True, orientation="coronal", thickness=3.0, offset=4.0),
    "multi-echo": replace(SMALL, slices=2, echoes=3, thickness=6.0),
}


def turned(items):
    """The scan with its planes turned by two angles, as no main axis lies."""
    a, b = np.deg2rad([20.0, -35.0])
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn = turn @ np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    for item in items:
        headers = item.headers.copy()
        for name in ("position", "read_dir", "phase_dir", "slice_dir"):
            headers[name] = headers[name] @ turn.T
        yield Lines(headers, item.data, item.trajectory)


def marked(path: Path, seed: int) -> np.ndarray:
    """Set one pixel of the last image far above all others. Return its place by the image's header: LPS, mm."""
    with h5py.File(path, "r+") as file:
        data = file["dataset/image_1/data"]
        place = tuple(np.random.default_rng(seed).integers(data.shape[2:]))
        data[(len(data) - 1, 0, *place)] = 10 * np.max(data)
        number = len(data) - 1
    with ismrmrd.Dataset(str(path), "dataset") as dataset:
        image = dataset.read_image("image_1", number)
    head, found = image.getHead(), np.array(image.position, float)
    for n, size, along, fov in zip(
        place[::-1],
        image.data.shape[:0:-1],
        (head.read_dir, head.phase_dir, head.slice_dir),
        head.field_of_view,
        strict=True,
    ):
        found += (n - size // 2) * fov / size * np.array(along)
    return found


def by_dicom(folder: Path) -> np.ndarray:
    """The place of the brightest pixel. Source: DICOM PS3.3, equation C.7.6.2.1-1."""
    sets = [pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))]
    one = max(sets, key=lambda data: int(data.pixel_array.max()))
    row, column = np.unravel_index(one.pixel_array.argmax(), one.pixel_array.shape)
    orientation, spacing = np.array(one.ImageOrientationPatient, float), np.array(one.PixelSpacing, float)
    corner = np.array(one.ImagePositionPatient, float)
    return corner + column * spacing[1] * orientation[:3] + row * spacing[0] * orientation[3:]


def by_nifti(path: Path) -> np.ndarray:
    """The place of the brightest pixel, from RAS to LPS."""
    image = nibabel.load(path)
    pixels = np.asarray(image.dataobj)
    index = np.unravel_index(pixels.argmax(), pixels.shape)[:3]
    return np.array([-1, -1, 1]) * nibabel.affines.apply_affine(image.affine, index)


@pytest.mark.parametrize("kind", SCANS)
def test_a_marker_lies_where_the_image_header_says(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    header, items, _ = make_scan(SCANS[kind])
    write_scan("scan.h5", header, turned(items) if kind == "oblique" else items)
    assert main(["replay", "scan.h5", "-c", "zerofilled", "-o", "images.h5", "-q"]) == 0
    place = marked(Path("images.h5"), seed=len(kind))
    assert main(["export", "images.h5", "--dicom", "dicom", "--nifti", "images.nii.gz"]) == 0
    np.testing.assert_allclose(by_dicom(Path("dicom")), place, atol=0.01)
    np.testing.assert_allclose(by_nifti(Path("images.nii.gz")), place, atol=0.01)
    image = nibabel.load("images.nii.gz")
    settings = SCANS[kind]
    echoes = (settings.echoes,) if settings.echoes > 1 else ()
    assert image.shape == (settings.matrix, settings.matrix, settings.slices, *echoes)
    assert image.get_sform(coded=True)[1] == image.get_qform(coded=True)[1] == 1
    np.testing.assert_allclose(image.get_qform(), image.affine, atol=1e-3)


@pytest.mark.parametrize("kind", SCANS)
def test_scans_of_siemens_lie_where_others_do(kind, tmp_path, monkeypatch):
    """Their directions are those of images by a forward transform. Scanners' own images showed it, to a pixel."""
    monkeypatch.chdir(tmp_path)
    images = {}
    for vendor in ("plain", "siemens"):
        header, items, _ = make_scan(replace(SCANS[kind], vendor=vendor, snr=1e4))
        write_scan(f"{vendor}.h5", header, items)
        files = ["-o", f"{vendor}_images.h5", "--nifti", f"{vendor}.nii.gz", "--dicom", vendor]
        assert main(["replay", f"{vendor}.h5", "-c", "zerofilled", "-q", *files]) == 0
        images[vendor] = nibabel.load(f"{vendor}.nii.gz")
    np.testing.assert_allclose(images["siemens"].affine, images["plain"].affine, atol=1e-4)
    both = [np.asarray(image.dataobj) / np.asarray(image.dataobj).max() for image in images.values()]
    np.testing.assert_allclose(*both, atol=0.01)
    orientations = [
        [pydicom.dcmread(path).ImageOrientationPatient for path in sorted(Path(vendor).rglob("*.dcm"))]
        for vendor in images
    ]
    np.testing.assert_allclose(*np.array(orientations, float), atol=1e-6)


def test_slices_are_in_order_of_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    header, items, _ = make_scan(SCANS["sagittal"])
    write_scan("scan.h5", header, items)
    assert main(["replay", "scan.h5", "-c", "zerofilled", "-o", "i.h5", "-q", "--dicom", "new/dicom"]) == 0
    sets = [pydicom.dcmread(path) for path in sorted(Path("new/dicom").rglob("*.dcm"))]
    assert [data.InstanceNumber for data in sets] == [1, 2, 3, 4]
    steps = np.diff([np.array(data.ImagePositionPatient, float) for data in sets], axis=0)
    np.testing.assert_allclose(steps, [[-4.0, 0, 0]] * 3, atol=1e-4)
    assert {(float(data.SliceThickness), float(data.SpacingBetweenSlices)) for data in sets} == {(4.0, 4.0)}
    np.testing.assert_allclose([data.ImageOrientationPatient for data in sets], [[0, 1, 0, 0, 0, -1]] * 4)


SILENT = "the images do not say by AxesReversed"


def silenced(path: Path, vendor: str | None) -> None:
    """Let images be as those of Gadgetron's own gadgets, in a file with or without a header."""
    with h5py.File(path, "r+") as file:
        texts = file["dataset/image_1/attributes"]
        texts[...] = [text.decode().replace("AxesReversed", "Other") for text in texts[()]]
        xml = file["dataset/xml"][0]
        del file["dataset/xml"]
        if vendor is not None:
            file["dataset/xml"] = [xml.replace(b"SIEMENS", vendor.encode())]


@pytest.mark.parametrize("kind", ["sagittal", "3-D"])
@pytest.mark.parametrize(("vendor", "told"), [("SIEMENS", True), (None, True), ("GE MEDICAL SYSTEMS", False)])
def test_images_of_gadgetron_s_own_gadgets(kind, vendor, told, tmp_path, monkeypatch, caplog):
    """They do not say how their pixels lie: that is told where it matters, and a user can say it."""
    monkeypatch.chdir(tmp_path)
    header, items, _ = make_scan(replace(SCANS[kind], vendor="siemens"))
    write_scan("scan.h5", header, items)
    assert main(["replay", "scan.h5", "-c", "zerofilled", "-o", "i.h5", "-q", "--nifti", "ours.nii.gz"]) == 0
    silenced(Path("i.h5"), vendor)
    assert main(["export", "i.h5", "--nifti", "theirs.nii.gz", "--dicom", "dicom"]) == 0
    assert (SILENT in caplog.text) == told
    comments = [pydicom.dcmread(path).ImageComments for path in Path("dicom").rglob("*.dcm")]
    assert all(("AxesReversed is missing" in text) == told for text in comments)
    ours, theirs = (nibabel.load(f"{name}.nii.gz").affine for name in ("ours", "theirs"))
    assert np.abs(ours - theirs).max() > 1, "as their headers say"
    caplog.clear()
    assert main(["export", "i.h5", "--nifti", "asked.nii.gz", "--reversed-axes"]) == 0
    assert SILENT not in caplog.text
    np.testing.assert_allclose(nibabel.load("asked.nii.gz").affine, ours, atol=1e-4)


def test_our_images_of_other_scanners_say_so_without_a_header(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    header, items, _ = make_scan(SCANS["sagittal"])
    write_scan("scan.h5", header, items)
    assert main(["replay", "scan.h5", "-c", "zerofilled", "-o", "i.h5", "-q"]) == 0
    with h5py.File("i.h5", "r+") as file:
        del file["dataset/xml"]
    assert main(["export", "i.h5", "--nifti", "i.nii.gz"]) == 0
    assert SILENT not in caplog.text
