"""The page: everything of the report in one HTML file, with its pictures, style and script inside.

Texts of headers and files come from outside. The template escapes all of them, and the page's policy lets no other
script run than its own, and nothing be loaded.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gadgets.export.mr import NOT_CLINICAL
from gadgets.export.needed import needed
from gadgets.report import facts, pictures
from gadgets.report.compared import MAX_TABLES, tables
from gadgets.report.looks import Look, Recorder
from gadgets.report.runs import Run
from mrnets.errors import InputError
from mrnets.files import write_text
from mrnets.physics.gfactor import g_factor

__all__ = ["Scan", "require", "write_report"]

_HERE = Path(__file__).parent
MAX_COMMENTS, MAX_ROWS = 200, 1000
MAX_COILS = 32
"""Coils that are shown."""
MAX_COLUMNS = 96
REPLICAS, SQUARE = 8, 4
"""Reconstructions of noise, and the sides of squares of pixels over which their variance is averaged."""


@dataclass(frozen=True)
class Scan:
    """Facts that the page says beside the images."""

    name: str
    """The name of the file."""
    facts: tuple[tuple[str, str], ...] = ()
    """Names and values."""
    command: str = ""
    made: str = ""
    """When, in words."""
    patient: bool = False
    """Whether the page names patient and study."""


@dataclass(frozen=True)
class Figure:
    """A picture on sampling, coils or noise, and what it shows."""

    title: str
    picture: str
    text: str
    low: str = ""
    high: str = ""
    bar: str = ""


def require(path: Path, made: Path | None = None) -> None:
    """Raise InputError for a page that cannot be written, before anything is done.

    made: a folder that is made before the page, absolute."""
    if path.suffix.lower() not in (".html", ".htm"):  # a scan or an image file is not to be replaced by a page
        raise InputError(f"{path} is no name of a page; one that ends with .html was expected.")
    for module in ("jinja2", "matplotlib", "PIL"):
        needed(module, "A report", "report")
    if not path.resolve().parent.is_dir() and path.resolve().parent != made:
        raise InputError(f"cannot write {path}: there is no folder {path.resolve().parent}")


def write_report(path: Path, runs: Sequence[Run], scan: Scan) -> None:
    """Write the page on the images of one or several chains. Differences are to the first of `runs`.

    Raises InputError without the libraries of the extra `report`, and where the file cannot be written."""
    require(path)
    jinja2 = needed("jinja2", "A report", "report")
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page = environment.from_string((_HERE / "page.html").read_text(encoding="utf-8")).render(
        scan=scan,
        notice=NOT_CLINICAL,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        patient=list(facts.patient(runs[-1].contents.header)) if scan.patient else [],
        runs=[_run(run) for run in runs],
        tables=list(tables(runs)),
        most_tables=MAX_TABLES,
        figures=list(_figures(next((run.recorder for run in runs if run.recorder), None))),
        versions=facts.versions(),
    )
    write_text(path, page)


def _run(run: Run) -> dict[str, Any]:
    """Return what the template needs of a run."""
    steps = [] if run.recorder is None else list(run.recorder.profile.rows())
    rows = [(name, f"{s.seconds:.2f}", _megabytes(s.memory), _megabytes(s.device_memory)) for name, s in steps]
    comments = facts.comments(run.contents)
    return {
        "name": run.name,
        "gadgets": run.gadgets,
        "lacking": run.lacking,
        "images": sum(len(series.pictures) for series in run.contents.series),
        "fallbacks": facts.fallbacks(run.contents),
        "comments": comments[:MAX_COMMENTS],
        "trust": facts.trust(run)[:MAX_ROWS],
        "steps": rows,
        "on_gpu": any(step.device_memory for _, step in steps),
        "is_chain": run.recorder is not None,
    }


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.0f}" if size else "-"


def _figures(recorder: Recorder | None) -> Iterator[Figure]:
    """Yield the pictures on how the scan was sampled, and on coils and noise, as far as they are known."""
    if recorder is None:
        return
    first = next(iter(recorder.looks.values()), None)
    if first is not None:
        share = first.mask.mean()
        text = f"{first.place}: {100 * share:.1f} % of k-space, {1 / max(share, 1e-9):.2f}-fold"
        yield Figure("Sampling mask", pictures.greys(first.mask.astype(np.float32), 0.0, 1.0), text)
    if (covariance := recorder.covariance()) is not None:
        yield _noise(covariance)
    if first is not None:
        yield _coils("Coils", first)
    if (virtual := recorder.chosen(lambda look: look.compressed is not None)) is not None:
        yield _coils(f"Virtual coils ({virtual.compressed})", virtual)
    if (mapped := recorder.chosen(lambda look: look.sens is not None)) is not None and mapped.sens is not None:
        sens = mapped.sens[:MAX_COILS]
        title = f"{mapped.place}, {len(mapped.sens)} coils"
        maps, phases = pictures.tiled(np.abs(sens), 0.0, 1.0), pictures.tiled(np.angle(sens), -np.pi, np.pi, "twilight")
        yield Figure("Coil sensitivities, magnitude", maps, title, "0", "1", pictures.bar("gray"))
        yield Figure("Coil sensitivities, phase", phases, title, "-π", "π", pictures.bar("twilight"))
        yield _amplification(mapped.sens, mapped.mask, mapped.place, mapped.sets)


def _noise(covariance: NDArray[np.complex64]) -> Figure:
    deviations = np.sqrt(np.abs(np.diag(covariance)))
    correlation = np.abs(covariance) / np.maximum(np.outer(deviations, deviations), 1e-30)
    others = correlation[~np.eye(len(correlation), dtype=bool)]
    text = f"correlation of {len(covariance)} coils; between coils at most {others.max() if others.size else 0:.2f}; "
    text += f"standard deviations from {deviations.min():.3g} to {deviations.max():.3g}"
    picture = pictures.coloured(correlation, 0.0, 1.0, "viridis")
    return Figure("Noise covariance", picture, text, "0", "1", pictures.bar("viridis"))


def _coils(title: str, look: Look) -> Figure:
    coils = look.coils[:MAX_COILS]
    energy = (look.coils.astype(np.float64) ** 2).sum(axis=(1, 2))
    part = f"; the first holds {100 * energy[0] / energy.sum():.0f} % of the energy" if look.compressed else ""
    text = f"{look.place}, {len(look.coils)} coils{part}"
    return Figure(title, pictures.tiled(coils, 0.0, float(np.percentile(coils, 99.8)) or 1.0), text)


def _amplification(sens: NDArray[np.complex64], mask: NDArray[np.bool_], place: str, sets: int) -> Figure:
    found, how = _g_factor(sens, mask)
    inside = found[found > 0]
    top = max(float(np.percentile(inside, 99.5)) if inside.size else 0.0, 1.5)
    median = float(np.median(inside)) if inside.size else 0.0
    text = (
        f"{place}: noise of SENSE without regularisation, relative to a full scan of the same duration; median "
        f"{median:.2f}. cgsense, l1-wavelet and networks are regularised: they have less noise there, and other errors"
    )
    text += "; this is of the first set of sensitivities, and images of two have more noise" if sets > 1 else ""
    picture = pictures.coloured(found, 0.0, top, "inferno")
    return Figure("Noise amplification (g-factor)", picture, text + how, "0", f"{top:.2g}", pictures.bar("inferno"))


def _g_factor(sens: NDArray[np.complex64], mask: NDArray[np.bool_]) -> tuple[NDArray[np.float32], str]:
    """Return the g-factor (y, x), in an acceptable time, and how it was found.

    Whole lines: at MAX_COLUMNS positions along the readout. Other masks: from noise, as means over squares."""
    rng = np.random.default_rng(0)
    height, width = mask.shape
    if (mask == mask[:, :1]).all():
        step = math.ceil(width / MAX_COLUMNS)
        found = g_factor(sens[:, :, ::step], mask[:, ::step], rng)
        return np.repeat(found, step, axis=1)[:, :width], ""
    found = g_factor(sens, mask, rng, REPLICAS)
    inside = np.pad(found > 0, ((0, -height % SQUARE), (0, -width % SQUARE)))
    variance = np.pad(found**2, ((0, -height % SQUARE), (0, -width % SQUARE)))
    sums = [x.reshape(-(-height // SQUARE), SQUARE, -1, SQUARE).sum(axis=(1, 3)) for x in (variance, inside)]
    mean = np.sqrt(sums[0] / np.maximum(sums[1], 1))
    whole = np.repeat(np.repeat(mean, SQUARE, axis=0), SQUARE, axis=1)[:height, :width]
    return np.where(found > 0, whole, 0).astype(np.float32), f"; from {REPLICAS} reconstructions of noise"
