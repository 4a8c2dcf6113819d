import json
import sys
from pathlib import Path

import h5py
import ismrmrd
import nibabel
import numpy as np
import pytest
from PIL import Image

from gadgets.__main__ import main
from gadgets.export.cfl import write_cfl
from gadgets.export.contents import read_contents
from gadgets.export.nifti import write_nifti
from gadgets.export.png import write_png
from mrnets.errors import InputError
from mrnets.mrd.files import write_scan
from tests.gadgets import toys
from tests.gadgets.export.images import header, image, written
from tests.gadgets.toys import chain, stage


@pytest.fixture
def pixels(rng):
    return rng.random((6, 8)).astype(np.float32)


def test_nifti_has_echoes_and_repetitions_as_the_fourth_axis(tmp_path, pixels):
    images = [
        image(pixels + 100 * r + 10 * c + n, {"GADGETRON_TE": str(90 + 30 * c)}, repetition=r, contrast=c, z=5.0 * n)
        for n in (1, 0, 2)
        for c in range(2)
        for r in range(2)
    ]
    (path,) = write_nifti(read_contents(written(tmp_path / "i.h5", images)), tmp_path / "i.nii")
    found = nibabel.load(path)
    assert found.shape == (8, 6, 3, 4)
    for frame, (r, c) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        for n in range(3):
            np.testing.assert_array_equal(found.dataobj[:, :, n, frame], (pixels + 100 * r + 10 * c + n).T)
    beside = json.loads((tmp_path / "i.json").read_text())
    assert beside["EchoTime"] == pytest.approx([0.09, 0.12] * 2)
    assert beside["Repetition"] == [0, 0, 1, 1]
    assert beside["Notice"] == "NOT FOR CLINICAL USE"


def test_sets_phases_and_averages_of_the_fourth_axis_are_told_where_they_differ(tmp_path, pixels):
    images = [image(pixels, set=s, phase=p) for p in range(3) for s in range(2)]
    (path,) = write_nifti(read_contents(written(tmp_path / "i.h5", images)), tmp_path / "i.nii")
    assert nibabel.load(path).shape == (8, 6, 1, 6)
    beside = json.loads((tmp_path / "i.json").read_text())
    assert (beside["Set"], beside["Phase"]) == ([0, 0, 0, 1, 1, 1], [0, 1, 2] * 2)
    assert "Average" not in beside


def test_each_series_has_a_nifti_file_named_after_its_role(tmp_path, pixels):
    series = [image(pixels), image(pixels, {"GADGETRON_DataRole": "R2*", "Unit": "1/s"}, series=2)]
    paths = write_nifti(read_contents(written(tmp_path / "i.h5", series)), tmp_path / "i.nii.gz")
    assert [path.name for path in paths] == ["i_Image.nii.gz", "i_R2star.nii.gz"]
    assert json.loads((tmp_path / "i_R2star.json").read_text())["Units"] == "1/s"


def test_slices_with_gaps_keep_their_distance_and_uneven_ones_are_apart(tmp_path, pixels):
    even = [image(pixels, z=z) for z in (0.0, 7.0, 14.0)]
    (path,) = write_nifti(read_contents(written(tmp_path / "i.h5", even)), tmp_path / "even.nii")
    np.testing.assert_allclose(nibabel.load(path).affine[:3, 2], [0, 0, 7])
    uneven = [image(pixels, z=z) for z in (0.0, 7.0, 15.0)]
    paths = write_nifti(read_contents(written(tmp_path / "u.h5", uneven)), tmp_path / "uneven.nii")
    assert [nibabel.load(path).affine[2, 3] for path in paths] == [0, 7, 15]


def test_complex_pixels_stay_complex_in_nifti_and_cfl(tmp_path, pixels):
    values = (pixels * np.exp(1j * pixels)).astype(np.complex64)
    contents = read_contents(written(tmp_path / "i.h5", [image(values, kind=ismrmrd.IMTYPE_COMPLEX)]))
    (path,) = write_nifti(contents, tmp_path / "i.nii")
    np.testing.assert_array_equal(np.asarray(nibabel.load(path).dataobj)[..., 0], values.T)
    (name,) = write_cfl(contents, tmp_path / "bart")
    np.testing.assert_array_equal(bart(name)[..., 0].squeeze(), values.T)


