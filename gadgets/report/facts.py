"""Texts of the report: on the scan and the patient, on what the images say of themselves, and on the software."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib import metadata
from typing import Any

from ismrmrd.xsd import ismrmrdHeader

from gadgets.export.contents import Contents
from gadgets.report.runs import Run
from gadgets.trust import MEASURES
from mrnets import __version__

__all__ = ["comments", "fallbacks", "patient", "trust", "versions"]

_PARTS = ("subjectInformation", "studyInformation", "measurementInformation")
_PACKAGES = ("numpy", "torch", "cupy-cuda13x", "cupy-cuda12x", "ismrmrd", "h5py")


def versions() -> list[tuple[str, str]]:
    """Return the names and versions of what made the images."""
    found = [("gadgetron-networks", __version__), ("Python", platform.python_version())]
    for name in _PACKAGES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return [*found, ("system", f"{platform.system()} {platform.machine()}")]


def patient(header: ismrmrdHeader | None) -> Iterator[tuple[str, str]]:
    """Yield what a header says of patient, study and measurement, by the names of its elements."""
    for part in _PARTS:
        record = getattr(header, part, None)
        for one in fields(record) if is_dataclass(record) else ():
            value = getattr(record, one.name)
            if value not in (None, "", []) and isinstance(getattr(value, "value", value), (str, int, float)):
                yield one.name, str(getattr(value, "value", value))


def comments(contents: Contents) -> list[tuple[str, int]]:
    """Return what the images say of themselves, and how many say it; fallbacks and warnings first."""
    counts: Counter[str] = Counter()
    for picture in _pictures(contents):
        counts.update(set(picture.meta.get("GADGETRON_ImageComment", [])))
    return sorted(counts.items(), key=lambda item: not item[0].startswith(("FALLBACK", "WARNING")))


def fallbacks(contents: Contents) -> int:
    """Return how many images are by a simpler method than was asked for."""
    return sum("FALLBACK" in picture.first("ImageComments") for picture in _pictures(contents))


def trust(run: Run) -> list[tuple[str, ...]]:
    """Return the measures of each image that has them: its name, residual, predictions, share of l1-wavelet, unit."""
    rows = []
    for picture in _pictures(run.contents):
        values = [picture.first(name) for name in MEASURES]
        if any(values[:3]) and picture.first("GADGETRON_DataRole", "Image") == "Image":
            rows.append((f"slice {picture.head.slice + 1}, repetition {picture.head.repetition + 1}", *values))
    return rows


def _pictures(contents: Contents) -> Iterator[Any]:
    return (picture for series in contents.series for picture in series.pictures)
