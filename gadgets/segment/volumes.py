"""Images in NIfTI files and DICOM series, as volumes in one orientation.

Axes: pixels (z, y, x). A volume's affine matrix takes (z, y, x, 1) to LPS, mm: see `highdicom.Volume`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gadgets.export.needed import needed
from gadgets.export.nifti import ENDINGS
from mrnets.contrasts import named
from mrnets.errors import InputError, counted

__all__ = ["ORIENTATION", "Image", "explained", "read_images", "require_one_grid"]

ORIENTATION = "LPS"
"""Where x, y and z lead: to the left, posterior, superior. So are axial images shown, and the files of BraTS stored."""
MAX_PIXELS = 1 << 29
MAX_FILES = 20000
"""Most files in a folder with DICOM."""
UNPLACED = (
    "does not say where its voxels lie (sform_code and qform_code are 0): left and right may be exchanged in DICOM, "
    "and the network may see the image turned"
)
"""For the comment of an image."""
TOLERANCE = 0.02
"""Voxels by which the corners of two volumes on one grid may differ."""


@dataclass(frozen=True)
class Image:
    """A volume of one contrast."""

    name: str | None
    """The contrast (`mrnets.contrasts`); None: it is not known."""
    path: str
    """The file, or the folder and the description of the series."""
    volume: Any
    """highdicom.Volume of float32, turned; 0 where the file has less."""
    stored: Any
    """The geometry in which the file has it (highdicom.VolumeGeometry)."""
    nifti: Any = None
    """The nibabel image; None for DICOM."""
    series: Sequence[Any] = field(default=())
    """The DICOM images."""
    notes: tuple[str, ...] = ()


def read_images(given: Sequence[str], orientation: str = ORIENTATION) -> list[Image]:
    """Return the images in files (NIfTI) and folders (DICOM). Each may have its contrast before it: t1=FILE.

    orientation: the directions in which x, y and z of the volumes lead, as closely as they can be had by turning.
    Raises InputError for what cannot be read."""
    needed("highdicom", "Segmentation of images")
    return [image for text in given for image in _read(text, orientation)]


def _read(text: str, orientation: str) -> Iterator[Image]:
    before, equals, rest = text.partition("=")
    name, place = (named(before), Path(rest)) if equals and named(before) else (None, Path(text))
    if place.is_dir():
        yield from _of_folder(name, place, orientation)
    elif place.is_file():
        yield _of_nifti(name, place, orientation)
    else:
        raise InputError(f"{place}: there is no such file or folder")


@contextmanager
def explained(where: object, what: str) -> Iterator[None]:
    """Raises whatever a file makes the libraries raise as InputError. what: that they cannot do, as "be read"."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # hostile files make them raise anything
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{where}: cannot {what} ({type(error).__name__}: {reason})") from error


def _of_nifti(name: str | None, path: Path, orientation: str) -> Image:
    nibabel = needed("nibabel", "NIfTI")
    if not path.name.endswith(ENDINGS):
        raise InputError(f"{path}: is no NIfTI file (.nii.gz, .nii), nor a folder with DICOM")
    with explained(path, "be read as NIfTI"):
        nifti = nibabel.load(path)
        shape = tuple(size for n, size in enumerate(nifti.shape) if n < 3 or size > 1)
        if len(shape) != 3 or math.prod(shape) > MAX_PIXELS:
            raise InputError(f"{path}: must have the axes (x, y, z), got the shape {nifti.shape}")
        pixels = np.asarray(nifti.dataobj, np.float32).reshape(shape)
        volume = _volume(pixels, nifti.affine)
    turned, notes = _prepared(volume, path, orientation)
    notes += () if _placed(nifti.header) else (f"{path.name} {UNPLACED}",)
    return Image(name or named(path.name), str(path), turned, volume.get_geometry(), nifti=nifti, notes=notes)


def _placed(header: Any) -> bool:
    """Return whether a NIfTI file says where its voxels lie. Without, nibabel takes x to lead from right to left."""
    return bool(header["sform_code"] > 0 or header["qform_code"] > 0)