def bart(name: Path) -> np.ndarray:
    """Read BART's format: sizes in the second line, complex64, first axis fastest."""
    sizes = [int(size) for size in name.with_name(name.name + ".hdr").read_text().splitlines()[1].split()]
    return np.fromfile(name.with_name(name.name + ".cfl"), np.complex64).reshape(sizes, order="F")


def test_cfl_has_bart_s_axes(tmp_path, pixels):
    images = [
        image(pixels + 100 * r + 10 * c + n, repetition=r, contrast=c, z=5.0 * n)
        for n in range(3)
        for c in range(2)
        for r in range(4)
    ]
    (name,) = write_cfl(read_contents(written(tmp_path / "i.h5", images)), tmp_path / "bart.v1")
    found = bart(name)
    assert found.shape == (8, 6, 1, 1, 1, 2, 1, 1, 1, 1, 4, 1, 1, 3, 1, 1)
    for r, c, n in ((0, 0, 0), (3, 1, 2), (1, 0, 2)):
        np.testing.assert_array_equal(
            found[:, :, 0, 0, 0, c, 0, 0, 0, 0, r, 0, 0, n, 0, 0], (pixels + 100 * r + 10 * c + n).T
        )


def test_cfl_of_a_volume(tmp_path, rng):
    volume = rng.random((4, 6, 8)).astype(np.float32)
    one = ismrmrd.Image(head=image(volume[0]).getHead(), data=volume[None])
    (name,) = write_cfl(read_contents(written(tmp_path / "i.h5", [one])), tmp_path / "v")
    np.testing.assert_array_equal(bart(name).squeeze(), volume.T)


def test_labels_have_colours_and_a_legend(tmp_path):
    labels = np.arange(48, dtype=np.uint16).reshape(6, 8) % 3
    meta = {"GADGETRON_DataRole": "Segmentation", "Labels": ["0 background", "1 grey matter", "2 white matter"]}
    (path,) = write_png(read_contents(written(tmp_path / "i.h5", [image(labels, meta)])), tmp_path)
    picture = np.asarray(Image.open(path))
    colours = [{tuple(int(v) for v in c) for c in picture[:6, :8][labels == n]} for n in range(3)]
    assert [len(found) for found in colours] == [1, 1, 1]
    assert colours[0] == {(0, 0, 0)}
    assert colours[1] != colours[2]
    legend = {tuple(int(v) for v in c) for c in picture[6:].reshape(-1, 3)}
    assert colours[1] | colours[2] | {(255, 255, 255)} <= legend


def test_pixels_with_a_sign_keep_their_order_in_a_picture(tmp_path, pixels):
    values = pixels - 0.5
    (path,) = write_png(read_contents(written(tmp_path / "i.h5", [image(values)])), tmp_path)
    greys = np.asarray(Image.open(path)).astype(int)
    order = np.argsort(values, axis=None)
    assert (np.diff(greys.ravel()[order]) >= 0).all()
    assert (greys.min(), greys.max()) == (0, 255)


def test_an_image_file_of_replay_carries_the_header_of_the_scan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_scan("scan.h5", toys.HEADER, toys.scan())
    Path("toy.xml").write_text(chain(stage("noise"), stage("toy")))
    assert main(["replay", "scan.h5", "-c", "toy.xml", "-q"]) == 0
    with ismrmrd.Dataset("out.h5", "dataset") as dataset:
        found = ismrmrd.xsd.CreateFromDocument(dataset.read_xml_header().decode("utf-8"))  # as FIRE's mrd2dicom
    assert found == ismrmrd.xsd.CreateFromDocument(toys.HEADER)


def test_a_header_keeps_its_letters_whatever_encoding_it_declared(tmp_path, pixels):
    path = written(tmp_path / "i.h5", [image(pixels)], header())
    with ismrmrd.Dataset(str(path), "dataset") as dataset:
        found = ismrmrd.xsd.CreateFromDocument(dataset.read_xml_header())
    assert found.subjectInformation.patientName == "Müller^Ada"


