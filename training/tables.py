"""Tables of an evaluation: means as Markdown, every slice as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mrnets.files import make_folder, write_text

__all__ = ["Rows", "mean", "median", "rows_of", "table", "write"]

_SHOWN = ("ssim", "dice", "nmse R2*", "psnr")
"""Metrics that choose the slice of the figure: the one whose score by the first of these is the median."""

Rows = dict[str, dict[str, list[float]]]
"""Method, metric, value of each slice."""


def rows_of(slices: Sequence[Mapping[str, Mapping[str, float]]]) -> Rows:
    """Return the rows of all slices, of which each has metrics by method; NaN where a slice has no such score.

    A folder may have accelerated scans beside fully sampled ones, and they have other metrics.
    """
    methods = dict.fromkeys(method for one in slices for method in one)
    return {
        method: {
            metric: [one.get(method, {}).get(metric, math.nan) for one in slices]
            for metric in dict.fromkeys(metric for one in slices for metric in one.get(method, {}))
        }
        for method in methods
    }


def mean(values: Sequence[float]) -> float:
    """Return the mean of the finite values: a metric may not be defined for a slice."""
    finite = [v for v in values if math.isfinite(v)]
    return float(np.mean(finite)) if finite else math.nan


def table(rows: Rows, corner: str) -> str:
    """Return mean ± standard deviation as a table in Markdown, aligned."""
    metrics = _metrics(rows)
    lines = [[corner, *metrics], ["---"] * (len(metrics) + 1)]
    for method, row in rows.items():
        lines.append([method, *(_cell(row.get(metric, [])) for metric in metrics)])
    widths = [max(len(line[n]) for line in lines) for n in range(len(metrics) + 1)]
    return "".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |\n"
        for line in lines
    )


def _metrics(rows: Rows) -> list[str]:
    return list(dict.fromkeys(metric for row in rows.values() for metric in row))


def _cell(values: Sequence[float]) -> str:
    finite = [v for v in values if math.isfinite(v)]
    return f"{np.mean(finite):.4g} ± {np.std(finite):.2g}" if finite else "-"


def write(folder: Path, text: str, rows: Rows, slices: Sequence[str]) -> None:
    """Write evaluation.md, the table `text`, and evaluation.csv, a row for each slice and method. Raises InputError."""
    metrics = _metrics(rows)
    lines = io.StringIO(newline="")
    out = csv.writer(lines)
    out.writerow(["slice", "method", *metrics])
    for n, name in enumerate(slices):
        for method, row in rows.items():
            out.writerow([name, method, *(f"{row[m][n]:.6g}" if m in row else "" for m in metrics)])
    make_folder(folder)
    write_text(folder / "evaluation.md", text)
    write_text(folder / "evaluation.csv", lines.getvalue())


def median(row: Mapping[str, Sequence[float]]) -> int:
    """Return the slice with the median score. Perfect segmentations do not count, because empty ones are perfect."""
    metric = next((m for m in _SHOWN if m in row), next(iter(row)))
    values = np.array([v if math.isfinite(v) and not (metric == "dice" and v == 1) else math.nan for v in row[metric]])
    order = np.argsort(values)  # NaN last
    return int(order[max(int(np.isfinite(values).sum()) - 1, 0) // 2])
