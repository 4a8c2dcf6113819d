"""An ISMRMRD image file as it is read: series of images with their headers and meta data, and the scan's header.

Axes: pixels (channel, z, y, x), as in ISMRMRD.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
from ismrmrd.xsd import ismrmrdHeader
from numpy.typing import NDArray

from gadgets.greys import SCALE_OFFSET, SCALE_RATIO
from mrnets.errors import InputError
from mrnets.hdf5_reading import opened, require_lengths, require_own, require_sound
from mrnets.mrd.files import hdf5, header_in
from mrnets.mrd.header import read_header
from mrnets.mrd.records import explained
from mrnets.mrd.xml import mended, parse_xml, text_of
from mrnets.values import parsed

__all__ = ["TIME_RANGE", "Contents", "Picture", "Series", "anonymous", "read_contents"]

MAX_PIXELS = 1 << 31
"""Most pixels of one series, which is read as a whole."""
_PARTS = ("data", "header", "attributes")
"""Data sets of a series."""
TIME_RANGE = "acquisition_time_range"
"""Meta data: the time stamps of an image's first and last line."""
_NAMING = ("measurementID", "patientID", "studyID", "deviceID", "acquisition_time_stamp", TIME_RANGE)
"""Meta data of images that tell whose they are, or the time of day; see `gadgets.meta`."""
_PRIVATE = {
    "acquisitionSystemInformation": ("institutionName", "stationName", "deviceID", "deviceSerialNumber"),
    "measurementInformation": ("measurementID", "seriesDate", "seriesTime", "frameOfReferenceUID"),
}
"""Elements of a header's parts that tell the device's owner, the day, or the examination."""


@dataclass(frozen=True)
class Picture:
    """One image: its header, its pixels (channel, z, y, x) and its meta data, each a list of texts."""

    head: ismrmrd.ImageHeader
    pixels: NDArray[Any]
    meta: Mapping[str, list[str]]

    def first(self, name: str, otherwise: str = "") -> str:
        """Return the first text of a meta element."""
        return self.meta.get(name, [otherwise])[0]


@dataclass(frozen=True)
class Series:
    """Images of one kind, shape and type."""

    name: str
    """The group of the file: image_1."""
    pictures: tuple[Picture, ...]

    @property
    def role(self) -> str:
        """Image, the name of a map, or Segmentation."""
        return self.pictures[0].first("GADGETRON_DataRole", "Image")

    @property
    def unit(self) -> str:
        """The unit of the pixels; empty: arbitrary, or unknown. Phases that are no integers are in rad."""
        one = self.pictures[0]
        phase = one.head.image_type == ismrmrd.IMTYPE_PHASE and one.pixels.dtype.kind == "f"
        return one.first("Unit") or ("rad" if phase else "")

    @property
    def labels(self) -> tuple[str, ...]:
        """The meanings of a segmentation's numbers, from 0, without the numbers."""
        return tuple(text.partition(" ")[2] for text in self.pictures[0].meta.get("Labels", []))

    @property
    def description(self) -> str:
        """The name of the series; that of a fallback where an image is one."""
        names = [picture.first("SequenceDescription") for picture in self.pictures]
        return next((name for name in names if "FALLBACK" in name), names[0]) or self.role


@dataclass(frozen=True)
class Contents:
    """All of an image file."""

    path: str
    header: ismrmrdHeader | None
    """The header of the scan; None: the file has none."""
    warnings: tuple[str, ...]
    """Sentences on that header. Who made the images has heard them."""
    digest: str
    """Hash of everything in the file that belongs to the images."""
    series: tuple[Series, ...]


def read_contents(path: str | Path, group: str = "dataset") -> Contents:
    """Return what an image file holds in `group`. Raises InputError: no such file or group, no images, damaged."""
    digest = hashlib.sha256()
    with hdf5(path, opened) as file, explained(path):
        folder = file.get(group)
        if not isinstance(folder, h5py.Group):
            raise InputError(f'{path}: there is no group "{group}".')
        names = [str(name) for name, one in folder.items() if _is_series(one)]
        for place in ("xml", *(f"{name}/{part}" for name in names for part in _PARTS)):
            if place in folder:
                require_own(file, f"{group}/{place}")
                require_sound(folder[place])
        series = tuple(Series(name, _pictures(path, folder[name], digest)) for name in names)
        xml = header_in(path, folder["xml"]) if "xml" in folder else None
    if not series:
        raise InputError(f'{path}: there are no images in the group "{group}".')
    reading = None if xml is None else read_header(xml)
    header, warnings = (reading.header, reading.warnings) if reading else (None, ())
    return Contents(str(path), header, warnings, digest.hexdigest(), series)


