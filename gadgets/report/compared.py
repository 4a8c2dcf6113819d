"""The images of several chains side by side, plane by plane, and how they differ from those of the first.

Axes: pixels of a plane (y, x).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gadgets.export.planes import Plane, Sheet, colours, real, sheets_of, window
from gadgets.report import pictures
from gadgets.report.runs import Run
from mrnets.physics.maps import facts

__all__ = ["MAX_PICTURES", "MAX_TABLES", "Cell", "Table", "tables"]

MAX_PICTURES = 160
"""Pictures of one page, those of differences among them. Each has at most 320 x 320 pixels, so a page has a size."""
MAX_TABLES = 40
"""Series of one page."""
ERRORS = "inferno"
Window = tuple[float, float]


@dataclass(frozen=True)
class Cell:
    """One picture of a plane by one chain."""

    picture: str
    """A data URI."""
    difference: str = ""
    """Another one: how far it is from that of the first chain; empty: there is none."""
    fallback: bool = False


@dataclass(frozen=True)
class Table:
    """One series of every chain: a column for each chain, a row for each plane."""

    title: str
    names: tuple[str, ...]
    """The columns' names."""
    notes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    """The name of each plane, and its pictures."""
    left_out: int
    """Planes that are not shown."""
    grey: Window | None = None
    """The values that are black and white, where the window can be changed."""
    bar: str = ""
    """The colours of a map from low to high, as a data URI."""
    low: str = ""
    high: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    """Colours and meanings of labels."""
    errors: str = ""
    """The value at the end of the scale of differences, in words; empty: there are none."""


def tables(runs: Sequence[Run]) -> Iterator[Table]:
    """Yield a table of each series, of MAX_TABLES at most, in the order of the first chain that has it."""
    sheets = [sheets_of(run.contents) for run in runs]
    names = list(dict.fromkeys(sheet.name for some in sheets for sheet in some))[:MAX_TABLES]
    found = {name: [next((s for s in some if s.name == name), None) for some in sheets] for name in names}
    share = MAX_PICTURES // max(sum(map(_count, found.values())), 1)
    for name, some in found.items():
        there = [(run, sheet) for run, sheet in zip(runs, some, strict=True) if sheet is not None]
        yield _table(name, [run for run, _ in there], [sheet for _, sheet in there], max(share, 1))


def _count(sheets: Sequence[Sheet | None]) -> int:
    """Return how many pictures one plane of these sheets takes."""
    there = [sheet for sheet in sheets if sheet is not None]
    return len(there) + (len(there) - 1 if there[0].series.role == "Image" else 0)


def _table(name: str, runs: Sequence[Run], sheets: Sequence[Sheet], most: int) -> Table:
    first = sheets[0]
    planes = max(len(sheet.planes) for sheet in sheets)
    shown = np.unique(np.linspace(0, planes - 1, min(most, planes)).round().astype(int)).tolist()
    unit = f", {first.series.unit}" if first.series.unit else ""
    empty = Table(
        title=f"{name}{unit}",
        names=tuple(run.name for run in runs),
        notes=tuple(run.note for run in runs),
        rows=(),
        left_out=planes - len(shown),
    )
    if first.labels:
        return _with_labels(empty, sheets, shown)
    if first.series.role != "Image" and facts(first.series.role).colours != "gray":
        return _with_maps(empty, sheets, shown)
    return _with_greys(empty, sheets, shown)


def _with_labels(empty: Table, sheets: Sequence[Sheet], shown: Sequence[int]) -> Table:
    labels = sheets[0].labels
    table = colours(len(labels))
    legend = tuple((f"rgb{tuple(map(int, table[n]))}", label) for n, label in enumerate(labels))
    cells = [
        [
            Cell(pictures.labelled(plane.pixels, len(labels)), fallback=_fell_back(plane))
            for plane in _planes(one, shown)
        ]
        for one in sheets
    ]
    return replace(empty, rows=_rows(sheets[0], shown, cells), legend=legend)


