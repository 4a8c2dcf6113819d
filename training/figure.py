"""A figure of one slice: the target and every method side by side, errors below, scores written into each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from mrnets.classes import classes_of, decided, foreground
from mrnets.contract import Estimate
from mrnets.files import write_bytes
from mrnets.physics.arrays import to_numpy
from mrnets.physics.maps import MAPS, facts
from training.data import Example
from training.metrics import scores
from training.panel import background, colours, outlines

__all__ = ["draw"]

Column = tuple[str, Estimate, Example]
"""Method, its estimate, and the example it was made from; only the first slice of the batch is shown."""

_ERROR = 5
"""Errors are shown so many times as large, up to the target's maximum."""


class _Grid:
    """Axes in rows. The first column is for the target, and there is room for colour bars beyond the last."""

    def __init__(self, rows: int, columns: int, shape: Sequence[int]) -> None:
        wide, high = 1.8 * columns + 0.6, (1.8 * shape[0] / shape[1] + 0.2) * rows + 0.3
        self.figure = Figure(figsize=(wide, high))
        FigureCanvasAgg(self.figure)
        widths = [*[1.0] * columns, 0.06]
        places = self.figure.add_gridspec(
            rows, columns + 1, width_ratios=widths, wspace=0.02, hspace=0.12,
            left=0.05 / wide, right=1 - 0.45 / wide, bottom=0.25 / high, top=1 - 0.2 / high,
        )  # fmt: skip
        self.axes: NDArray[Any] = places.subplots(squeeze=False)
        for axes in self.axes.flat:
            axes.set_axis_off()

    def show(self, row: int, column: int, values: NDArray[Any], text: str = "", **how: Any) -> Any:
        axes = self.axes[row, column]
        if text:
            box = {"facecolor": "black", "alpha": 0.5, "pad": 1, "linewidth": 0}
            axes.text(0.02, 0.02, text, color="white", fontsize=6, transform=axes.transAxes, va="bottom", bbox=box)
        return axes.imshow(values, interpolation="nearest", **how)

    def title(self, row: int, column: int, text: str) -> None:
        self.axes[row, column].set_title(text, fontsize=7, pad=2)

    def scale(self, row: int, shown: Any, label: str) -> None:
        axes = self.axes[row, -1]
        axes.set_axis_on()
        self.figure.colorbar(shown, cax=axes)
        axes.tick_params(labelsize=5, length=2)
        axes.set_ylabel(label, fontsize=6)
        axes.yaxis.set_label_position("right")


def draw(path: Path, columns: Sequence[Column], labels: Sequence[str] = ()) -> None:
    """Write a PNG with a row of images and one of errors, two for each map, and one of outlined classes.

    Rows for which there is nothing are left out. Raises InputError.
    """
    with mpl.rc_context(mpl.rcParamsDefault):
        images = [c for c in columns if c[1].image is not None]
        maps = [c for c in columns if c[1].maps and c[2].maps]
        classes = [c for c in columns if c[1].logits is not None and c[2].labels is not None]
        names = [name for name in MAPS if maps and name in maps[0][2].maps and name in maps[0][1].maps]
        shape = background(columns[0][2]).shape
        rows = 2 * bool(images) + 2 * len(names) + bool(classes)
        grid = _Grid(rows, 1 + max(map(len, (images, maps, classes))), shape)
        row = 0
        if images:
            _images(grid, row, images)
            row += 2
        for name in names:
            _map(grid, row, name, maps)
            row += 2
        if classes:
            _classes(grid, row, classes, labels)
        grid.figure.text(0.005, 0.005, columns[0][2].names[0], fontsize=5)
        picture = io.BytesIO()
        grid.figure.savefig(picture, format="png", dpi=150)
    write_bytes(path, picture.getvalue())


