"""Elements of DICOM that all images of a series share, from the ISMRMRD header of the scan."""

from __future__ import annotations

from contextlib import suppress
from datetime import date, datetime, time, timedelta
from typing import Any

from gadgets.export.contents import TIME_RANGE, Picture
from gadgets.export.identity import Identity, text_of_header
from gadgets.export.stacks import Stack
from mrnets import __version__
from mrnets.mrd.encoding import vendor_of
from mrnets.values import parsed

__all__ = [
    "LONG_STRING",
    "UCUM",
    "acquired",
    "code_string",
    "decimal",
    "device",
    "first_series_number",
    "line",
    "patient_and_study",
    "protocol",
    "single",
]

LONG_STRING = 64
"""Characters of the value representation LO."""
UCUM = {"1/s": "/s", "1/m": "/m", "a.u.": "1", "": "1"}
"""Units whose code in UCUM is another one."""
TICK = timedelta(milliseconds=2.5)
"""Siemens counts the time of day in these steps. A Skyra's study of 22:34:35 began with the tick of 22:34:35.69."""
LONGEST_SCAN = timedelta(hours=12)


def patient_and_study(header: Any, identity: Identity) -> dict[str, Any]:
    """Return the elements of patient and study, each cut to the length of its value representation."""

    def text(*names: str, most: int = LONG_STRING) -> str:
        return line(text_of_header(header, *names))[:most]

    sex = text("subjectInformation", "patientGender")
    day, hour = _date(text("studyInformation", "studyDate")), _time(text("studyInformation", "studyTime"))
    first, begin = (text("measurementInformation", f"series{what}") for what in ("Date", "Time"))
    weight = getattr(getattr(header, "subjectInformation", None), "patientWeight_kg", None)
    return {
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientName": line(identity.name)[:LONG_STRING],
        "PatientID": line(identity.patient)[:LONG_STRING],
        "PatientBirthDate": _date(text("subjectInformation", "patientBirthdate")),
        "PatientSex": sex if sex in ("M", "F", "O") else "",
        **({"PatientWeight": single(weight)} if weight else {}),
        "StudyInstanceUID": identity.study,
        "StudyDate": day,
        "StudyTime": hour,
        **({"SeriesDate": _date(first)} if _date(first) else {}),
        **({"SeriesTime": _time(begin)} if _time(begin) else {}),
        "ContentDate": day,
        "ContentTime": hour,
        "StudyID": text("studyInformation", "studyID", most=16),
        "AccessionNumber": text("studyInformation", "accessionNumber", most=16),
        "ReferringPhysicianName": text("studyInformation", "referringPhysicianName"),
        "StudyDescription": text("studyInformation", "studyDescription"),
        "BodyPartExamined": code_string(text("studyInformation", "bodyPartExamined")),
        "PatientPosition": text("measurementInformation", "patientPosition", most=16),
        "Laterality": "",
        "PositionReferenceIndicator": "",
    }


def _date(text: str) -> str:
    try:
        return date.fromisoformat(text[:10]).strftime("%Y%m%d")
    except ValueError:
        return ""


def _time(text: str) -> str:
    try:
        return time.fromisoformat(text[:8]).strftime("%H%M%S")
    except ValueError:
        return ""


def _began(header: Any) -> datetime | None:
    """Return when the header says that the series began, or else the study."""
    for part, name in (("measurementInformation", "series"), ("studyInformation", "study")):
        day, hour = (text_of_header(header, part, f"{name}{what}") for what in ("Date", "Time"))
        with suppress(ValueError):
            return datetime.combine(date.fromisoformat(day[:10]), time.fromisoformat(hour[:8]))
    return None


def acquired(picture: Picture, header: Any) -> dict[str, Any]:
    """Return the elements that say when the first line of an image was measured; empty where that is not known.

    The clock of time stamps is known for Siemens alone. It is believed where it agrees with the header: no earlier than
    the series or study began, and less than 12 hours later. A scan may go on past midnight."""
    began = _began(header)
    if began is None or vendor_of(header) != "siemens":
        return {}
    with suppress(ValueError):
        ticks = parsed(picture.first(TIME_RANGE), int)
        midnight = datetime.combine(began.date(), time())
        for day in (midnight, midnight + timedelta(days=1)):
            stamp = day + ticks * TICK
            if 0 < ticks < timedelta(days=1) / TICK and timedelta() <= stamp - began < LONGEST_SCAN:
                return {"AcquisitionDate": f"{stamp:%Y%m%d}", "AcquisitionTime": f"{stamp:%H%M%S.%f}"}
    return {}


def device(header: Any) -> dict[str, Any]:
    """Return the elements of the scanner. Its field is in T, and its frequency in MHz."""

    def text(name: str, most: int = LONG_STRING) -> str:
        return line(text_of_header(header, "acquisitionSystemInformation", name))[:most]

    field = getattr(getattr(header, "acquisitionSystemInformation", None), "systemFieldStrength_T", None)
    frequency = getattr(getattr(header, "experimentalConditions", None), "H1resonanceFrequency_Hz", None)
    return {
        "Modality": "MR",
        "Manufacturer": text("systemVendor"),
        "ManufacturerModelName": text("systemModel"),
        "InstitutionName": text("institutionName"),
        "StationName": text("stationName", 16),
        "DeviceSerialNumber": text("deviceID"),
        "SoftwareVersions": f"gadgetron-networks {__version__}",
        **({"MagneticFieldStrength": single(field)} if field else {}),
        **({"ImagingFrequency": single(frequency / 1e6)} if frequency else {}),
        "ImagedNucleus": "1H",
    }


def protocol(header: Any, stack: Stack) -> dict[str, Any]:
    """Return the elements of the measurement: times in ms and the flip angle in degrees, the first of several each."""
    sequence = getattr(header, "sequenceParameters", None)
    values = {"RepetitionTime": "TR", "InversionTime": "TI", "FlipAngle": "flipAngle_deg"}
    given = {name: list(getattr(sequence, field, None) or []) for name, field in values.items()}
    return {
        "ProtocolName": line(text_of_header(header, "measurementInformation", "protocolName"))[:LONG_STRING],
        "ScanningSequence": "RM",
        "SequenceVariant": "NONE",
        "ScanOptions": "",
        "MRAcquisitionType": "3D" if stack.is_volume else "2D",
        "RepetitionTime": None,
        "EchoTrainLength": None,
        **{name: single(numbers[0]) for name, numbers in given.items() if numbers},
    }


def first_series_number(header: Any) -> int:
    """Return the series number of the header; 0 where it gives none, or one that DICOM cannot hold."""
    number = getattr(getattr(header, "measurementInformation", None), "initialSeriesNumber", None) or 0
    return int(number) if 0 <= int(number) < 10**7 else 0


def line(text: str) -> str:
    """Return text for one value of DICOM: a backslash would make two of it."""
    return "".join(c if c.isprintable() and c != "\\" else " " for c in text)


def code_string(text: str) -> str:
    """Return text as a value of representation CS: capitals, digits, space and underscore, 16 characters at most."""
    return "".join(c if c.isascii() and (c.isalnum() or c in " _") else "_" for c in text.upper())[:16]


def decimal(value: float) -> Any:
    """Return a value of representation DS, which has 16 characters at most. Zero has no sign."""
    from pydicom.valuerep import DS

    return DS(float(value) + 0.0, auto_format=True)


def single(value: float) -> Any:
    """Return a number of the header, which holds single precision: 2.89, not 2.89000010490417."""
    return decimal(float(format(value, ".7g")))
