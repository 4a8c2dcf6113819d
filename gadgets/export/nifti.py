"""NIfTI files: slices as the third axis, echoes and repetitions as the fourth; and a JSON file beside each.

Axes: (x, y, z, frame), in the order of the pixels that are in the image file: nothing is flipped. The affine matrix
says where they lie, to RAS.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gadgets.export.comments import told
from gadgets.export.contents import Contents, Picture
from gadgets.export.dicom import NOT_CLINICAL
from gadgets.export.needed import needed
from gadgets.export.places import ras
from gadgets.export.stacks import Stack, stacks_of
from mrnets.errors import InputError
from mrnets.files import make_folder, write_bytes, write_text
from mrnets.values import parsed

__all__ = ["ENDINGS", "nifti_name", "write_nifti", "zipped"]

ENDINGS = (".nii.gz", ".nii")
SCANNER = 1
"""NIfTI's code of coordinates of the scanner."""
MAX_NAME = 80


def nifti_name(path: Path) -> tuple[str, str]:
    """Return the name of a file without its ending, and the ending. Raises InputError for one that is no NIfTI's."""
    for ending in ENDINGS:
        if path.name.endswith(ending) and path.name != ending:
            return path.name.removesuffix(ending), ending
    raise InputError(f"{path} has no name of a NIfTI file; one that ends with .nii.gz or .nii was expected.")


def write_nifti(contents: Contents, path: Path) -> list[Path]:
    """Write the images of a file as NIfTI, and return the paths.

    One stack becomes `path`, and each of several NAME_ROLE.nii.gz. A JSON file beside each has what NIfTI has no place
    for, under the names of BIDS. Raises InputError.
    """
    nibabel = needed("nibabel", "NIfTI")
    name, ending = nifti_name(path)
    stacks, written = stacks_of(contents), []
    make_folder(path.parent)
    for stack in stacks:
        stem = name if len(stacks) == 1 else f"{name}_{stack.name}"
        written.append(path.with_name(stem + ending))
        image = _image(nibabel, stack)
        data = image.to_bytes()
        write_bytes(written[-1], zipped(data) if ending.endswith(".gz") else data)
        write_text(path.with_name(f"{stem}.json"), json.dumps(_beside(stack), indent=2) + "\n")
    return written


def _image(nibabel: Any, stack: Stack) -> Any:
    pixels = stack.pixels.transpose(3, 2, 1, 0)
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    affine = ras(stack.affine)
    image = nibabel.Nifti1Image(np.ascontiguousarray(pixels), affine)
    image.set_qform(affine, SCANNER)
    image.set_sform(affine, SCANNER)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = f"{NOT_CLINICAL} {stack.series.description}".encode("ascii", "replace")[:MAX_NAME]
    return image


def zipped(data: bytes) -> bytes:
    """Return gzip data that are the same for the same images: without the time."""
    import gzip

    return gzip.compress(data, 6, mtime=0)


def _echo_times(stack: Stack) -> dict[str, list[float]]:
    """Return the echo time of each frame, s, where all are known."""
    try:
        return {"EchoTime": [parsed(frame[0].first("GADGETRON_TE"), float) * 1e-3 for frame in stack.frames]}
    except ValueError:
        return {}


def _beside(stack: Stack) -> dict[str, Any]:
    firsts = [frame[0] for frame in stack.frames]
    series = stack.series
    return {
        "SeriesDescription": series.description,
        "Notice": NOT_CLINICAL,
        "Comments": [comment for comment in told(stack.frames) if comment],
        **({"Units": series.unit} if series.unit else {}),
        **({"Labels": dict(enumerate(series.labels))} if series.labels else {}),
        **_echo_times(stack),
        "Contrast": [int(picture.head.contrast) for picture in firsts],
        "Repetition": [int(picture.head.repetition) for picture in firsts],
        **_others(firsts),
    }


def _others(firsts: Sequence[Picture]) -> dict[str, list[int]]:
    """Return the other counters of each frame that tell frames apart: cardiac phases, sets and averages."""
    counters = {name: [int(getattr(one.head, name)) for one in firsts] for name in ("average", "set", "phase")}
    return {name.capitalize(): values for name, values in counters.items() if len(set(values)) > 1}
