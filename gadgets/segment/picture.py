"""A picture of labels on an image: slices in rows, without and with the labels, and a legend.

Axes: pixels (z, y, x); pictures (y, x, colour).
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gadgets.export.needed import needed
from gadgets.export.planes import colours, shown, window
from gadgets.export.png import legend
from gadgets.segment.stream import Labels
from mrnets.files import write_bytes

__all__ = ["write_montage"]

MOST, COLUMNS = 24, 8
"""Slices of the picture, and of a row."""
STRENGTH = 0.55
"""Weight of the colours on the image."""


def write_montage(path: Path, pixels: NDArray[np.float32], labels: Sequence[Labels]) -> None:
    """Write the picture of an image (z, y, x) and its labels as PNG. Smaller classes lie on top."""
    image = needed("PIL.Image", "PNG")
    names, numbers = _combined(labels)
    chosen = _chosen(numbers)
    grey = np.repeat(shown(pixels, *window(pixels))[..., None], 3, axis=-1)
    table = colours(len(names))
    rows = []
    for start in range(0, len(chosen), COLUMNS):
        which = chosen[start : start + COLUMNS]
        for tiles in (grey[which], _painted(grey[which], numbers[which], table)):
            row = np.zeros((COLUMNS if len(chosen) > COLUMNS else len(which), *tiles.shape[1:]), np.uint8)
            row[: len(which)] = tiles
            rows.append(np.concatenate(row, axis=1))
    file = io.BytesIO()
    legend(image.fromarray(np.concatenate(rows)), names, table).save(file, format="PNG")
    write_bytes(path, file.getvalue())


def _combined(labels: Sequence[Labels]) -> tuple[tuple[str, ...], NDArray[np.uint16]]:
    """Return the names of all classes, the background first, and the number of the one that is seen (z, y, x)."""
    if len(labels) == 1:
        return labels[0].series.labels, labels[0].pixels
    numbers = np.zeros_like(labels[0].pixels)
    by_size = sorted(range(len(labels)), key=lambda n: -int(labels[n].pixels.sum()))
    for n in by_size:
        numbers[labels[n].pixels > 0] = n + 1
    return ("background", *(one.title for one in labels)), numbers


def _chosen(numbers: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Return evenly spaced slices among those that have labels; among all where none has."""
    having = np.flatnonzero(numbers.any(axis=(1, 2)))
    among = having if having.size else np.arange(len(numbers))
    count = min(MOST, len(among))
    return among[[math.floor((n + 0.5) * len(among) / count) for n in range(count)]]


def _painted(grey: NDArray[np.uint8], numbers: NDArray[np.uint16], table: NDArray[np.uint8]) -> NDArray[Any]:
    seen = (numbers > 0)[..., None]
    mixed = (1 - STRENGTH) * grey + STRENGTH * table[np.minimum(numbers, len(table) - 1)]
    return np.where(seen, mixed, grey).astype(np.uint8)