def anonymous(contents: Contents) -> Contents:
    """Return an image file without what tells the patient, the study, the device's owner or the day.

    The name of the protocol stays. Two files of one scan become two studies, since nothing links them any more."""
    series = tuple(
        replace(one, pictures=tuple(replace(picture, meta=_without_names(picture.meta)) for picture in one.pictures))
        for one in contents.series
    )
    return replace(contents, series=series, header=None if contents.header is None else _unnamed(contents.header))


def _without_names(meta: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {name: values for name, values in meta.items() if name not in _NAMING}


def _unnamed(header: ismrmrdHeader) -> ismrmrdHeader:
    parts = {name: _without(getattr(header, name), names) for name, names in _PRIVATE.items()}
    return replace(header, subjectInformation=None, studyInformation=None, **parts)


def _without(record: Any, names: tuple[str, ...]) -> Any:
    """Return a part of a header without the elements `names`; versions of ISMRMRD do not all have the same ones."""
    there = () if record is None else {field.name for field in fields(record)}
    return replace(record, **dict.fromkeys(name for name in names if name in there)) if there else record


def _is_series(one: Any) -> bool:
    parts = [one.get(name) for name in ("data", "header")] if isinstance(one, h5py.Group) else []
    return bool(parts) and all(isinstance(part, h5py.Dataset) and part.ndim and len(part) for part in parts)


def _pictures(path: str | Path, series: h5py.Group, digest: Any) -> tuple[Picture, ...]:
    what = f"{path}, {Path(str(series.name)).name}"
    data, heads = series["data"], series["header"]
    if data.ndim != 5 or len(data) != len(heads):
        raise InputError(f"{what}: has pixels of shape {data.shape} and {len(heads)} headers, which do not fit.")
    if data.size > MAX_PIXELS:
        raise InputError(f"{what}: has {data.size} pixels; at most {MAX_PIXELS} are taken.")
    texts = _texts(path, series["attributes"], len(data)) if "attributes" in series else [b""] * len(data)
    size = len(bytes(ismrmrd.ImageHeader()))
    found = []
    for n, (row, text) in enumerate(zip(heads[()], texts, strict=True)):
        raw = row.tobytes()
        if len(raw) != size:
            raise InputError(f"{what}: has image headers of {len(raw)} bytes; {size} were expected.")
        pixels = data[n]
        if pixels.dtype.names == ("real", "imag") and pixels.dtype.itemsize in (8, 16):
            pixels = pixels.view(f"<c{pixels.dtype.itemsize}")
        if pixels.dtype.kind not in "uifc":
            raise InputError(f"{what}: has pixels of type {pixels.dtype}; numbers were expected.")
        digest.update(raw)
        digest.update(np.ascontiguousarray(pixels).tobytes())
        meta = _meta(text, f"{what}, image {n}")
        found.append(Picture(ismrmrd.ImageHeader.from_buffer_copy(raw), _values(pixels, meta), meta))
    return tuple(found)


def _values(pixels: NDArray[Any], meta: Mapping[str, list[str]]) -> NDArray[Any]:
    """Return integers of a quantity with a unit, as of phase in 16 bits, as its values. Other pixels stay."""
    if pixels.dtype.kind not in "ui" or not {"Unit", SCALE_RATIO, SCALE_OFFSET} <= meta.keys():
        return pixels
    with suppress(ValueError):
        ratio, offset = (parsed(meta[name][0], float) for name in (SCALE_RATIO, SCALE_OFFSET))
        if ratio > 0:
            return ((pixels - offset) / ratio).astype(np.float32)
    return pixels


def _texts(path: str | Path, texts: Any, count: int) -> Any:
    """Return the meta data of `count` images as the file holds them. Raises InputError and OSError."""
    if not isinstance(texts, h5py.Dataset) or texts.shape != (count,):
        raise InputError(f"{path}: {texts.name} does not hold the meta data of {count} images.")
    require_lengths(path, texts, 0, count)
    return texts[()]


def _meta(raw: object, what: str) -> dict[str, list[str]]:
    text, _ = text_of(raw, f"meta data of {what}")
    if not text:
        return {}
    root = parse_xml(mended(text, what)[0], f"meta data of {what}")
    named = ((one.findtext("name", "").strip(), one.findall("value")) for one in root.iter("meta"))
    return {name: [value.text or "" for value in values] for name, values in named if name and values}
