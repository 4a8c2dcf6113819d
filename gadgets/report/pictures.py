"""Arrays as pictures inside a page: PNG in a data URI, made small enough, in greys, by a colour map, or as labels.

Axes: (y, x).
"""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gadgets.export.needed import needed
from gadgets.export.planes import colours, shown

__all__ = ["MAX_SIDE", "bar", "coloured", "greys", "labelled", "tiled"]

MAX_SIDE = 320
"""Pixels along each side of a picture; larger ones are made smaller."""
MAX_TILE = 128
"""Pixels along each side of a coil in a picture of all coils."""
Pixels = NDArray[Any]


def greys(values: Pixels, black: float, white: float) -> str:
    """Return real values as a picture in greys."""
    return _uri(shown(_smaller(values, MAX_SIDE), black, white), None)


def coloured(values: Pixels, low: float, high: float, colour_map: str) -> str:
    """Return real values as a picture by a colour map of matplotlib."""
    return _uri(shown(_smaller(values, MAX_SIDE), low, high), _table(colour_map))


def bar(colour_map: str) -> str:
    """Return the colours of a colour map from low to high, as a picture one pixel high."""
    return _uri(np.arange(256, dtype=np.uint8)[None], _table(colour_map))


def labelled(numbers: Pixels, labels: int) -> str:
    """Return labels, which are numbers below `labels`, as a picture in colours."""
    step = math.ceil(max(numbers.shape) / MAX_SIDE)
    chosen = np.minimum(numbers[::step, ::step].astype(np.int64), min(labels, 255)).astype(np.uint8)
    return _uri(chosen, colours(min(labels, 255)))


def tiled(coils: Pixels, low: float, high: float, colour_map: str = "gray") -> str:
    """Return real values (coil, y, x) of all coils as one picture, from left to right and from top to bottom."""
    small = np.stack([shown(_smaller(one, MAX_TILE), low, high) for one in coils])
    columns = min(len(small), 8)
    missing = -len(small) % columns
    filled = np.concatenate([small, np.zeros((missing, *small.shape[1:]), np.uint8)])
    rows = filled.reshape(-1, columns, *small.shape[1:]).transpose(0, 2, 1, 3)
    return _uri(rows.reshape(-1, columns * small.shape[2]), _table(colour_map))


def _smaller(values: Pixels, most: int) -> Pixels:
    """Return values as means over squares of pixels, so that no side has more than `most`."""
    step = math.ceil(max(values.shape) / most)
    height, width = (size // step * step for size in values.shape)
    blocks = values[:height, :width].reshape(height // step, step, width // step, step)
    return np.asarray(blocks.mean(axis=(1, 3)))


def _table(colour_map: str) -> NDArray[np.uint8]:
    colours = needed("matplotlib", "A report", "report").colormaps[colour_map](np.arange(256), bytes=True)
    return np.asarray(colours[:, :3])


def _uri(pixels: NDArray[np.uint8], table: NDArray[np.uint8] | None) -> str:
    """Return a picture of grey levels, or of places in a table of colours."""
    picture = needed("PIL.Image", "A report", "report").fromarray(np.ascontiguousarray(pixels))
    if table is not None:
        picture = picture.convert("P") if picture.mode != "P" else picture
        picture.putpalette(table.tobytes())
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
