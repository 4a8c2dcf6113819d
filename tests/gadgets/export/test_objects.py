"""Segmentations and parametric maps: the values, the places and the series of the images that they belong to."""

import ismrmrd
import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")

from gadgets.export import dicom  # noqa: E402
from gadgets.export.contents import read_contents  # noqa: E402
from tests.gadgets.export.images import header, image, written  # noqa: E402

SEG, MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.30"
LABELS = {
    "GADGETRON_DataRole": "Segmentation",
    "Labels": ["0 background", "1 csf", "2 grey", "3 something new"],
    "SequenceDescription": "t1_Segmentation_segunet_FALLBACK",
    "ImageComments": "Segmentation by segunet; a note",
}
FIELD = {"GADGETRON_DataRole": "B0", "Unit": "Hz", "SequenceDescription": "t1_B0"}


@pytest.fixture
def highdicom():
    return pytest.importorskip("highdicom")


def exported(place, images) -> dict[str, list]:
    """Export images. Return the data sets by the UID of their class."""
    contents = read_contents(written(place / "images.h5", images, header()))
    sets = [pydicom.dcmread(path) for path in dicom.write_dicom(contents, place / "dicom")]
    return {uid: [one for one in sets if one.SOPClassUID == uid] for uid in {one.SOPClassUID for one in sets}}


def slices(values, meta, **more):
    return [image(plane, meta, z=5.0 * n, **more) for n, plane in enumerate(values)]


def test_a_segmentation_has_the_labels_at_the_places_of_the_image(tmp_path, highdicom, rng):
    labels = rng.integers(0, 4, (3, 6, 8)).astype(np.uint16)
    sets = exported(tmp_path, [*slices(labels + 7, {}), *slices(labels, LABELS, series=2)])
    (one,) = sets[SEG]
    found = highdicom.seg.segread(_saved(tmp_path, one))
    sources = [str(data.SOPInstanceUID) for data in sets["1.2.840.10008.5.1.4.1.1.4"][:3]]
    numbers = found.get_pixels_by_source_instance(sources, combine_segments=True)
    np.testing.assert_array_equal(numbers, labels)
    assert [segment.SegmentLabel for segment in one.SegmentSequence] == ["csf", "grey", "something new"]
    kinds = [segment.SegmentedPropertyTypeCodeSequence[0].CodeValue for segment in one.SegmentSequence]
    assert kinds == ["65216001", "389081007", "85756007"]
    assert one.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "segunet"
    assert one.SeriesDescription == "FALLBACK t1_Segmentation_segunet NOT FOR CLINICAL USE"


def test_a_map_keeps_its_values_its_unit_and_its_place(tmp_path, highdicom, rng):
    values = rng.normal(size=(3, 6, 8)).astype(np.float32)
    sets = exported(tmp_path, [*slices(np.abs(values), {}), *slices(values, FIELD, series=2)])
    (one,) = sets[MAP]
    mapping = one.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "Hz"
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1.0, 0.0)
    frames = one.PerFrameFunctionalGroupsSequence
    places = [round(frame.PlanePositionSequence[0].ImagePositionPatient[2] / 5) for frame in frames]
    assert sorted(places) == [0, 1, 2]
    np.testing.assert_array_equal(np.frombuffer(one.FloatPixelData, "<f4").reshape(3, 6, 8), values[places])


def test_each_repetition_has_an_object_that_refers_to_its_own_images(tmp_path, highdicom, rng):
    labels = rng.integers(0, 4, (2, 6, 8)).astype(np.uint16)
    images = [one for r in range(2) for one in slices(labels + 1, {}, repetition=r)]
    images += [one for r in range(2) for one in slices(labels, LABELS, series=2, repetition=r)]
    sets = exported(tmp_path, images)
    objects = sorted(sets[SEG], key=lambda one: one.InstanceNumber)
    assert len({one.SOPInstanceUID for one in objects}) == 2
    assert len({one.SeriesInstanceUID for one in objects}) == 1
    for repetition, one in enumerate(objects):
        (source,) = one.ReferencedSeriesSequence
        referred = {item.ReferencedSOPInstanceUID for item in source.ReferencedInstanceSequence}
        mine = [d for d in sets["1.2.840.10008.5.1.4.1.1.4"] if d.SOPInstanceUID in referred]
        assert {(data.AcquisitionNumber, data.ImageType[0]) for data in mine} == {(repetition + 1, "ORIGINAL")}


def test_labels_without_an_image_and_without_a_label_have_an_object_too(tmp_path, highdicom):
    (one,) = exported(tmp_path, slices(np.zeros((2, 6, 8), np.uint16), LABELS))[SEG]
    assert not one.pixel_array.any()


def test_a_volume_of_labels_lies_where_its_images_lie(tmp_path, highdicom, rng):
    labels = rng.integers(0, 4, (4, 6, 8)).astype(np.uint16)
    volume = ismrmrd.Image(
        head=image(labels[0], LABELS).getHead(), data=labels[None], meta=image(labels[0], LABELS).meta
    )
    sets = exported(tmp_path, [volume])
    (one,) = sets[SEG]
    own = [data.ImagePositionPatient[2] for data in sets["1.2.840.10008.5.1.4.1.1.4"]]
    found = {f.PlanePositionSequence[0].ImagePositionPatient[2] for f in one.PerFrameFunctionalGroupsSequence}
    assert found == set(own)
    assert len(own) == 4


def test_patient_and_study_are_those_of_the_images_and_two_exports_are_alike(tmp_path, highdicom, rng):
    images = slices(rng.integers(0, 4, (2, 6, 8)).astype(np.uint16), LABELS)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (one,), (again,) = (exported(tmp_path / name, images)[SEG] for name in ("a", "b"))
    assert (one.PatientID, str(one.PatientName), one.ContentDate) == ("P1", "Müller^Ada", "20261122")
    assert (one.SOPInstanceUID, one.SeriesInstanceUID) == (again.SOPInstanceUID, again.SeriesInstanceUID)
    assert one.to_json() == again.to_json()


def test_without_highdicom_there_are_mr_images_and_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(dicom, "is_there", lambda module: False)
    sets = exported(tmp_path, slices(np.ones((2, 6, 8), np.uint16), LABELS))
    assert set(sets) == {"1.2.840.10008.5.1.4.1.1.4"}
    assert "pip install 'gadgetron-networks[export]'" in caplog.text


def _saved(place, dataset):
    dataset.save_as(place / "one.dcm")
    return place / "one.dcm"