def _images(grid: _Grid, row: int, columns: Sequence[Column]) -> None:
    """Draw images and errors, each relative to the maximum of the target as its own method got it.

    Without a target there are no errors, and each image is relative to its own maximum."""
    if columns[0][2].target is None:
        _images_alone(grid, row, columns)
        return
    grid.title(row, 0, "target")
    for n, (method, estimate, example) in enumerate(columns, start=1):
        assert estimate.image is not None
        assert example.target is not None
        target, image = (to_numpy(x[0, 0].abs()) for x in (example.target, estimate.image))
        peak = float(target.max()) or 1.0
        if n == 1:
            grid.show(row, 0, target / peak, cmap="gray", vmin=0, vmax=1)
        got = scores(Estimate(image=estimate.image), example)
        text = f"SSIM {float(got['ssim'][0]):.3f}\nPSNR {float(got['psnr'][0]):.1f} dB"
        grid.title(row, n, method)
        grid.show(row, n, image / peak, text, cmap="gray", vmin=0, vmax=1)
        error = grid.show(row + 1, n, _ERROR * np.abs(image - target) / peak, cmap="inferno", vmin=0, vmax=1)
    grid.scale(row + 1, error, f"{_ERROR} x error")


def _images_alone(grid: _Grid, row: int, columns: Sequence[Column]) -> None:
    for n, (method, estimate, example) in enumerate(columns, start=1):
        assert estimate.image is not None
        image = to_numpy(estimate.image[0, 0].abs())
        got = float(scores(estimate, example)["nmse held"][0])
        grid.title(row, n, method)
        grid.show(row, n, image / (float(image.max()) or 1.0), f"held NMSE {got:.3f}", cmap="gray", vmin=0, vmax=1)


def _map(grid: _Grid, row: int, name: str, columns: Sequence[Column]) -> None:
    """Draw a map on one colour scale, that of the target's 99 % inside the region, and its errors."""
    grid.title(row, 0, f"{_label(name)}, target")
    for n, (method, estimate, example) in enumerate(columns, start=1):
        target, values = (to_numpy(m[name][0].float()) for m in (example.maps, estimate.maps))
        inside = np.ones(target.shape, bool) if example.region is None else to_numpy(example.region[0])
        unit = float(target[inside].max(initial=0.0)) or 1.0 if facts(name).size is None else 1.0
        target, values = (np.where(inside, m / unit, 0) for m in (target, values))
        low, high = _limits(name, target[inside])
        how: dict[str, Any] = {"cmap": facts(name).colours, "vmin": low, "vmax": high}
        if n == 1:
            grid.show(row, 0, target, **how)
        got = float(scores(Estimate(maps={name: estimate.maps[name]}), example)[f"nmse {name}"][0])
        grid.title(row, n, method)
        shown = grid.show(row, n, values, f"NMSE {got:.3f}", **how)
        difference = np.abs(np.angle(np.exp(1j * (values - target))) if facts(name).wraps else values - target)
        worst = (high - low) / 4
        error = grid.show(row + 1, n, difference, cmap="inferno", vmin=0, vmax=worst)
    grid.scale(row, shown, _label(name))
    grid.scale(row + 1, error, "error")


def _label(name: str) -> str:
    return f"{name} ({unit})" if (unit := facts(name).unit) else name


def _limits(name: str, values: NDArray[np.float32]) -> tuple[float, float]:
    known = facts(name)
    high = 0.0 if known.wraps or not values.size else float(np.percentile(np.abs(values), 99))
    if not high:
        return known.window
    return (-high, high) if known.signed else (0.0, high)


def _classes(grid: _Grid, row: int, columns: Sequence[Column], labels: Sequence[str]) -> None:
    """Draw the outlines of classes on the image."""
    first = foreground(labels)
    for n, (method, estimate, example) in enumerate(columns, start=1):
        assert estimate.logits is not None
        assert example.labels is not None
        levels = (255 * np.clip(to_numpy(background(example)), 0, 1)).astype(np.uint8)
        grey = np.repeat(levels[:, :, None], 3, axis=2)
        target, mask = (to_numpy(m)[0, first:] for m in (example.labels, decided(estimate.logits, classes_of(labels))))
        target, mask = (m if m.ndim == 3 else m[:, m.shape[1] // 2] for m in (target, mask))
        if n == 1:
            grid.title(row, 0, "target")
            grid.show(row, 0, outlines(grey, target))
        got = scores(Estimate(logits=estimate.logits), example, labels)
        grid.title(row, n, method)
        grid.show(row, n, outlines(grey, mask), f"Dice {float(got['dice'][0]):.3f}")
    names = list(labels[first:]) or [str(n + 1) for n in range(len(mask))]
    patches = [
        Patch(color=(r / 255, g / 255, b / 255), label=name)
        for name, (r, g, b) in zip(names, colours(len(names)), strict=True)
    ]
    grid.figure.legend(handles=patches, loc="lower center", ncols=len(names), fontsize=6, frameon=False)
