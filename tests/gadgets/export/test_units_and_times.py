"""Phase comes back in radians, whatever stores it; dates and times of DICOM are those of the header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ismrmrd
import numpy as np
import pytest

from gadgets.images import images
from tests.gadgets.estimates import NX, NY, estimated, plain, sorted_frames
from tests.gadgets.export.images import header, image, written

pydicom = pytest.importorskip("pydicom")
nibabel = pytest.importorskip("nibabel")

from gadgets.export.cfl import write_cfl  # noqa: E402
from gadgets.export.contents import anonymous, read_contents  # noqa: E402
from gadgets.export.dicom import write_dicom  # noqa: E402
from gadgets.export.nifti import write_nifti  # noqa: E402

ANGLES = np.linspace(-3.14, 3.14, NX * NY, dtype=np.float32).reshape(NY, NX)
STEP = 2 * np.pi / 4095
"""rad, of pixels of 16 bits."""


def radians(data: Any) -> Any:
    """The stored numbers of a data set by its rescaling, which both of its forms must give alike."""
    (mapping,) = data.RealWorldValueMappingSequence
    units = data.RescaleType, mapping.MeasurementUnitsCodeSequence[0].CodeValue, mapping.LUTLabel
    assert units == ("rad", "rad", "Phase")
    found = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
    again = data.pixel_array * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept
    np.testing.assert_allclose(found, again, atol=1e-6)
    return found


@pytest.mark.parametrize(("form", "error"), [("float", 1e-4), ("short", STEP / 2 + 2e-4)])
def test_phase_comes_back_in_radians(tmp_path: Path, form: Any, error: float) -> None:
    (frame,) = sorted_frames(np.random.default_rng(1), plain())
    frame = estimated(frame, image=np.exp(1j * ANGLES)[None, None].astype(np.complex64))
    (made,) = images([frame], plain(), output="phase", format=form)
    if form == "short":
        stored = made.data[0, 0].astype(np.float64)
        ratio, offset = (float(made.meta[f"GADGETRON_Scale{name}"]) for name in ("Ratio", "Offset"))
        np.testing.assert_allclose((stored - offset) / ratio, ANGLES, atol=error)
    contents = read_contents(written(tmp_path / "i.h5", [made]))
    (path,) = write_dicom(contents, tmp_path / "dicom")
    np.testing.assert_allclose(radians(pydicom.dcmread(path)), ANGLES, atol=error)
    (path,) = write_nifti(contents, tmp_path / "x.nii")
    values = np.asarray(nibabel.load(path).dataobj)[:, :, 0].T
    np.testing.assert_allclose(values, ANGLES, atol=error)
    assert json.loads(path.with_suffix(".json").read_text())["Units"] == "rad"
    (name,) = write_cfl(contents, tmp_path / "x")
    values = np.fromfile(name.with_suffix(".cfl"), np.complex64).reshape(NY, NX)
    np.testing.assert_allclose(values, ANGLES, atol=error)


def test_the_phase_of_complex_images_is_in_radians_and_their_magnitude_has_no_unit(tmp_path: Path) -> None:
    one = image(np.exp(1j * ANGLES).astype(np.complex64), kind=ismrmrd.IMTYPE_COMPLEX)
    paths = write_dicom(read_contents(written(tmp_path / "i.h5", [one])), tmp_path / "dicom")
    magnitude, phase = map(pydicom.dcmread, paths)
    np.testing.assert_allclose(radians(phase), ANGLES, atol=1e-4)
    assert magnitude.RescaleType == "US"
    assert "RealWorldValueMappingSequence" not in magnitude


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"Unit": "rad", "GADGETRON_ScaleRatio": "10"},
        {"Unit": "rad", "GADGETRON_ScaleRatio": "0", "GADGETRON_ScaleOffset": "1"},
        {"Unit": "rad", "GADGETRON_ScaleRatio": "10", "GADGETRON_ScaleOffset": "no"},
        {"GADGETRON_ScaleRatio": "10", "GADGETRON_ScaleOffset": "4096"},
    ],
)
def test_integers_that_do_not_say_what_they_mean_stay(tmp_path: Path, meta: dict[str, str]) -> None:
    stored = np.arange(NX * NY, dtype=np.uint16).reshape(NY, NX)
    one = image(stored, meta, kind=ismrmrd.IMTYPE_PHASE)
    (path,) = write_dicom(read_contents(written(tmp_path / "i.h5", [one])), tmp_path / "dicom")
    np.testing.assert_array_equal(pydicom.dcmread(path).pixel_array, stored)


SERIES = "<seriesDate>2026-11-23</seriesDate><seriesTime>23:59:00</seriesTime>"
TICKS_A_MINUTE = 24_000


def dated(tmp_path: Path, ticks: str | None, vendor: str = "SIEMENS", series: str = SERIES, who: Any = None) -> Any:
    """The data set of an image whose first line has the time stamp `ticks`."""
    xml = header().replace(b"<systemVendor>MAKER", f"<systemVendor>{vendor}".encode())
    xml = xml.replace(b"<patientPosition>", f"{series}<patientPosition>".encode())
    meta = {} if ticks is None else {"acquisition_time_range": [ticks, "34559999"], "acquisition_time_stamp": ticks}
    contents = read_contents(written(tmp_path / "i.h5", [image(np.ones((6, 8), np.float32), meta)], xml))
    (path,) = write_dicom(who(contents) if who else contents, tmp_path / "dicom")
    return pydicom.dcmread(path)


def test_the_series_has_the_date_and_time_of_the_header(tmp_path: Path) -> None:
    data = dated(tmp_path, None, "MAKER")
    assert (data.SeriesDate, data.SeriesTime) == ("20261123", "235900")
    assert (data.StudyDate, data.StudyTime) == ("20261122", "131415")
    assert "AcquisitionTime" not in data


def test_nothing_is_made_up_where_the_header_has_none(tmp_path: Path) -> None:
    data = dated(tmp_path, None, series="")
    assert not {"SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime"} & set(data.dir())


@pytest.mark.parametrize(
    ("minute", "series", "expected"),
    [
        (24 * 60 - 0.5, SERIES, ("20261123", "235930.000000")),
        (0.5, SERIES, ("20261124", "000030.000000")),  # after midnight
        (13 * 60 + 15, "", ("20261122", "131500.000000")),  # of the study
    ],
)
def test_siemens_time_stamps_are_the_time_of_day(
    tmp_path: Path, minute: float, series: str, expected: tuple[str, str]
) -> None:
    data = dated(tmp_path, str(round(minute * TICKS_A_MINUTE)), series=series)
    assert (data.AcquisitionDate, data.AcquisitionTime) == expected


@pytest.mark.parametrize(
    ("ticks", "vendor"),
    [
        (str(round((24 * 60 - 0.5) * TICKS_A_MINUTE)), "GE"),  # another clock
        (str(23 * 60 * TICKS_A_MINUTE), "SIEMENS"),  # before the series began
        ("0", "SIEMENS"),
        ("34560000", "SIEMENS"),  # no time of day
        ("1e7", "SIEMENS"),
    ],
)
def test_time_stamps_of_another_meaning_are_left_out(tmp_path: Path, ticks: str, vendor: str) -> None:
    data = dated(tmp_path, ticks, vendor)
    assert not {"AcquisitionDate", "AcquisitionTime"} & set(data.dir())


def test_anonymous_files_have_no_day_and_no_hour(tmp_path: Path) -> None:
    data = dated(tmp_path, str(round((24 * 60 - 0.5) * TICKS_A_MINUTE)), who=anonymous)
    told = [element for element in data if element.VR in ("DA", "TM", "DT") and element.value]
    assert told == []
