"""DICOM files: one folder for each series.

Labels and maps are written twice: as MR images, which every viewer shows, and as the objects that DICOM has for them.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gadgets.export.contents import Contents
from gadgets.export.elements import first_series_number
from gadgets.export.identity import identity_of
from gadgets.export.mr import NOT_CLINICAL, MrSeries, instances, moment, parts_of
from gadgets.export.needed import is_there, needed
from gadgets.export.objects import DicomObject, parametric_map, segmentation
from gadgets.export.stacks import Stack, stacks_of
from mrnets.errors import InputError
from mrnets.extras import install
from mrnets.files import make_folder, write_bytes

__all__ = ["NOT_CLINICAL", "require_empty", "write_dicom"]

_logger = logging.getLogger(__name__)


def require_empty(folder: Path) -> None:
    """Raise InputError for a folder that has files: the DICOM files of two exports must not be mixed."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is no empty folder; files of two exports must not be mixed: name a new folder.")


def write_dicom(contents: Contents, folder: Path) -> list[Path]:
    """Write all images as DICOM files `SERIES_NAME/0001.dcm` into a new or empty folder. Return their paths.

    Complex images become a series of magnitudes and one of phases. Raises InputError without pydicom."""
    needed("pydicom", "DICOM")
    require_empty(folder)
    identity, written, made = identity_of(contents), [], []
    parts = [part for stack in stacks_of(contents) for part in parts_of(stack)]
    for number, part in enumerate(parts, start=1):
        series = MrSeries.of(part, contents, identity, number)
        made.append((series, list(instances(series))))
        written += _write(folder / f"{number:03d}_{part.stack.name}{part.suffix}", made[-1][1])
    for number, (series, name, found) in enumerate(_objects(made), start=len(parts) + 1):
        written += _write(folder / f"{number:03d}_{series.part.stack.name}_{name}", found)
    return written


def _write(folder: Path, sets: Iterable[Any]) -> list[Path]:
    """Write data sets into a new folder, and return the paths of the files."""
    written = []
    for n, one in enumerate(sets, start=1):
        written.append(make_folder(folder) / f"{n:04d}.dcm")
        write_bytes(written[-1], _encoded(one))
    return written


def _encoded(dataset: Any) -> bytes:
    """Return a data set as a DICOM file."""
    from pydicom import dcmwrite

    file = io.BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


_Made = Sequence[tuple[MrSeries, list[Any]]]
"""Series, and their MR images."""


def _objects(made: _Made) -> Iterator[tuple[MrSeries, str, list[Any]]]:
    """Yield each series of labels or of a map with the ending of its folder, and its objects, one for each frame."""
    derived = [(series, own) for series, own in made if series.part.stack.series.role != "Image"]
    if derived and not is_there("highdicom"):
        _logger.warning(
            "labels and maps are MR images only; highdicom makes DICOM objects of them: %s", install("export")
        )
        return
    for n, (series, own) in enumerate(derived, start=1):
        stack = series.part.stack
        if stack.series.role == "Segmentation" and len(stack.series.labels) < 2:
            continue
        name, make = ("seg", segmentation) if stack.series.role == "Segmentation" else ("map", parametric_map)
        number = 100 * first_series_number(series.header) + len(made) + n
        description = str(series.shared.SeriesDescription)
        planes = series.part.pixels.shape[1]
        found = []
        for frame in range(len(stack.frames)):
            sources = _image_of(stack, frame, made) or own[frame * planes : (frame + 1) * planes]
            with warnings.catch_warnings():  # highdicom quotes a patient's name that has no ^
                warnings.simplefilter("ignore", UserWarning)
                pixels, picture = stack.pixels[frame], stack.frames[frame][0]
                whole = DicomObject(pixels, stack.series, picture, frame, sources, series.uid, number, description)
                found.append(make(whole))
        yield series, name, found


def _image_of(stack: Stack, frame: int, made: _Made) -> Sequence[Any]:
    """Return the MR images (z,) of the image that labels or a map belong to; empty where there is none."""
    for series, sets in made:
        image, planes = series.part.stack, series.part.pixels.shape[1]
        if image.series.role == "Image" and planes == stack.pixels.shape[1] and np.allclose(image.affine, stack.affine):
            for n, one in enumerate(image.frames):
                if moment(one[0]) == moment(stack.frames[frame][0]):
                    return sets[n * planes : (n + 1) * planes]
    return ()
