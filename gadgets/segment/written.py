"""Labels as NIfTI on the grid of the images, and as DICOM segmentations that refer to them."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gadgets.export.contents import Contents
from gadgets.export.dicom import NOT_CLINICAL, write_dicom
from gadgets.export.elements import LONG_STRING, line
from gadgets.export.identity import uid
from gadgets.export.needed import needed
from gadgets.export.nifti import zipped
from gadgets.export.objects import DicomObject, segmentation
from gadgets.segment.stream import Labels, volume_of
from gadgets.segment.volumes import Image, explained
from mrnets.files import make_folder, write_bytes, write_text

__all__ = ["write_nifti_labels", "write_segmentations"]


def write_nifti_labels(labels: Sequence[Labels], image: Image, folder: Path) -> list[Path]:
    """Write labels.nii.gz, or CLASS.nii.gz for each of several classes, and return the paths.

    Voxels and affine matrix are those of `image`. A JSON file beside each names the labels, as BIDS does."""
    written = []
    for one in labels:
        name = "".join(c if c.isalnum() else "-" for c in one.title)
        written.append(folder / f"{name}.nii.gz")
        write_bytes(written[-1], _nifti(one, image))
        beside = {
            "Labels": dict(enumerate(one.series.labels)),
            "Notice": NOT_CLINICAL,
            "Comments": [one.picture.first("ImageComments")],
        }
        write_text(folder / f"{name}.json", json.dumps(beside, indent=2) + "\n")
    return written


def _nifti(labels: Labels, image: Image) -> bytes:
    """Return a NIfTI file, zipped."""
    nibabel, volume = needed("nibabel", "NIfTI"), volume_of(labels, image)
    if image.nifti is None:
        made = volume.astype(np.uint16).to_nibabel()
    else:
        made = nibabel.Nifti1Image(volume.array.astype(np.uint16), image.nifti.affine)
        for get, put in (("get_qform", made.set_qform), ("get_sform", made.set_sform)):
            put(*getattr(image.nifti, get)(coded=True))
    made.header["descrip"] = NOT_CLINICAL.encode()
    return zipped(made.to_bytes())


def write_segmentations(labels: Sequence[Labels], image: Image, contents: Contents, folder: Path) -> list[Path]:
    """Write DICOM segmentations into a folder, and return the paths.

    Those of DICOM images refer to the images of `image`. Those of NIfTI files come with the images as DICOM files, of
    an anonymous patient. Raises InputError where highdicom cannot refer to them."""
    if not image.series:
        return write_dicom(contents, folder)
    written = []
    for number, one in enumerate(labels, start=1):
        written.append(make_folder(folder) / f"{number:04d}.dcm")
        write_bytes(written[-1], _segmentation(one, image, number))
    return written


def _segmentation(labels: Labels, image: Image, number: int) -> bytes:
    from pydicom import dcmwrite

    source = image.series[0]
    told = line(labels.picture.first("SequenceDescription"))[: LONG_STRING - len(NOT_CLINICAL) - 1]
    with explained(image.path, "be referred to by a segmentation"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # highdicom quotes a patient's name that has no ^
        made = segmentation(
            DicomObject(
                pixels=volume_of(labels, image),
                kind=labels.series,
                picture=labels.picture,
                frame=0,
                sources=image.series,
                series=uid("segmentation", str(source.SeriesInstanceUID), _digest(labels)),
                number=100 * int(source.get("SeriesNumber", None) or 0) + number,
                description=f"{told} {NOT_CLINICAL}",
            )
        )
    file = io.BytesIO()
    dcmwrite(file, made, enforce_file_format=True)
    return file.getvalue()


def _digest(labels: Labels) -> str:
    import hashlib

    return hashlib.sha256(np.ascontiguousarray(labels.pixels).tobytes()).hexdigest()
