"""Meta data of images: for people and archives, and as Gadgetron's own chains expect them (GenericRecon, DICOM)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import ismrmrd
from ismrmrd.meta import Meta
from ismrmrd.xsd import ismrmrdHeader

from gadgets.frame import Frame
from mrnets.mrd.encoding import Limit

__all__ = ["meta_of"]


def meta_of(
    frame: Frame,
    acquisition: ismrmrd.AcquisitionHeader,
    header: ismrmrdHeader,
    role: str,
    echo_time: float | None,
    labels: Sequence[str] = (),
) -> Meta:
    """Of one image. `role`: Image, the name of a map, or Segmentation; echo_time in s; labels: what numbers mean."""
    made = frame.made.get(role) or (frame.history[-1] if frame.history else "unknown")
    title = f"{role} {labels[1]}" if len(labels) == 2 else role  # one of several segmentations, maybe
    comments = [f"{title} by {made}", *frame.notes]
    series = [_protocol(header), *([] if role == "Image" else [title]), made, *(["FALLBACK"] if frame.fallback else [])]
    # Our images are on the grid they are meant for: encoded and recon are both that grid, so that Gadgetron's
    # FieldOfViewAdjustment, and its filters, have nothing left to do.
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
        "Skip_processing_after_recon": "true",
        "GADGETRON_DataRole": role,
        "GADGETRON_ImageComment": comments,
        "GADGETRON_ImageProcessingHistory": list(frame.history) or [made],
        "GADGETRON_SeqDescription": "_".join(filter(None, series)),
        "SequenceDescription": "_".join(filter(None, series)),
        "ImageComments": "; ".join(comments),
    }
    if echo_time is not None:
        meta["GADGETRON_TE"] = format(echo_time * 1e3, ".6g")
    if role in frame.units:
        meta["Unit"] = frame.units[role]
    if labels:
        meta["Labels"] = [f"{n} {label}" for n, label in enumerate(labels)]
    identity = None if header.measurementInformation is None else header.measurementInformation.measurementID
    if identity:
        meta["measurementID"] = identity
    return Meta(meta)


def _protocol(header: ismrmrdHeader) -> str:
    information = header.measurementInformation
    return "" if information is None else information.protocolName or ""


def _limit(limit: Limit) -> list[str]:
    return _numbers((limit.minimum, limit.centre, limit.maximum))


def _numbers(values: Iterable[Any]) -> list[str]:
    return [format(value, ".9g") for value in values]
