"""PNG pictures: images and maps in greys with one window for each series, segmentations in colours with a legend.

Axes: pixels of a series (image, channel, z, y, x).
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gadgets.export.contents import Contents, Picture, Series
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
    Each series has one window, so that its images can be compared, also those of other planes and sizes: from 0 to the
    99.8th percentile of all its pixels. That of pixels with a sign begins at the 0.2nd percentile. It stands below each
    montage, and as the comment of each PNG. Complex pixels are shown as magnitudes. A segmentation has a colour for
    each label, the first one black. Raises InputError without Pillow.
    """
    needed("PIL.Image", "PNG")
    text = needed("PIL.PngImagePlugin", "PNG")
    make_folder(folder)
    written = []
    windows = _windows(contents)
    for name, picture, greys in [*_images(contents, windows), *_montages(contents, windows)]:
        file, info = io.BytesIO(), text.PngInfo()
        if greys is not None:
            info.add_itxt("Comment", str(greys))
        picture.save(file, format="PNG", pnginfo=info)
        written.append(folder / f"{name}.png")
        write_bytes(written[-1], file.getvalue())
    return written


@dataclass(frozen=True)
class _Window:
    """The values that are black and white in the pictures of a series."""

    black: float
    white: float
    unit: str

    def __str__(self) -> str:
        return f"black {self.black:.4g}, white {self.white:.4g}{f' {self.unit}' if self.unit else ''}"

    def of(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the grey levels of pixels."""
        return shown(real(pixels), self.black, self.white)


_Windows = Mapping[int, _Window]
"""By the index of a series. Images of one index that differ in shape are several series of a file."""


def _windows(contents: Contents) -> _Windows:
    found: dict[int, list[Series]] = {}
    for series in contents.series:
        if not _labels(series):
            found.setdefault(_index(series), []).append(series)
    return {
        number: _Window(*window(np.concatenate([real(one.pixels).ravel() for one in _all(several)])), several[0].unit)
        for number, several in found.items()
    }


def _index(series: Series) -> int:
    return int(series.pictures[0].head.image_series_index)


def _all(several: Iterable[Series]) -> Iterator[Picture]:
    return (picture for series in several for picture in series.pictures)


def _labels(series: Series) -> tuple[str, ...]:
    """Return the meanings of the numbers of a segmentation; empty for anything else."""
    return series.labels if series.role == "Segmentation" else ()


_Made = Iterator[tuple[str, Any, _Window | None]]
"""Names, pictures, and the windows of their grey levels."""


def _images(contents: Contents, windows: _Windows) -> _Made:
    """Yield each image."""
    for series in contents.series:
        labels, window = _labels(series), windows.get(_index(series))
        for number, picture in enumerate(series.pictures):
            pixels = picture.pixels if labels or window is None else window.of(picture.pixels)
            for index in np.ndindex(*pixels.shape[:2]):
                parts = [i for i, size in zip(index, pixels.shape, strict=False) if size > 1]
                name = "_".join([series.name, f"{number:03d}", *(f"{part:03d}" for part in parts)])
                yield name, _picture(pixels[index], labels), None if labels else window


def _montages(contents: Contents, windows: _Windows) -> _Made:
    """Yield all planes together, of each series that has several."""
    seen: list[Series] = []
    for sheet in sheets_of(contents):
        seen.append(sheet.series)
        number = sum(series is sheet.series for series in seen)
        if len(sheet.planes) > 1:
            name = f"{sheet.series.name}_montage" + (f"_{number}" if number > 1 else "")
            window = None if sheet.labels else windows[_index(sheet.series)]
            picture = _picture(_together(sheet, window), sheet.labels)
            yield name, picture if window is None else _captioned(picture, str(window)), window


def _together(sheet: Sheet, window: _Window | None) -> NDArray[Any]:
    """Return the planes of a sheet side by side, as labels or grey levels."""
    planes = np.stack([plane.pixels for plane in sheet.planes])
    planes = planes if window is None else window.of(planes)
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


def _picture(pixels: NDArray[Any], labels: Sequence[str]) -> Any:
    """Return a picture of grey levels; of labels in colours, with a legend below it."""
    image = needed("PIL.Image", "PNG")
    if not labels:
        return image.fromarray(pixels)
    table = colours(len(labels))
    return legend(image.fromarray(table[np.minimum(pixels.astype(np.int64), len(labels))]), labels, table)


def _captioned(picture: Any, text: str) -> Any:
    """Return a picture of grey levels with a line of text below it."""
    image, draw = needed("PIL.Image", "PNG"), needed("PIL.ImageDraw", "PNG")
    text = text.encode("latin-1", "replace").decode("latin-1")
    width = math.ceil(draw.Draw(picture).textlength(text)) + 8
    whole = image.new("L", (max(picture.width, width), picture.height + _LINE + 4))
    whole.paste(picture)
    draw.Draw(whole).text((4, picture.height + 3), text, fill=255)
    return whole


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