def _volume(pixels: Any, affine: Any) -> Any:
    """Return a volume by pixels (x, y, z) and their affine matrix to RAS."""
    import highdicom

    return highdicom.Volume(pixels, affine, coordinate_system="PATIENT", from_reference_convention="RAS")


def _prepared(volume: Any, where: object, orientation: str) -> tuple[Any, tuple[str, ...]]:
    """Return a volume turned, as training has it: without negative pixels; and notes."""
    pixels = volume.array
    if not np.isfinite(pixels).all():
        raise InputError(f"{where}: has pixels that are not finite")
    below = int((pixels < 0).sum())
    notes = (f"{counted(below, 'negative pixel')} of {Path(str(where)).name}, taken for 0",) if below else ()
    turned = volume.with_array(np.maximum(pixels, 0)).to_patient_orientation(orientation[::-1])
    return turned, notes


def _of_folder(name: str | None, folder: Path, orientation: str) -> Iterator[Image]:
    """Yield the one series in a folder, or those of several whose descriptions tell a contrast."""
    series = _series_in(folder)
    if name and len(series) > 1:
        raise InputError(f"{folder}: has {len(series)} series; one was expected for {name}")
    described = [str(one[0].get("SeriesDescription", "")) for one in series]
    if len(series) > 1 and not any(map(named, described)):
        raise InputError(f"{folder}: none of its {len(series)} series has a name that tells a contrast: {described}")
    for one, text in zip(series, described, strict=True):
        if len(series) == 1:
            yield _of_series(name or named(text) or named(folder.name), f"{folder}", one, orientation)
        elif named(text):
            yield _of_series(named(text), f"{folder}, {text}", one, orientation)


def _series_in(folder: Path) -> list[list[Any]]:
    """Return the DICOM images of each series in a folder. Files that are no DICOM images are left out."""
    pydicom = needed("pydicom", "DICOM")
    paths = list(itertools.islice((path for path in sorted(folder.rglob("*")) if path.is_file()), MAX_FILES + 1))
    if len(paths) > MAX_FILES:
        raise InputError(f"{folder}: has more than {MAX_FILES} files")
    found: dict[str, list[Any]] = {}
    for path in paths:
        try:
            image = pydicom.dcmread(path)
        except (pydicom.errors.InvalidDicomError, OSError):
            continue
        if "PixelData" in image and "SeriesInstanceUID" in image:
            found.setdefault(str(image.SeriesInstanceUID), []).append(image)
    if not found:
        raise InputError(f"{folder}: there are no DICOM images")
    return list(found.values())


def _of_series(name: str | None, where: str, series: Sequence[Any], orientation: str) -> Image:
    import highdicom

    with explained(where, "be read as a volume of DICOM images"):
        volume = highdicom.get_volume_from_series(series, dtype=np.float32, apply_real_world_transform=False)
        if volume.array.ndim != 3 or volume.array.size > MAX_PIXELS:
            raise InputError(f"{where}: has pixels of shape {volume.array.shape}; (z, y, x) was expected")
    turned, notes = _prepared(volume, where, orientation)
    return Image(name, where, turned, volume.get_geometry(), series=tuple(series), notes=notes)


def require_one_grid(images: Sequence[Image]) -> None:
    """Raise InputError unless all volumes have their voxels at the same places."""
    first, *others = images
    size = min(first.volume.spacing)
    for other in others:
        shapes = first.volume.spatial_shape, other.volume.spatial_shape
        apart = _apart(first.volume, other.volume) if shapes[0] == shapes[1] else math.inf
        if apart > TOLERANCE * size:
            how = f"{shapes[0]} and {shapes[1]} voxels" if apart == math.inf else f"corners {apart:.3g} mm apart"
            raise InputError(
                f"{first.path} and {other.path} are not on one grid ({how}); register and resample them first"
            )


def _apart(one: Any, other: Any) -> float:
    """Return the largest distance of corresponding corners of two volumes, mm."""
    corners = np.array(list(itertools.product(*((0, size - 1) for size in one.spatial_shape))))
    places = [volume.map_indices_to_reference(corners) for volume in (one, other)]
    return float(np.linalg.norm(places[0] - places[1], axis=1).max())
