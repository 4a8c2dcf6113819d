import re
from pathlib import Path

import ismrmrd
import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")

from gadgets.__main__ import main  # noqa: E402
from gadgets.export.contents import read_contents  # noqa: E402
from gadgets.export.dicom import write_dicom  # noqa: E402
from gadgets.export.identity import uid  # noqa: E402
from mrnets.errors import InputError  # noqa: E402
from tests.gadgets.export.images import SUBJECT, header, image, written  # noqa: E402


def exported(place: Path, images, xml=None) -> list:
    place.mkdir()
    contents = read_contents(written(place / "images.h5", images, xml))
    return [pydicom.dcmread(path) for path in write_dicom(contents, place / "dicom")]


@pytest.fixture
def pixels(rng):
    return rng.random((6, 8)).astype(np.float32)


def test_values_survive_with_one_scale_for_the_series(tmp_path, pixels):
    sets = exported(tmp_path / "a", [image(pixels * (n + 1), z=5.0 * n) for n in range(3)])
    assert len({(data.RescaleSlope, data.RescaleIntercept) for data in sets}) == 1
    for n, data in enumerate(sets):
        values = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
        np.testing.assert_allclose(values, pixels * (n + 1), atol=3 * pixels.max() / 32767)
        black = float(data.WindowCenter) - float(data.WindowWidth) / 2
        assert black == pytest.approx(0.0, abs=1e-6)


def test_a_map_has_its_unit_and_its_negative_values(tmp_path, pixels):
    values = pixels - 0.5
    data, *_ = exported(tmp_path / "a", [image(values, {"GADGETRON_DataRole": "B0", "Unit": "Hz"})])
    np.testing.assert_allclose(
        data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept), values, atol=1e-4
    )
    (mapping,) = data.RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == data.RescaleType == "Hz"
    assert mapping.RealWorldValueSlope == pytest.approx(float(data.RescaleSlope))
    assert list(data.ImageType) == ["DERIVED", "PRIMARY", "OTHER", "B0"]


def test_labels_stay_the_numbers_that_they_are(tmp_path):
    labels = np.arange(48, dtype=np.uint16).reshape(6, 8) % 4
    meta = {"GADGETRON_DataRole": "Segmentation", "Labels": ["0 background", "1 grey", "2 white", "3 fluid"]}
    data, *_ = exported(tmp_path / "a", [image(labels, meta)])
    np.testing.assert_array_equal(data.pixel_array, labels)
    assert (float(data.RescaleSlope), float(data.RescaleIntercept)) == (1.0, 0.0)
    assert "2 white" in data.ImageComments


def test_the_header_gives_patient_study_device_and_protocol(tmp_path, pixels):
    meta = {"GADGETRON_TE": "120"}
    (data,) = exported(tmp_path / "a", [image(pixels, meta, contrast=1)], header())
    assert (str(data.PatientName), data.PatientID, data.PatientSex) == ("Müller^Ada", "P1", "F")
    assert (data.PatientBirthDate, data.StudyDate, data.StudyTime) == ("19900203", "20261122", "131415")
    assert (data.StudyID, data.AccessionNumber, data.PatientPosition) == ("7", "99", "HFS")
    assert (data.Manufacturer, data.MagneticFieldStrength, data.ImagingFrequency) == ("MAKER", 2.89, 123.25)
    assert (data.ProtocolName, data.RepetitionTime, data.EchoTime, data.FlipAngle) == ("t2_tse", 3000, 120, 150)


def test_an_echo_time_that_is_no_number_is_the_header_s(tmp_path, pixels):
    (data,) = exported(tmp_path / "a", [image(pixels, {"GADGETRON_TE": "soon"})], header())
    assert data.EchoTime == 90


def test_without_header_the_patient_is_anonymous_and_nobody_else(tmp_path, pixels):
    (one,) = exported(tmp_path / "a", [image(pixels)])
    (two,) = exported(tmp_path / "b", [image(pixels + 1)])
    assert str(one.PatientName) == str(two.PatientName) == "ANONYMOUS"
    assert one.PatientID != two.PatientID
    assert one.StudyInstanceUID != two.StudyInstanceUID


@pytest.mark.parametrize("measurement", ["", "0_0_0_0"])
def test_an_identifier_that_tells_nothing_joins_no_studies(tmp_path, pixels, measurement):
    xml = header("", measurement)
    (one,) = exported(tmp_path / "a", [image(pixels)], xml)
    (two,) = exported(tmp_path / "b", [image(pixels + 1)], xml)
    assert one.StudyInstanceUID != two.StudyInstanceUID


def test_exports_of_one_scan_belong_together(tmp_path, pixels):
    both = [image(pixels), image(pixels + 1, z=5.0)]
    one = exported(tmp_path / "a", both, header())
    again = exported(tmp_path / "b", both, header())
    other = exported(tmp_path / "c", [image(pixels + 3)], header())
    later = exported(tmp_path / "d", [image(pixels)], header(measurement="42_1_7_6"))
    assert [data.SOPInstanceUID for data in one] == [data.SOPInstanceUID for data in again]
    assert len({data.SOPInstanceUID for data in (*one, *other, *later)}) == 4
    assert len({data.SeriesInstanceUID for data in (*one, *other, *later)}) == 3
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert len({data[name].value for data in (*one, *other, *later)}) == 1
    stranger = exported(tmp_path / "e", [image(pixels)], header(SUBJECT.replace("P1", "P2")))
    assert stranger[0].StudyInstanceUID != one[0].StudyInstanceUID