def _with_maps(empty: Table, sheets: Sequence[Sheet], shown: Sequence[int]) -> Table:
    low, high = _range(sheets[0])
    colour_map = facts(sheets[0].series.role).colours
    cells = [
        [
            Cell(pictures.coloured(real(plane.pixels), low, high, colour_map), fallback=_fell_back(plane))
            for plane in _planes(one, shown)
        ]
        for one in sheets
    ]
    rows = _rows(sheets[0], shown, cells)
    return replace(empty, rows=rows, bar=pictures.bar(colour_map), low=f"{low:.3g}", high=f"{high:.3g}")


def _with_greys(empty: Table, sheets: Sequence[Sheet], shown: Sequence[int]) -> Table:
    first = sheets[0]
    windows = [_window(sheet) for sheet in sheets]
    top = _largest_difference(sheets, shown) if first.series.role == "Image" else 0.0
    cells = [
        [_grey(one, first if n else None, p, windows[n], top) for p in shown if p < len(one.planes)]
        for n, one in enumerate(sheets)
    ]
    errors = f"{100 * top / (windows[0][1] or 1.0):.3g} % of white" if top else ""
    rows = _rows(first, shown, cells)
    return replace(empty, rows=rows, grey=windows[0], bar=pictures.bar(ERRORS), errors=errors)


def _planes(sheet: Sheet, shown: Sequence[int]) -> list[Plane]:
    return [sheet.planes[n] for n in shown if n < len(sheet.planes)]


def _rows(first: Sheet, shown: Sequence[int], cells: list[list[Cell]]) -> tuple[Any, ...]:
    titles = [_title(first, n) for n in shown]
    return tuple((t, tuple(c[n] if n < len(c) else None for c in cells)) for n, t in enumerate(titles))


def _title(sheet: Sheet, n: int) -> str:
    """Return which plane of a sheet the `n`-th one is."""
    plane = sheet.planes[min(n, len(sheet.planes) - 1)]
    head = plane.picture.head
    counters = {"echo": head.contrast, "repetition": head.repetition, "set": head.set, "phase": head.phase}
    parts = [f"{name} {int(number) + 1}" for name, number in counters.items() if number]
    return ", ".join([f"slice {plane.number + 1} of {sheet.columns}", *parts])


def _window(sheet: Sheet) -> Window:
    return window(np.concatenate([real(plane.pixels).ravel() for plane in sheet.planes]))


def _range(sheet: Sheet) -> Window:
    """Return the values at the ends of a map's colours: its own, or those of the picture where it has none."""
    low, high = facts(sheet.series.role).window
    return (low, high) if facts(sheet.series.role).size else _window(sheet)


def _grey(sheet: Sheet, first: Sheet | None, n: int, grey: Window, top: float) -> Cell:
    plane = sheet.planes[n]
    difference = None if first is None or not top else _difference(sheet, first, n)
    picture = "" if difference is None else pictures.coloured(difference, 0.0, top, ERRORS)
    return Cell(pictures.greys(real(plane.pixels), *grey), picture, _fell_back(plane))


def _difference(sheet: Sheet, first: Sheet, n: int) -> NDArray[Any] | None:
    """Return how far a plane is from that of the first chain, in its units; None where they cannot be compared."""
    if n >= len(first.planes) or first.planes[n].pixels.shape != sheet.planes[n].pixels.shape:
        return None
    one, other = real(sheet.planes[n].pixels), real(first.planes[n].pixels)
    energy = float((one**2).sum())
    return np.abs(one * np.float32((one * other).sum() / energy if energy else 1.0) - other)


def _largest_difference(sheets: Sequence[Sheet], shown: Sequence[int]) -> float:
    """Return the end of the scale of differences: the 99.5th percentile of the shown ones; 0: there are none."""
    found = [
        difference.ravel()
        for sheet in sheets[1:]
        for n in shown
        if n < len(sheet.planes) and (difference := _difference(sheet, sheets[0], n)) is not None
    ]
    return float(np.percentile(np.concatenate(found), 99.5)) if found else 0.0


def _fell_back(plane: Plane) -> bool:
    return "FALLBACK" in plane.picture.first("ImageComments")
