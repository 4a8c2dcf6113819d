"""MR images of DICOM: a data set for each slice, echo and repetition.

Axes: pixels of a stack (frame, z, y, x). Rows of a DICOM image run along x, columns along y.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ismrmrd
import numpy as np
from numpy.typing import NDArray

from gadgets.export.contents import Contents, Picture
from gadgets.export.elements import (
    LONG_STRING,
    UCUM,
    acquired,
    code_string,
    decimal,
    device,
    first_series_number,
    line,
    patient_and_study,
    protocol,
    single,
)
from gadgets.export.greys import GREYS, Greys
from gadgets.export.identity import Identity, uid
from gadgets.export.stacks import Stack
from mrnets.errors import counted
from mrnets.values import parsed

__all__ = ["NOT_CLINICAL", "MrSeries", "Part", "instances", "moment", "parts_of"]

NOT_CLINICAL = "NOT FOR CLINICAL USE"
MAX_COMMENT = 10240
_MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
_PARTS = {
    ismrmrd.IMTYPE_MAGNITUDE: "M",
    ismrmrd.IMTYPE_PHASE: "P",
    ismrmrd.IMTYPE_REAL: "R",
    ismrmrd.IMTYPE_IMAG: "I",
}


@dataclass(frozen=True)
class Part:
    """Real pixels of a stack (frame, z, y, x), and which part of complex ones they are."""

    stack: Stack
    pixels: NDArray[Any]
    kind: str
    unit: str
    """Empty: arbitrary, or unknown."""
    suffix: str = ""


def parts_of(stack: Stack) -> Iterator[Part]:
    """Yield the images of a stack, or the magnitudes and the phases of complex ones."""
    pixels = stack.pixels
    if pixels.dtype.kind == "c":
        yield Part(stack, np.abs(pixels), "M", stack.series.unit, "_magnitude")
        yield Part(stack, np.angle(pixels), "P", "rad", "_phase")
    else:
        kind = _PARTS.get(int(stack.frames[0][0].head.image_type), "M")
        yield Part(stack, pixels, kind, stack.series.unit)


@dataclass(frozen=True)
class MrSeries:
    """Data that the files of a series share."""

    part: Part
    greys: Greys
    header: Any
    shared: Any
    """A pydicom data set."""
    uid: str

    @classmethod
    def of(cls, part: Part, contents: Contents, identity: Identity, number: int) -> MrSeries:
        """Return the series of a part. number: its place in the export, from 1."""
        from pydicom.dataset import Dataset

        stack, header = part.stack, contents.header
        series = uid("series", identity.study, identity.measurement, contents.digest, stack.name, part.suffix)
        shared = Dataset()
        elements = {
            **patient_and_study(header, identity),
            **device(header),
            **protocol(header, stack),
            "SeriesInstanceUID": series,
            "SeriesNumber": 100 * first_series_number(header) + number,
            "SeriesDescription": _described(stack, part.suffix),
            "FrameOfReferenceUID": identity.frame_of_reference,
            "ImageType": _image_type(part),
        }
        for name, value in elements.items():
            setattr(shared, name, value)
        return cls(part, Greys.of(part.pixels), header, shared, series)


def _described(stack: Stack, suffix: str) -> str:
    """Return the series description: FALLBACK first and the warning last, whatever is cut between them."""
    name, end = stack.series.description + suffix, f" {NOT_CLINICAL}"
    if "FALLBACK" in name:
        name = "FALLBACK " + name.replace("_FALLBACK", "").replace("FALLBACK", "")
    return f"{line(name)[: LONG_STRING - len(end)]}{end}"


def _image_type(part: Part) -> list[str]:
    role = part.stack.series.role
    return ["ORIGINAL", "PRIMARY", part.kind] if role == "Image" else ["DERIVED", "PRIMARY", "OTHER", code_string(role)]


def instances(series: MrSeries) -> Iterator[Any]:
    """Yield the MR images of a series as pydicom data sets: slices from first to last, then echoes and repetitions."""
    stack, pixels = series.part.stack, series.part.pixels
    contrasts = sorted({int(frame[0].head.contrast) for frame in stack.frames})
    times = sorted({moment(frame[0]) for frame in stack.frames})
    for n, frame in enumerate(stack.frames):
        for z in range(pixels.shape[1]):
            picture = frame[min(z, len(frame) - 1)]
            instance = n * pixels.shape[1] + z + 1
            own = {
                "SOPClassUID": _MR_IMAGE,
                "SOPInstanceUID": uid("image", series.uid, str(instance)),
                "InstanceNumber": instance,
                "AcquisitionNumber": times.index(moment(frame[0])) + 1,
                "TemporalPositionIdentifier": times.index(moment(frame[0])) + 1,
                "NumberOfTemporalPositions": len(times),
                "EchoNumbers": contrasts.index(int(picture.head.contrast)) + 1,
                **acquired(picture, series.header),
                "EchoTime": _echo_time(picture, series.header),
                "ImageComments": _comment(picture, pixels[n, z])[:MAX_COMMENT],
                **_plane(stack, z),
                **_pixels(pixels[n, z], series.greys, series.part),
            }
            yield _instance(series.shared, own)


def moment(picture: Picture) -> tuple[int, ...]:
    """Return the counters that distinguish images of one echo and slice."""
    return tuple(int(getattr(picture.head, name)) for name in ("average", "set", "phase", "repetition"))


def _echo_time(picture: Picture, header: Any) -> Any:
    """Return the echo time, ms; None where it is not known, as for a map of all echoes."""
    told = picture.first("GADGETRON_TE")
    with suppress(ValueError):
        return single(parsed(told, float))
    times = list(getattr(getattr(header, "sequenceParameters", None), "TE", None) or [])
    number = int(picture.head.contrast)
    is_image = picture.first("GADGETRON_DataRole", "Image") == "Image"
    return single(times[number]) if is_image and number < len(times) else None


def _comment(picture: Picture, pixels: NDArray[Any]) -> str:
    lost = int(np.count_nonzero(~np.isfinite(pixels)))
    parts = [NOT_CLINICAL, picture.first("ImageComments"), ", ".join(picture.meta.get("Labels", []))]
    parts.append(f"{counted(lost, 'pixel')} without a finite value, stored as the lowest" if lost else "")
    return "; ".join(filter(None, parts))


def _plane(stack: Stack, z: int) -> dict[str, Any]:
    """Return where the plane `z` of a stack lies: its first pixel's centre, directions and spacing."""
    columns = stack.affine[:3, :3]
    spacing = np.linalg.norm(columns, axis=0)
    x, y = columns[:, 0] / spacing[0], columns[:, 1] / spacing[1]
    corner = stack.affine[:3, 3] + z * columns[:, 2]
    return {
        "ImagePositionPatient": [decimal(value) for value in corner],
        "ImageOrientationPatient": [decimal(value) for value in (*x, *y)],
        "PixelSpacing": [decimal(spacing[1]), decimal(spacing[0])],
        "SliceThickness": decimal(stack.thickness()),
        "SpacingBetweenSlices": decimal(spacing[2]),
        "SliceLocation": decimal(float(np.cross(x, y) @ corner)),
    }


