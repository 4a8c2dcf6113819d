"""Planes of a series in order, as pictures show them: their grey levels, and the colours of labels.

Axes: pixels of a plane (y, x).
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gadgets.export.contents import Contents, Picture, Series
from gadgets.export.stacks import stacks_of
from mrnets.errors import InputError

__all__ = ["Plane", "Sheet", "colours", "real", "sheets_of", "shown", "window"]

_GOLDEN = 0.618034
"""Steps of this part of the colour circle give hues that differ, however many labels there are."""


@dataclass(frozen=True)
class Plane:
    """One plane of an image."""

    pixels: NDArray[Any]
    """(y, x)."""
    picture: Picture
    """The image that it is of."""
    number: int
    """Its place among the planes of its echo and repetition, from 0."""


@dataclass(frozen=True)
class Sheet:
    """Planes that lie in parallel: slices from first to last, then echoes and repetitions."""

    name: str
    series: Series
    planes: tuple[Plane, ...]
    columns: int
    """Planes of one echo and repetition."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The meanings of the numbers of a segmentation; empty for anything else."""
        return self.series.labels if self.series.role == "Segmentation" else ()


def sheets_of(contents: Contents) -> tuple[Sheet, ...]:
    """Return the planes of an image file. Those of images that cannot be placed are in the order of the file."""
    try:
        stacks = stacks_of(contents)
    except InputError:
        return tuple(_unplaced(series) for series in contents.series)
    sheets = []
    for stack in stacks:
        planes = []
        for frame in stack.frames:
            apart = [(plane, one) for one in frame for plane in one.pixels[0]]
            planes += [Plane(plane, one, n) for n, (plane, one) in enumerate(apart)]
        sheets.append(Sheet(stack.name, stack.series, tuple(planes), len(planes) // len(stack.frames)))
    return tuple(sheets)


def _unplaced(series: Series) -> Sheet:
    planes = [(plane, one) for one in series.pictures for channel in one.pixels for plane in channel]
    made = tuple(Plane(plane, one, n) for n, (plane, one) in enumerate(planes))
    return Sheet(series.name, series, made, len(made))


def real(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Return pixels as pictures show them: magnitudes of complex ones, and 0 where they are not finite."""
    values = np.abs(pixels) if pixels.dtype.kind == "c" else pixels
    return np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)


def window(pixels: NDArray[Any]) -> tuple[float, float]:
    """Return the values that are black and white for real pixels: 0 and their 99.8th percentile.

    That of pixels with a sign begins at the 0.2nd percentile."""
    black = float(np.percentile(pixels, 0.2)) if (pixels < 0).any() else 0.0
    width = float(np.percentile(pixels, 99.8)) - black or float(pixels.max()) - black or 1.0
    return black, black + width


def shown(pixels: NDArray[Any], black: float, white: float) -> NDArray[np.uint8]:
    """Return the grey levels of real pixels."""
    return (np.clip((pixels - black) / (white - black), 0, 1) * 255).round().astype(np.uint8)


def colours(labels: int) -> NDArray[np.uint8]:
    """Return the colours (label + 1, 3) of labels; the first is black, and one beyond the last is white."""
    return np.array([(0, 0, 0), *_hues(labels), (255, 255, 255)], np.uint8)


def _hues(labels: int) -> Iterator[tuple[int, ...]]:
    for number in range(1, labels):
        yield tuple(round(255 * part) for part in colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.75, 1.0))