@pytest.mark.parametrize(
    ("option", "module", "package"),
    [("--dicom", "pydicom", "pydicom"), ("--nifti", "nibabel", "nibabel"), ("--png", "PIL", "Pillow")],
)
@pytest.mark.parametrize("command", ["replay", "export"])
def test_an_absent_library_is_one_sentence_before_anything_is_done(
    tmp_path, monkeypatch, capsys, command, option, module, package
):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    assert main([command, "absent.h5", option, "new.nii.gz"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"needs {package}, which is not installed" in line
    assert "pip install 'gadgetron-networks[export]'" in line


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["i.h5"], "give one or more of: --dicom, --nifti, --png, --cfl"),
        (["i.h5", "--nifti", "i.nrrd"], "i.nrrd has no name of a NIfTI file"),
        (["i.h5", "--dicom", "full"], "full is no empty folder"),
        (["i.h5", "-G", "other", "--cfl", "x"], 'i.h5: there is no group "other"'),
        (["absent.h5", "--cfl", "x"], "absent.h5: there is no such file"),
        (["two.h5", "--cfl", "x"], "image_1 has images of 2 channels"),
        (["none.h5", "--cfl", "x"], 'none.h5: there are no images in the group "dataset"'),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(tmp_path, monkeypatch, capsys, pixels, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    written(Path("i.h5"), [image(pixels)])
    written(Path("none.h5"), [])
    both = ismrmrd.Image(head=image(pixels).getHead(), data=np.stack([pixels, pixels])[:, None])
    written(Path("two.h5"), [both])
    Path("full").mkdir()
    Path("full/file").write_text("")
    assert main(["export", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gadgets export: ")
    assert sentence in line


def test_meta_data_with_entities_are_refused(tmp_path, pixels):
    path = written(tmp_path / "i.h5", [image(pixels)])
    with h5py.File(path, "r+") as file:
        file["dataset/image_1/attributes"][0] = "<!DOCTYPE a [<!ENTITY b 'c'>]><ismrmrdMeta/>"
    with pytest.raises(InputError, match="document type"):
        read_contents(path)


def test_pixels_that_are_no_numbers_are_refused(tmp_path, pixels):
    path = written(tmp_path / "i.h5", [image(pixels)])
    with h5py.File(path, "r+") as file:
        del file["dataset/image_1/data"]
        file["dataset/image_1/data"] = np.zeros((1, 1, 1, 6, 8), [("a", "<f4"), ("b", "<f4"), ("c", "<f4")])
    with pytest.raises(InputError, match="numbers were expected"):
        read_contents(path)


def test_all_formats_at_once(tmp_path, monkeypatch, pixels, capsys):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("pydicom")
    written(Path("i.h5"), [image(pixels, z=z) for z in (0.0, 5.0)], header())
    asked = ["--dicom", "d", "--nifti", "n/i.nii.gz", "--png", "p", "--cfl", "c/i"]
    assert main(["export", "i.h5", *asked]) == 0
    files = {path.as_posix() for path in Path().rglob("*") if path.is_file()} - {"i.h5"}
    assert files == {
        *("d/001_Image/0001.dcm", "d/001_Image/0002.dcm", "n/i.nii.gz", "n/i.json"),
        *("p/image_1_000.png", "p/image_1_001.png", "p/image_1_montage.png", "c/i.hdr", "c/i.cfl"),
    }
    assert capsys.readouterr().err.splitlines()[-4] == "d: 2 files"


def test_a_montage_has_the_slices_in_order_and_a_row_for_each_echo(tmp_path):
    images = [
        image(np.full((6, 8), 1 + n + 3 * echo, np.float32), z=5.0 * n, contrast=echo)
        for n in (2, 0, 1)
        for echo in range(2)
    ]
    paths = write_png(read_contents(written(tmp_path / "i.h5", images)), tmp_path)
    assert [path.name for path in paths][-1] == "image_1_montage.png"
    picture = np.asarray(Image.open(paths[-1]))[:12, :24]
    tiles = picture.reshape(2, 6, 3, 8).transpose(0, 2, 1, 3).reshape(6, -1)
    assert (np.diff(tiles[:, 0].astype(int)) > 0).all()
    assert (tiles == tiles[:, :1]).all()


def test_a_montage_of_labels_has_one_legend(tmp_path):
    labels = np.arange(48, dtype=np.uint16).reshape(6, 8) % 3
    meta = {"GADGETRON_DataRole": "Segmentation", "Labels": ["0 background", "1 grey matter", "2 white matter"]}
    images = [image(labels, meta, z=5.0 * n) for n in range(2)]
    *_, path = write_png(read_contents(written(tmp_path / "i.h5", images)), tmp_path)
    assert path.name == "image_1_montage.png"
    picture = np.asarray(Image.open(path))
    one = np.asarray(Image.open(tmp_path / "image_1_000.png"))
    np.testing.assert_array_equal(picture[:6, 8:16], one[:6, :8])
    assert len(picture) == len(one)


def test_many_slices_and_images_without_a_place_have_a_montage_too(tmp_path, pixels):
    many = [image(np.kron(pixels, np.ones((8, 8), np.float32)), z=5.0 * n) for n in range(30)]
    *_, path = write_png(read_contents(written(tmp_path / "many.h5", many)), tmp_path / "many")
    height, width = np.asarray(Image.open(path)).shape
    height -= 18  # the line below
    assert height * width >= 30 * 48 * 64
    assert 0.5 < height / width < 2
    lost = [image(pixels, z=np.nan), image(pixels, z=np.nan)]
    *_, path = write_png(read_contents(written(tmp_path / "lost.h5", lost)), tmp_path / "lost")
    assert np.asarray(Image.open(path)).shape[0] - 18 in (6, 12)


def test_the_planes_of_a_series_have_one_window_which_is_told(tmp_path, pixels):
    sagittal = {"read_dir": (0, 1, 0), "phase_dir": (0, 0, -1), "slice_dir": (-1, 0, 0)}
    axial = [image(pixels * 0 + 1, {"Unit": "rad"}, z=5.0 * n) for n in range(2)]
    across = [image(pixels * 0 + 4, {"Unit": "rad"}, position=(5.0 * n, 0, 0), **sagittal) for n in range(2)]
    small = [image(pixels[:4] * 0 + 2)]  # another group of the file, since its shape is another one
    made = write_png(read_contents(written(tmp_path / "i.h5", [*axial, *across, *small])), tmp_path)
    greys = {path.name: int(np.asarray(Image.open(path))[0, 0]) for path in made}
    assert [greys[f"image_1_00{n}.png"] for n in range(4)] == [64, 64, 255, 255]
    others = ("image_1_1_000.png", "image_1_montage.png", "image_1_montage_2.png")
    assert [greys[name] for name in others] == [128, 64, 255]
    for path in made:
        with Image.open(path) as picture:
            assert picture.text == {"Comment": "black 0, white 4 rad"}
    below = np.asarray(Image.open(tmp_path / "image_1_montage.png"))[6:]
    assert (below > 0).any()


def _external(file: h5py.File) -> None:
    del file["dataset/image_1/data"]
    outside = [(file.filename, 0, 192)]
    file.create_dataset("dataset/image_1/data", (1, 1, 1, 6, 8), "<f4", external=outside)


def _unknown_numbers(file: h5py.File) -> None:
    """Pixels of a kind of numbers for which NumPy has no type."""
    del file["dataset/image_1/data"]
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_ebias(100_000)
    h5py.h5d.create(file["dataset/image_1"].id, b"data", kind, h5py.h5s.create_simple((1, 1, 1, 6, 8)))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda file: file.create_group("dataset/xml"), "/dataset/xml, the ISMRMRD header, is no data set"),
        (lambda file: file.create_dataset("dataset/xml", (1 << 40,), "S1", chunks=(9,)), "xml announces 10995"),
        (lambda file: file["dataset/image_1/attributes"].resize((2,)), "does not hold the meta data of 1 images"),
        (lambda file: file["dataset/image_1/data"].resize((1 << 30, 1, 1, 6, 8)), "announces .* bytes"),
        (lambda file: (file.pop("dataset/image_1/data"), file.create_group("dataset/image_1/data")), "no images in"),
        (_external, "data lies in another file"),
        (_unknown_numbers, "cannot be read; it is cut short, corrupt"),
    ],
)
def test_an_image_file_with_other_things_in_it_is_one_sentence(tmp_path, pixels, change, sentence):
    path = written(tmp_path / "i.h5", [image(pixels)])
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(InputError, match=f"i.h5: .*{sentence}"):
        read_contents(path)
