"""Who and which: the identity of a scan in DICOM, from its ISMRMRD header and the meta data of its images.

UIDs are made from the scan's own identifiers, so that two exports of one scan belong to one study and one frame of
reference. A scan without identifiers gets them from the content of its images: it is never mixed up with another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gadgets.export.contents import Contents

__all__ = ["Identity", "identity_of", "text_of_header", "uid"]

MAX_UID = 64


@dataclass(frozen=True)
class Identity:
    """The identifiers that the images of a scan share."""

    study: str
    frame_of_reference: str
    patient: str
    """Patient ID; of an anonymous patient, one that no other study has."""
    name: str
    measurement: str


def uid(*sources: str) -> str:
    """Return the UID that belongs to `sources`: 2.25 and a number of 122 bits.

    Source: DICOM PS3.5, B.2; the number is a UUID of version 8 (RFC 9562) from SHA-256."""
    number = int.from_bytes(hashlib.sha256("\0".join(sources).encode()).digest()[:16], "big")
    number = number & ~(0xF << 76) | 8 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    return f"2.25.{number}"


def identity_of(contents: Contents) -> Identity:
    """Return the identity of a scan."""
    header, picture = contents.header, contents.series[0].pictures[0]
    measurement = text_of_header(header, "measurementInformation", "measurementID") or picture.first("measurementID")
    patient = text_of_header(header, "subjectInformation", "patientID") or picture.first("patientID")
    measurement = measurement if measurement.strip("0_") else ""  # anonymised, like that of many other scans
    session = measurement.rpartition("_")[0] or measurement  # device_patient_study_measurement, without the last
    known = [patient, picture.first("studyID"), picture.first("deviceID"), session]
    names = (("studyInformation", "studyDate"), ("studyInformation", "studyTime"))
    known += [text_of_header(header, *name) for name in names]
    given = _valid(text_of_header(header, "studyInformation", "studyInstanceUID"))
    study = given or uid("study", *known, "" if measurement else contents.digest)
    frame = _valid(text_of_header(header, "measurementInformation", "frameOfReferenceUID"))
    return Identity(
        study=study,
        frame_of_reference=frame or uid("frame of reference", study),
        patient=patient or f"ANONYMOUS-{uid(study)[-8:]}",
        name=text_of_header(header, "subjectInformation", "patientName") or "ANONYMOUS",
        measurement=measurement,
    )


def text_of_header(header: Any, *names: str) -> str:
    """Return the text of an element of a header by its path; empty where there is none."""
    for name in names:
        header = getattr(header, name, None)
    return str(getattr(header, "value", header) or "")


def _valid(text: str) -> str:
    """Return a UID that DICOM takes, or nothing."""
    parts = text.split(".")
    return text if 0 < len(text) <= MAX_UID and all(_is_number(parts)) else ""


def _is_number(parts: Iterable[str]) -> Iterable[bool]:
    return (part.isascii() and part.isdigit() and (part == "0" or part[0] != "0") for part in parts)
