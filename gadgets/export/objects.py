"""DICOM objects for labels and maps, beside their MR images: segmentations and parametric maps, by highdicom.

Axes: planes of an object (z, y, x). They lie where the MR images lie that the object refers to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gadgets.export.contents import Picture, Series
from gadgets.export.elements import LONG_STRING, UCUM, line
from gadgets.export.identity import uid
from mrnets import __version__

__all__ = ["DicomObject", "parametric_map", "segmentation"]

_MAKER = "gadgetron-networks"
_TISSUE = ("85756007", "SCT", "Tissue")
_ABNORMAL = ("49755003", "SCT", "Morphologically Abnormal Structure")
_KNOWN = {
    "grey": (_TISSUE, ("389081007", "SCT", "Gray Matter")),
    "white": (_TISSUE, ("389080008", "SCT", "White Matter")),
    "csf": (("91720002", "SCT", "Body Substance"), ("65216001", "SCT", "Cerebrospinal Fluid")),
    "cartilage": (_TISSUE, ("309312004", "SCT", "Cartilage")),
    "meniscus": (("91723000", "SCT", "Anatomical Structure"), ("74135004", "SCT", "Meniscus")),
    "lesion": (_ABNORMAL, ("52988006", "SCT", "Lesion")),
    "necrotic": (_ABNORMAL, ("6574001", "SCT", "Necrosis")),
    "oedema": (_ABNORMAL, ("79654002", "SCT", "Edema")),
    "tumour": (_ABNORMAL, ("108369006", "SCT", "Neoplasm")),
}
"""Category and type of a segment by a word of its label. Source: DICOM PS3.16, CIDs 7150 and 7151, and SNOMED CT."""


@dataclass(frozen=True)
class DicomObject:
    """One frame of labels or of a map as an object, and what it needs beside the pixels."""

    pixels: Any
    """(z, y, x), in the order of `sources`; of labels also a highdicom.Volume."""
    kind: Series
    """The series that the pixels are of, for their unit or labels."""
    picture: Picture
    """An image of that frame."""
    frame: int
    sources: Sequence[Any]
    """The MR images (z,) that it refers to, as pydicom data sets."""
    series: str
    """The UID of the series of the MR images of the same pixels."""
    number: int
    """The number of the object's series."""
    description: str

    def facts(self) -> dict[str, Any]:
        """Return the arguments that highdicom takes for both kinds of objects."""
        own = uid("object series", self.series)
        maker = str(self.sources[0].get("Manufacturer", "") or _MAKER)
        return {
            "source_images": self.sources,
            "series_instance_uid": own,
            "series_number": self.number,
            "sop_instance_uid": uid("object", own, str(self.frame)),
            "instance_number": self.frame + 1,
            "manufacturer": maker,
            "manufacturer_model_name": _MAKER,
            "software_versions": __version__,
            "device_serial_number": str(self.sources[0].get("DeviceSerialNumber", "") or "unknown"),
            "series_description": self.description,
            "content_description": self.description,
        }


def segmentation(made: DicomObject) -> Any:
    """Return labels (z, y, x) as a segmentation: a binary segment for each label but the first, the background."""
    import highdicom

    labels = made.kind.labels
    pixels = made.pixels if isinstance(made.pixels, np.ndarray) else made.pixels.array
    planes = np.where(pixels < len(labels), pixels, 0).astype(np.uint16)
    author = made.picture.first("ImageComments").partition(";")[0].rpartition(" by ")[2]
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=line(author)[:LONG_STRING] or _MAKER, family=_code("123110", "DCM", "Artificial Intelligence"),
        version=__version__,
    )  # fmt: skip
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=n,
            segment_label=line(label)[:LONG_STRING] or f"label {n}",
            segmented_property_category=category,
            segmented_property_type=kind,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
        )
        for n, label in enumerate(labels[1:], start=1)
        for category, kind in [_meaning(label)]
    ]
    found = highdicom.seg.Segmentation(
        pixel_array=planes if pixels is made.pixels else made.pixels.with_array(planes),
        segmentation_type="BINARY",
        segment_descriptions=segments,
        omit_empty_frames=bool(planes.any()),
        content_label="SEGMENTATION",
        **made.facts(),
    )
    return _dated(found, made)


def parametric_map(made: DicomObject) -> Any:
    """Return a map (z, y, x) as a parametric map of its values, 32-bit floats, with its unit."""
    import highdicom

    values = np.nan_to_num(made.pixels).astype(np.float32)
    low, high = float(values.min()), float(values.max())
    series = made.kind
    mapping = highdicom.pm.RealWorldValueMapping(
        lut_label=line(series.role)[:16] or "map",
        lut_explanation=line(series.role)[:LONG_STRING] or "map",
        unit=_code(UCUM.get(series.unit, series.unit)[:16], "UCUM", line(series.unit)[:LONG_STRING] or "no units"),
        value_range=(low, high),
        slope=1.0,
        intercept=0.0,
    )
    found = highdicom.pm.ParametricMap(
        pixel_array=values,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[
            highdicom.VOILUTTransformation((low + high) / 2, (high - low) or 1.0, voi_lut_function="LINEAR_EXACT")
        ],
        content_label="MAP",
        **made.facts(),
    )
    found.Laterality = ""
    return _dated(found, made)


def _meaning(label: str) -> tuple[Any, Any]:
    """Return the codes of category and type of a label; those of tissue for one that is not known."""
    known = next((codes for word, codes in _KNOWN.items() if word in label.lower()), (_TISSUE, _TISSUE))
    return _code(*known[0]), _code(*known[1])


def _code(value: str, scheme: str, meaning: str) -> Any:
    from pydicom.sr.coding import Code

    return Code(value, scheme, meaning)


def _dated(found: Any, made: DicomObject) -> Any:
    """Return an object that another export of the scan gives again: dated as the scan, where that is known."""
    source, dimensions = made.sources[0], uid("dimensions", found.SOPInstanceUID)
    for item in (*found.get("DimensionOrganizationSequence", ()), *found.get("DimensionIndexSequence", ())):
        item.DimensionOrganizationUID = dimensions
    for name, known in (("Date", source.get("StudyDate")), ("Time", source.get("StudyTime"))):
        if known:
            setattr(found, f"Content{name}", known)
        for element in (f"InstanceCreation{name}", f"Series{name}"):
            if element in found:
                delattr(found, element)
    for equipment in found.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in equipment:
            del equipment.ContributionDateTime
    return found
