"""The picture of `make demo`: methods side by side, a part of each enlarged, and its errors in colours with a scale.

Axes: (y, x).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrnets.files import write_bytes

__all__ = ["Column", "Row", "draw"]

ERRORS = "inferno"
PART = (0.42, 0.68, 0.17, 0.43)
"""The enlarged part of the image: from and to along y, then along x, as shares of its size."""


@dataclass(frozen=True)
class Column:
    """One method's image of the slice that is shown."""

    name: str
    score: str
    image: NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """One scan by every method; the first one is the reference."""

    text: str
    brighter: float
    """How much brighter errors are shown than images."""
    columns: Sequence[Column]


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Write a PNG with images, enlarged parts and errors below each other, for each scan."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = max(len(row.columns) for row in rows)
    figure, axes = pyplot.subplots(
        3 * len(rows),
        columns,
        figsize=(4 * columns + 1, 12 * len(rows)),
        facecolor="black",
        layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0),
    )
    for axis in axes.flat:
        axis.axis("off")
    for n, row in enumerate(rows):
        _draw_scan(figure, axes[3 * n : 3 * n + 3], row)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=75, facecolor="black")
    write_bytes(path, picture.getvalue())
    pyplot.close(figure)


def _draw_scan(figure: Any, axes: Any, row: Row) -> None:
    """Draw into three rows of axes."""
    from matplotlib.patches import Rectangle

    target = row.columns[0].image
    height, width = target.shape
    top, bottom, left, right = (round(part * n) for part, n in zip(PART, (height, height, width, width), strict=True))
    white = float(np.percentile(target, 99.7))
    strongest = white / row.brighter
    look: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": white}
    axes[2, 0].text(
        0.5, 0.5, row.text, ha="center", va="center", color="white", fontsize=16, transform=axes[2, 0].transAxes
    )
    for n, column in enumerate(row.columns):
        axes[0, n].imshow(column.image, interpolation="lanczos", **look)
        axes[0, n].add_patch(
            Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="tab:cyan", linewidth=1.5)
        )
        _write(axes[0, n], 0.98, "top", column.name)
        _write(axes[0, n], 0.02, "bottom", column.score)
        axes[1, n].imshow(column.image[top:bottom, left:right], interpolation="bicubic", **look)
        if n:
            errors = np.abs(column.image - target)
            shown = axes[2, n].imshow(errors, cmap=ERRORS, vmin=0, vmax=strongest, interpolation="nearest")
    bar = figure.colorbar(shown, ax=axes[2, -1], fraction=0.05, pad=0.02, ticks=[0, strongest])
    bar.ax.set_yticklabels(["0", f"{100 * strongest / white:.0f} %"], color="white", fontsize=14)
    bar.outline.set_edgecolor("white")


def _write(axis: Any, y: float, where: str, text: str) -> None:
    """Write into a picture."""
    box = {"facecolor": "black", "alpha": 0.6, "linewidth": 0, "pad": 2}
    if text:
        axis.text(0.02, y, text, va=where, color="white", fontsize=15, bbox=box, transform=axis.transAxes)
