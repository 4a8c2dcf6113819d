"""PNG pictures: images and maps in greys with one window for each series, segmentations in colours with a legend.

Axes: pixels of a series (image, channel, z, y, x).
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gadgets.export.contents import Contents, Series
from gadgets.export.needed import needed
from gadgets.export.planes import Sheet, colours, real, sheets_of, shown, window
from mrnets.files import make_folder, write_bytes

__all__ = ["legend", "write_png"]

_LINE = 14
"""Pixels, of a line of the legend."""
MAX_SIDE = 8192
"""Pixels along each side of a montage. Larger ones are made smaller."""


def write_png(contents: Contents, folder: Path) -> list[Path]:
    """Write the images of a file as PNG into a folder, and return the paths.

    Each image is `SERIES_IMAGE[_CHANNEL][_Z].png`. `SERIES_montage[_N].png` shows all planes of a series in order. It
    has a row for each echo and repetition; a row that would be too wide is broken.
    Each series has one window, so that its images can be compared: from 0 to the 99.8th percentile of all its pixels.
    That of pixels with a sign begins at the 0.2nd percentile. Complex pixels are shown as magnitudes. A segmentation
    has a colour for each label, the first one black. Raises InputError without Pillow.
    """
    needed("PIL.Image", "PNG")
    make_folder(folder)
    written = []
    for name, picture in [*_images(contents), *_montages(contents)]:
        file = io.BytesIO()
        picture.save(file, format="PNG")
        written.append(folder / f"{name}.png")
        write_bytes(written[-1], file.getvalue())
    return written


def _images(contents: Contents) -> Iterator[tuple[str, Any]]:
    """Yield the name and the picture of each image."""
    for series in contents.series:
        pixels = np.stack([picture.pixels for picture in series.pictures])
        labels = series.labels if series.role == "Segmentation" else ()
        greys = pixels if labels else _greys(pixels)
        for index in np.ndindex(*pixels.shape[:3]):
            parts = [i for i, size in zip(index[1:], pixels.shape[1:3], strict=True) if size > 1]
            name = "_".join([series.name, f"{index[0]:03d}", *(f"{part:03d}" for part in parts)])
            yield name, _picture(greys[index], labels)


def _montages(contents: Contents) -> Iterator[tuple[str, Any]]:
    """Yield the name and the picture of all planes together, of each series that has several."""
    seen: list[Series] = []
    for sheet in sheets_of(contents):
        seen.append(sheet.series)
        number = sum(series is sheet.series for series in seen)
        if len(sheet.planes) > 1:
            name = f"{sheet.series.name}_montage" + (f"_{number}" if number > 1 else "")
            yield name, _picture(_together(sheet), sheet.labels)


def _together(sheet: Sheet) -> NDArray[Any]:
    """Return the planes of a sheet side by side, as labels or grey levels."""
    planes = np.stack([plane.pixels for plane in sheet.planes])
    planes = planes if sheet.labels else _greys(planes)
    height, width = planes.shape[1:]
    columns = min(sheet.columns, math.ceil(math.sqrt(len(planes) * height / width)) + 1)
    rows = [row for n in range(0, len(planes), sheet.columns) for row in _rows(planes[n : n + sheet.columns], columns)]
    whole = np.concatenate(rows)
    step = math.ceil(max(whole.shape) / MAX_SIDE)
    return whole[::step, ::step]


def _rows(planes: NDArray[Any], columns: int) -> Iterator[NDArray[Any]]:
    """Yield planes in rows of `columns`; the last row is filled up with zeros."""
    for n in range(0, len(planes), columns):
        row = np.zeros((columns, *planes.shape[1:]), planes.dtype)
        row[: len(planes[n : n + columns])] = planes[n : n + columns]
        yield np.concatenate(row, axis=1)


def _greys(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    values = real(pixels)
    return shown(values, *window(values))


def _picture(pixels: NDArray[Any], labels: Sequence[str]) -> Any:
    """Return a picture of grey levels; of labels in colours, with a legend below it."""
    image = needed("PIL.Image", "PNG")
    if not labels:
        return image.fromarray(pixels)
    table = colours(len(labels))
    return legend(image.fromarray(table[np.minimum(pixels.astype(np.int64), len(labels))]), labels, table)


def legend(picture: Any, labels: Sequence[str], table: NDArray[np.uint8]) -> Any:
    """Return a picture with the names of labels below it, each beside its colour in `table`; without the first one."""
    image, draw = needed("PIL.Image", "PNG"), needed("PIL.ImageDraw", "PNG")
    rows = list(enumerate(labels))[1:]
    whole = image.new("RGB", (max(picture.width, 160), picture.height + _LINE * len(rows) + 4))
    whole.paste(picture)
    pen = draw.Draw(whole)
    pen.fontmode = "1"
    for line, (number, label) in enumerate(rows):
        top = picture.height + 2 + _LINE * line
        pen.rectangle((4, top + 2, 13, top + 11), fill=tuple(table[number]))
        pen.text((18, top + 1), f"{number} {label}".encode("latin-1", "replace").decode("latin-1"), fill="white")
    return whole
