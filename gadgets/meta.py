"""Meta data of images: for people and archives, and as Gadgetron's own chains expect them (GenericRecon, DICOM)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import ismrmrd
import numpy as np
from ismrmrd.meta import Meta
from ismrmrd.xsd import ismrmrdHeader
from numpy.typing import NDArray

from gadgets.frame import Frame
from gadgets.geometry import AXES_REVERSED, axes_reversed
from gadgets.speaker import notes
from gadgets.trust import numbers
from mrnets.errors import printable
from mrnets.mrd.encoding import Limit, vendor_of
from mrnets.mrd.limits import announced

__all__ = ["COMMENTS", "COUNTED", "meta_of", "with_comment"]

LONGEST = 256
"""Characters of a header's text that go into the meta data of each image."""
COMMENTS = "GADGETRON_ImageComment"
"""The sentences of an image's comment, one by one. `ImageComments` has them together, and which image it is."""
COUNTED = " (counters from 0: "
"""Stands in `ImageComments` before the counters of an image, and a bracket behind them."""


def meta_of(
    frame: Frame,
    acquisition: ismrmrd.AcquisitionHeader,
    times: NDArray[np.uint32],
    header: ismrmrdHeader,
    role: str,
    echo_time: float | None,
    labels: Sequence[str] = (),
) -> Meta:
    """Return the meta data of one image.

    acquisition: the line nearest to the k-space centre. times: as in `Frame`, of this image.
    role: Image, the name of a map, or Segmentation. echo_time: s. labels: the meaning of each number of a segmentation.
    """
    made = frame.made.get(role) or (frame.history[-1] if frame.history else "unknown")
    title = f"{role} {labels[1]}" if len(labels) == 2 else role  # one of several segmentations, maybe
    comments = [f"{title} by {made}", *dict.fromkeys(map(printable, (*notes(), *frame.notes)))]
    protocol = _text(header.measurementInformation, "protocolName")
    series = [protocol, *([] if role == "Image" else [title]), made, *(["FALLBACK"] if frame.fallback else [])]
    # Our images are on their final grid, so encoded and recon both name it. Gadgetron's FieldOfViewAdjustment and its
    # filters then change nothing.
    meta = {
        "encoding": str(frame.encoding),
        "encoding_FOV": _numbers(frame.recon.fov),
        "recon_FOV": _numbers(frame.recon.fov),
        "encoded_matrix": _numbers(frame.recon.matrix),
        "recon_matrix": _numbers(frame.recon.matrix),
        **{
            f"sampling_limits_{name}": _limit(limit)
            for name, limit in zip(("RO", "E1", "E2"), frame.limits, strict=True)
        },
        "PatientPosition": _numbers(acquisition.position),
        "read_dir": _numbers(acquisition.read_dir),
        "phase_dir": _numbers(acquisition.phase_dir),
        "slice_dir": _numbers(acquisition.slice_dir),
        "patient_table_position": _numbers(acquisition.patient_table_position),
        "acquisition_time_stamp": str(acquisition.acquisition_time_stamp),
        "physiology_time_stamp": _numbers(acquisition.physiology_time_stamp),
        "acquisition_time_range": _numbers(times[0]),
        "physiology_time_range": _numbers(times[1:].ravel()),
        "Skip_processing_after_recon": "true",
        "GADGETRON_DataRole": role,
        "GADGETRON_ScaleRatio": "1",
        COMMENTS: comments,
        "GADGETRON_ImageProcessingHistory": list(frame.history) or [made],
        "GADGETRON_SeqDescription": "_".join(filter(None, series)),
        "SequenceDescription": "_".join(filter(None, series)),
        "ImageComments": "; ".join([f"{title}{_counters(frame, acquisition, header, role)} by {made}", *comments[1:]]),
    }
    meta |= _axes(frame, header)
    if echo_time is not None:
        meta["GADGETRON_TE"] = format(echo_time * 1e3, ".6g")
    if role in frame.units:
        meta["Unit"] = frame.units[role]
    if labels:
        meta["Labels"] = [f"{n} {label}" for n, label in enumerate(labels)]
    return Meta({**meta, **numbers(frame.trust), **_users(acquisition), **_identity(header)})


def _counters(frame: Frame, acquisition: ismrmrd.AcquisitionHeader, header: ismrmrdHeader, role: str) -> str:
    """Return which of several images of a slice this is, for its comment; empty where there is one alone.

    What a network makes of all echoes is of no contrast."""
    limits = header.encoding[frame.encoding].encodingLimits
    names = ("contrast", "set", "phase", "repetition")
    values = {name: int(getattr(acquisition.idx, name)) for name in names}
    several = [name for name, value in values.items() if value or len(announced(limits, name)) > 1]
    if frame.headers.shape[1] > 1:
        several = [*(["contrast"] if role == "Image" else []), *(name for name in several if name != "contrast")]
    return f"{COUNTED}{', '.join(f'{name} {values[name]}' for name in several)})" if several else ""


def _axes(frame: Frame, header: ismrmrdHeader) -> dict[str, str]:
    """Return the meta data that say whether pixels run against the directions of their lines. Siemens' raw data do.

    Source: the scanner's own DICOM images of scans whose raw data are public, and MRpro's pull request 833.
    Results from images that do not say it do not say it either."""
    if frame.sent and not any(AXES_REVERSED in one.meta for one in frame.sent):
        return {}
    backwards = any(axes_reversed(one.meta) for one in frame.sent) if frame.sent else vendor_of(header) == "siemens"
    return {AXES_REVERSED: "true" if backwards else "false"}


def with_comment(meta: Meta, sentence: str) -> Meta:
    """Return meta data with one more sentence in the comment of their image."""
    comments = meta.get(COMMENTS, [])
    comments = [*([comments] if isinstance(comments, str) else comments), sentence]
    return Meta({**meta, COMMENTS: comments, "ImageComments": f"{meta['ImageComments']}; {sentence}"})


def _users(acquisition: ismrmrd.AcquisitionHeader) -> dict[str, str]:
    """Return the user fields of the central line."""
    integers = {f"user_int_{n}": str(value) for n, value in enumerate(acquisition.user_int)}
    return integers | {f"user_float_{n}": format(value, ".9g") for n, value in enumerate(acquisition.user_float)}


def _identity(header: ismrmrdHeader) -> dict[str, str]:
    """Return what the header says of patient, study, device and measurement, under Gadgetron's names.

    Gadgetron reads them from a measurement ID of the form device_patient_study_measurement; elements go first."""
    measurement, system = header.measurementInformation, header.acquisitionSystemInformation
    identifier = _text(measurement, "measurementID")
    device, patient, study, number = identifier.split("_", 3) if identifier.count("_") >= 3 else ("", "", "", "")
    position = getattr(measurement, "patientPosition", None)
    found = {
        "measurementID": identifier,
        "protocolName": _text(measurement, "protocolName"),
        "patientID": _text(header.subjectInformation, "patientID") or patient,
        "studyID": _text(header.studyInformation, "studyID") or study,
        "deviceID": _text(system, "deviceID") or device,
        "measurementNumber": number,
        "patient_position": "" if position is None else position.value,
    }
    return {name: text for name, text in found.items() if text}


def _text(record: Any, name: str) -> str:
    return (getattr(record, name, None) or "")[:LONGEST]


def _limit(limit: Limit) -> list[str]:
    return _numbers((limit.minimum, limit.centre, limit.maximum))


def _numbers(values: Iterable[Any]) -> list[str]:
    return [format(value, ".9g") for value in values]