def _pixels(pixels: NDArray[Any], greys: Greys, part: Part) -> dict[str, Any]:
    black, white = greys.window
    return {
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "RescaleSlope": decimal(greys.slope),
        "RescaleIntercept": decimal(greys.intercept),
        "RescaleType": line(part.unit)[:LONG_STRING] or "US",
        "WindowCenter": decimal((black + white) / 2),
        "WindowWidth": decimal(white - black),
        "VOILUTFunction": "LINEAR_EXACT",  # the width of a map's window may be less than 1
        "PixelData": greys.stored(pixels).astype("<u2").tobytes(),
        **({"RealWorldValueMappingSequence": [_mapping(greys, part)]} if part.unit else {}),
    }


def _mapping(greys: Greys, part: Part) -> Any:
    """Return what a stored value of a map or of phase means. Source: DICOM PS3.3, C.7.6.16.2.11."""
    unit, role = part.unit, "Phase" if part.kind == "P" else part.stack.series.role
    code = _dataset(
        {
            "CodeValue": UCUM.get(unit, unit)[:16],
            "CodingSchemeDesignator": "UCUM",
            "CodeMeaning": line(unit)[:LONG_STRING],
        }
    )
    return _dataset(
        {
            "RealWorldValueFirstValueMapped": 0,
            "RealWorldValueLastValueMapped": GREYS,
            "RealWorldValueIntercept": greys.intercept,
            "RealWorldValueSlope": greys.slope,
            "LUTExplanation": line(role)[:LONG_STRING],
            "LUTLabel": line(role)[:16],
            "MeasurementUnitsCodeSequence": [code],
        }
    )


def _dataset(elements: Mapping[str, Any]) -> Any:
    from pydicom.dataset import Dataset

    made = Dataset()
    for name, value in elements.items():
        setattr(made, name, value)
    return made


def _instance(shared: Any, own: Mapping[str, Any]) -> Any:
    """Return an MR image with the elements that a series shares and those that the image has of its own."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    made = _dataset(own)
    made.update(shared)
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made