def test_uids_are_version_8_uuids():
    found = uid("a", "b")
    assert found == uid("a", "b") != uid("ab")
    assert re.fullmatch(r"2\.25\.[1-9][0-9]{1,38}", found)
    number = int(found[5:])
    assert (number >> 76 & 0xF, number >> 62 & 0x3) == (8, 2)


def test_fallback_and_the_notice_stand_in_the_description_however_long_it_is(tmp_path, pixels):
    meta = {"SequenceDescription": "p" * 80 + "_varnet_FALLBACK", "ImageComments": "FALLBACK to cgsense"}
    plain = {"SequenceDescription": "p" * 80 + "_varnet"}
    for data in exported(tmp_path / "a", [image(pixels, plain), image(pixels, meta, z=5.0)]):
        assert data.SeriesDescription.startswith("FALLBACK ppp")
        assert data.SeriesDescription.endswith(" NOT FOR CLINICAL USE")
        assert len(data.SeriesDescription) == 64
    assert data.ImageComments == "NOT FOR CLINICAL USE; FALLBACK to cgsense"


def test_complex_images_are_magnitude_and_phase(tmp_path, pixels):
    values = (pixels * np.exp(2j * pixels)).astype(np.complex64)
    sets = exported(tmp_path / "a", [image(values, kind=ismrmrd.IMTYPE_COMPLEX)])
    assert [data.ImageType[2] for data in sets] == ["M", "P"]
    for data, part in zip(sets, (np.abs(values), np.angle(values)), strict=True):
        stored = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
        np.testing.assert_allclose(stored, part, atol=1e-3)


def test_echoes_and_repetitions_are_numbered(tmp_path, pixels):
    images = [image(pixels, repetition=r, contrast=c) for c in range(2) for r in range(3)]
    sets = exported(tmp_path / "a", images, header())
    assert [(data.TemporalPositionIdentifier, data.EchoNumbers, data.EchoTime) for data in sets] == [
        (repetition, echo, time) for repetition in (1, 2, 3) for echo, time in ((1, 90), (2, 120))
    ]


def test_pixels_that_are_not_finite_are_told(tmp_path, pixels):
    pixels[2, 3] = np.nan
    (data,) = exported(tmp_path / "a", [image(pixels)])
    assert data.pixel_array[2, 3] == 0
    assert "1 pixel without a finite value, stored as the lowest" in data.ImageComments


def test_planes_that_are_not_parallel_are_series_of_their_own(tmp_path, pixels):
    sets = exported(
        tmp_path / "a", [image(pixels), image(pixels, read_dir=(0, 1, 0), phase_dir=(0, 0, -1), slice_dir=(-1, 0, 0))]
    )
    assert [data.SeriesNumber for data in sets] == [1, 2]
    assert len({data.SeriesInstanceUID for data in sets}) == 2
    assert len({data.FrameOfReferenceUID for data in sets}) == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"read_dir": (0, 0, 0)}, "perpendicular unit vectors were expected"),
        ({"read_dir": (float("nan"), 0, 0)}, "perpendicular unit vectors were expected"),
        ({"field_of_view": (0, 60, 5)}, "the field of view (0, 60, 5) mm at (0, 0, 0) mm; it cannot be placed"),
        ({"position": (float("inf"), 0, 0)}, "at (inf, 0, 0) mm; it cannot be placed"),
    ],
)
def test_an_image_without_a_place_is_refused(tmp_path, pixels, change, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)):
        exported(tmp_path / "a", [image(pixels, **change)])


def test_files_of_two_exports_are_not_mixed(tmp_path, pixels):
    exported(tmp_path / "a", [image(pixels)])
    contents = read_contents(tmp_path / "a" / "images.h5")
    with pytest.raises(InputError, match="name a new folder"):
        write_dicom(contents, tmp_path / "a" / "dicom")


def test_anonymous_leaves_out_who_where_and_when(tmp_path, monkeypatch, pixels):
    monkeypatch.chdir(tmp_path)
    meta = {"measurementID": "42_P1_7_5", "patientID": "P1", "studyID": "S1", "deviceID": "42"}
    xml = header().replace(b"</systemVendor>", b"</systemVendor><institutionName>Ulm</institutionName>")
    written(tmp_path / "i.h5", [image(pixels, meta)], xml)
    assert main(["export", "i.h5", "--dicom", "d", "--anonymous"]) == 0
    (path,) = tmp_path.rglob("*.dcm")
    found = path.read_bytes()
    for word in (b"Ada", b"P1", b"1990", b"20261122", b"131415", b"S1", b"Ulm", b"42_"):
        assert word not in found
    data = pydicom.dcmread(path)
    assert (str(data.PatientName), data.ProtocolName, data.Manufacturer) == ("ANONYMOUS", "t2_tse", "MAKER")
    assert data.PatientID.startswith("ANONYMOUS-")
    assert (data.PatientBirthDate, data.StudyDate, data.PatientSex) == ("", "", "")
