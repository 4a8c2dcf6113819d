"""Scores of trained weights on a data set, beside the classical methods: a table, a CSV, and a figure."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mrnets import store
from mrnets.classes import classes_of, decided
from mrnets.contract import Estimate
from mrnets.ending import ended
from mrnets.errors import InputError
from mrnets.files import make_folder, write_text
from mrnets.physics.arrays import to_numpy
from mrnets.preparation import Preparation
from training import classical
from training.batches import Batches, First, first_stage
from training.data import Example, Part
from training.metrics import scores, segmented
from training.options import Options
from training.tasks import opened

__all__ = ["evaluate"]

_SHOWN = ("ssim", "dice", "nmse R2*", "psnr")
"""Metrics that choose the slice of the figure: the one whose score by the first of these is the median."""
_OF_VOLUMES = ("dice", "f1", "ald", "avd", "lesion_f1")
"""Metrics of segmentations that are computed over whole volumes, too."""

Rows = dict[str, dict[str, list[float]]]
"""Method, metric, value of each slice."""


@dataclass(frozen=True)
class Contender:
    """One of the trained networks, and the data as its preparation wants them."""

    label: str
    trained: store.Trained
    preparation: Preparation
    batches: Batches

    @property
    def task(self) -> str:
        return store.describe(self.trained.name).task


@dataclass
class Volumes:
    """Masks of the current volume, by method, and the scores of the volumes before it.

    Slices of another size, as those across another axis, are another volume.
    """

    labels: tuple[str, ...]
    current: tuple[str, tuple[int, ...]] | None = None
    masks: dict[str, list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]] = field(default_factory=dict)
    rows: Rows = field(default_factory=dict)

    def add(self, volume: str, method: str, estimate: Estimate, example: Example) -> None:
        if estimate.logits is not None and example.labels is not None:
            place = (volume, tuple(example.labels.shape[-2:]))
            if place != self.current:
                self.close()
                self.current = place
            pair = (to_numpy(decided(estimate.logits, classes_of(self.labels)))[0], to_numpy(example.labels)[0])
            mask, target = (m if m.ndim == 3 else m[:, m.shape[1] // 2] for m in pair)
            self.masks.setdefault(method, []).append((mask, target))

    def close(self) -> None:
        """Score the volume."""
        for method, pairs in self.masks.items():
            mask, target = (np.stack(planes, axis=1) for planes in zip(*pairs, strict=True))
            for name, value in segmented(mask, target, self.labels).items():
                if name.startswith(_OF_VOLUMES):
                    self.rows.setdefault(method, {}).setdefault(name, []).append(value)
        self.masks = {}


@torch.no_grad()
def evaluate(
    weights: str | Sequence[str],
    options: Options,
    *,
    part: Part = "validation",
    folder: str | Path | None = None,
    wavelet: bool = False,
) -> dict[str, dict[str, float]]:
    """Return the mean of every metric for the classical methods and each weights file. A table is printed.

    `options.validation.examples` slices are taken, evenly spaced through the part; 0: all. None is taken twice.
    With all, segmentations are scored as whole volumes, too. Every weights file gets the data as its own preparation
    says. The classical methods get them as the first weights file does. `options.network.first` makes the images for
    networks that start from them.

    - wavelet: l1-wavelet with the best threshold for each image is one of the methods, too.
    - folder: gets evaluation.md (the table), evaluation.csv (a row for each slice and method) and evaluation.png.

    Raises InputError for weights that do not fit the data.
    """
    contenders = _contenders([weights] if isinstance(weights, str) else list(weights), options, part)
    source, count = contenders[0].batches.source, contenders[0].batches.examined
    first, labels = first_stage(options, options.device), source.labels
    rows: Rows = {}
    slices: list[str] = []
    volumes = Volumes(labels)
    for n in range(count):
        examples, volume = _examples(contenders, n, options, first)
        slices.append(examples[0].names[0])
        for method, estimate, example in _estimates(contenders, examples, wavelet):
            if count == len(source):
                volumes.add(volume, method, estimate, example)
            for metric, value in _scored(estimate, example, labels, method).items():
                rows.setdefault(method, {}).setdefault(metric, []).append(value)
    volumes.close()
    text = _table(rows, f"{count} slices" if count > 1 else "1 slice")
    if volumes.rows:
        text += "\n" + _table(volumes.rows, "volumes")
    print(text, end="")
    if folder is not None:
        _write(Path(folder), text, rows, slices)
        examples, _ = _examples(contenders, _median(rows[contenders[0].label]), options, first)
        _draw(Path(folder) / "evaluation.png", list(_estimates(contenders, examples, wavelet)), labels)
    return {method: {metric: _mean(v) for metric, v in row.items()} for method, row in rows.items()}


def _contenders(weights: Sequence[str], options: Options, part: Part) -> list[Contender]:
    loaded = [store.load(path, options.device) for path in weights]
    seen = Counter(trained.name for trained in loaded)
    contenders = []
    for path, trained in zip(weights, loaded, strict=True):
        preparation = Preparation.from_json(trained.preparation)
        network = dataclasses.replace(options.network, name=trained.name, options=trained.options)
        own = dataclasses.replace(options, network=network, preparation=preparation)
        source = opened(own, part)
        known = tuple(trained.metadata["labels"])
        if known and known != tuple(source.labels):
            raise InputError(f"{path} knows the classes {', '.join(known)}; the data have {', '.join(source.labels)}")
        label = trained.name if seen[trained.name] == 1 else Path(path).stem
        contenders.append(Contender(label, trained, preparation, Batches(source, own, part, 1)))
    if len({c.label for c in contenders}) < len(contenders):
        raise InputError(f"weights side by side need names of their own: {', '.join(weights)}")
    return contenders


def _examples(
    contenders: Sequence[Contender], n: int, options: Options, first: First | None
) -> tuple[list[Example], str]:
    """Slice n as each contender wants it, made once for those that want the same, and the name of its volume."""
    made: dict[Preparation, tuple[Example, str]] = {}
    for one in contenders:
        if one.preparation not in made:
            sample = one.batches[n]
            volume = sample.volumes[0] if sample.volumes else ""
            made[one.preparation] = (one.batches.finish(sample, n, options.device, first), volume)
    return [made[one.preparation][0] for one in contenders], made[contenders[0].preparation][1]


def _estimates(
    contenders: Sequence[Contender], examples: Sequence[Example], wavelet: bool
) -> Iterator[tuple[str, Estimate, Example]]:
    """The methods, their estimates of the slice, and the slice as each got it: classical methods, then networks."""
    first_of = {c.task: example for c, example in zip(reversed(contenders), reversed(examples), strict=True)}
    if (example := first_of.get("reconstruction", first_of.get("joint"))) is not None:
        for method, estimate in classical.images(example, wavelet=wavelet).items():
            yield method, estimate, example
    if (example := first_of.get("quantitative")) is not None:
        for method, estimate in classical.maps(example).items():
            yield method, estimate, example
    exclusive = classes_of(contenders[0].batches.source.labels) == "exclusive"
    if exclusive and (example := first_of.get("segmentation")) is not None:
        for method, estimate in classical.segmentations(example).items():
            yield method, estimate, example
    for contender, example in zip(contenders, examples, strict=True):
        forward = ended(contender.trained.network, contender.preparation, store.describe(contender.trained.name).echoes)
        yield contender.label, forward(example.scan), example


def _scored(estimate: Estimate, example: Example, labels: Sequence[str], method: str) -> dict[str, float]:
    values = {name: float(value[0]) for name, value in scores(estimate, example, labels).items()}
    if not values:
        raise InputError(f"{method} estimates nothing that {example.names[0]} has a target for")
    return values


def _mean(values: Sequence[float]) -> float:
    """The mean of the finite values: a metric may not be defined for a slice."""
    finite = [v for v in values if math.isfinite(v)]
    return float(np.mean(finite)) if finite else math.nan


def _table(rows: Rows, corner: str) -> str:
    """Mean ± standard deviation as a table in Markdown, aligned."""
    metrics = list(dict.fromkeys(metric for row in rows.values() for metric in row))
    lines = [[corner, *metrics], ["---"] * (len(metrics) + 1)]
    for method, row in rows.items():
        lines.append([method, *(_cell(row.get(metric, [])) for metric in metrics)])
    widths = [max(len(line[n]) for line in lines) for n in range(len(metrics) + 1)]
    return "".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |\n"
        for line in lines
    )


def _cell(values: Sequence[float]) -> str:
    finite = [v for v in values if math.isfinite(v)]
    return f"{np.mean(finite):.4g} ± {np.std(finite):.2g}" if finite else "-"


def _write(folder: Path, text: str, rows: Rows, slices: Sequence[str]) -> None:
    metrics = list(dict.fromkeys(metric for row in rows.values() for metric in row))
    lines = io.StringIO(newline="")
    table = csv.writer(lines)
    table.writerow(["slice", "method", *metrics])
    for n, name in enumerate(slices):
        for method, row in rows.items():
            table.writerow([name, method, *(f"{row[m][n]:.6g}" if m in row else "" for m in metrics)])
    make_folder(folder)
    write_text(folder / "evaluation.md", text)
    write_text(folder / "evaluation.csv", lines.getvalue())


def _median(row: Mapping[str, Sequence[float]]) -> int:
    """The slice with the median score. Perfect segmentations do not count, because empty ones are perfect."""
    metric = next((m for m in _SHOWN if m in row), next(iter(row)))
    values = np.array([v if math.isfinite(v) and not (metric == "dice" and v == 1) else math.nan for v in row[metric]])
    order = np.argsort(values)  # NaN last
    return int(order[max(int(np.isfinite(values).sum()) - 1, 0) // 2])


def _draw(path: Path, columns: Sequence[tuple[str, Estimate, Example]], labels: Sequence[str]) -> None:
    try:
        from training.figure import draw
    except ModuleNotFoundError as error:
        print(f"no figure: {error.name} is not installed")
        return
    draw(path, columns, labels)
