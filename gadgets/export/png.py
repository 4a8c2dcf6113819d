"""PNG pictures: images and maps in greys with one window for each series, segmentations in colours with a legend.

Axes: pixels of a series (image, channel, z, y, x).
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gadgets.export.contents import Contents, Series
from gadgets.export.needed import needed
from mrnets.files import make_folder, write_bytes

__all__ = ["write_png"]

_GOLDEN = 0.618034
"""Steps of this part of the colour circle give hues that differ, however many labels there are."""
_LINE = 14
"""Pixels, of a line of the legend."""


def write_png(contents: Contents, folder: Path) -> list[Path]:
    """Write each image of each series as PNG `NAME_IMAGE[_CHANNEL][_Z].png` into a folder, and return the paths.

    Each series has one window, so that its images can be compared: from 0 to the 99.8th percentile of all its pixels.
    That of pixels with a sign begins at the 0.2nd percentile. Complex pixels are shown as magnitudes. A segmentation
    has a colour for each label, the first one black. Raises InputError without Pillow.
    """
    pillow = needed("PIL.Image", "PNG")
    make_folder(folder)
    written = []
    for series in contents.series:
        for name, picture in _pictures(pillow, series):
            file = io.BytesIO()
            picture.save(file, format="PNG")
            written.append(folder / f"{name}.png")
            write_bytes(written[-1], file.getvalue())
    return written


def _pictures(pillow: Any, series: Series) -> list[tuple[str, Any]]:
    pixels = np.stack([picture.pixels for picture in series.pictures])
    labels = series.labels if series.role == "Segmentation" else ()
    shown = pixels if labels else _window(pixels)
    found = []
    for index in np.ndindex(*pixels.shape[:3]):
        parts = [i for i, size in zip(index[1:], pixels.shape[1:3], strict=True) if size > 1]
        name = "_".join([series.name, f"{index[0]:03d}", *(f"{part:03d}" for part in parts)])
        picture = _coloured(pillow, shown[index], labels) if labels else pillow.fromarray(shown[index])
        found.append((name, picture))
    return found


def _window(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    real = np.abs(pixels) if pixels.dtype.kind == "c" else pixels
    values = np.nan_to_num(real.astype(np.float32))
    black = float(np.percentile(values, 0.2)) if (values < 0).any() else 0.0
    width = float(np.percentile(values, 99.8)) - black or float(values.max()) - black or 1.0
    return (np.clip((values - black) / width, 0, 1) * 255).round().astype(np.uint8)


def _coloured(pillow: Any, numbers: NDArray[Any], labels: Sequence[str]) -> Any:
    """Return a picture of labels, with a legend below it."""
    draw = needed("PIL.ImageDraw", "PNG")
    colours = [(0, 0, 0), *(_colour(n) for n in range(1, len(labels)))]
    beyond = (255, 255, 255)
    table = np.array([*colours, beyond], np.uint8)
    height, width = numbers.shape
    rows = list(enumerate(labels))[1:]
    picture = pillow.new("RGB", (max(width, 160), height + _LINE * len(rows) + 4))
    picture.paste(pillow.fromarray(table[np.minimum(numbers.astype(np.int64), len(labels))]))
    pen = draw.Draw(picture)
    pen.fontmode = "1"
    for line, (number, label) in enumerate(rows):
        top = height + 2 + _LINE * line
        pen.rectangle((4, top + 2, 13, top + 11), fill=colours[number])
        pen.text((18, top + 1), f"{number} {label}".encode("latin-1", "replace").decode("latin-1"), fill=beyond)
    return picture


def _colour(number: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.75, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)
