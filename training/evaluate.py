"""Scores of trained weights on a data set, beside the classical methods: a table, a CSV, and a figure."""

from __future__ import annotations

import dataclasses
import re
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
from mrnets.physics.arrays import to_numpy
from mrnets.preparation import Preparation
from training import classical, tables
from training.batches import Batches, once
from training.data import Example, Place, Slices
from training.log import progress
from training.metrics import scores, segmented
from training.options import Options
from training.predictions import Names, Saved, Writer, as_measured
from training.split import Part
from training.tables import Rows
from training.targets import First, first_stage
from training.tasks import fitted, opened

__all__ = ["NONE", "evaluate"]

NONE = "none"
"""In place of weights: only saved predictions are scored."""
_OF_VOLUMES = ("dice", "f1", "ald", "avd", "lesion_f1")
"""Metrics of segmentations that are computed over whole volumes, too."""

Column = tuple[str, Estimate, Example]
"""A method, its estimate of a slice, and the slice as it got it."""


@dataclass(frozen=True)
class Contender:
    """One of the trained networks, and the data as its preparation wants them."""

    label: str
    trained: store.Trained | None
    """None: there is none, and the data are as the recipe wants them."""
    preparation: Preparation
    batches: Batches

    @property
    def task(self) -> str:
        return "" if self.trained is None else store.describe(self.trained.name).task


@dataclass(frozen=True)
class Methods:
    """All that estimates a slice: classical methods, networks, and predictions that were saved."""

    contenders: list[Contender]
    options: Options
    first: First | None
    wavelet: bool
    saved: Saved | None

    @property
    def labels(self) -> tuple[str, ...]:
        return self.contenders[0].batches.source.labels

    def of(self, n: int) -> tuple[list[Column], str]:
        """Return the estimates of slice n, and the name of its volume."""
        examples, volume = _examples(self.contenders, n, self.options, self.first)
        columns = list(_estimates(self.contenders, examples, self.wavelet))
        if self.saved is not None:
            known, taken = as_measured(examples[0]), {method for method, *_ in columns}
            for method, estimate in self.saved.estimates(known, self.labels):
                columns.append((f"saved {method}" if method in taken else method, estimate, known))
        return columns, volume


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
    save: str | Path | None = None,
    predictions: str | Path | None = None,
    shown: str = "",
) -> dict[str, dict[str, float]]:
    """Return the mean of every metric for the classical methods and each weights file. A table is printed.

    `options.validation.examples` slices are taken, evenly spaced through the part; 0: all. None is taken twice.
    With all, segmentations are scored as whole volumes, too. Every weights file gets the data as its own preparation
    says. The classical methods get them as the first weights file does. `options.network.first` makes the images for
    networks that start from them.

    - weights: `NONE` scores saved predictions alone.
    - folder: gets evaluation.md (the table), evaluation.csv (a row for each slice and method) and evaluation.png.
    - wavelet: l1-wavelet with the best threshold for each image is one of the methods, too.
    - save: the folder that gets every prediction; see `training.predictions`.
    - predictions: a folder of saved ones, which are scored, too.
    - shown: a part of the name of the slice of the figure; empty: the slice with the median score.

    Raises InputError for weights that do not fit the data, and where there is nothing to score.
    """
    given = [weights] if isinstance(weights, str) else list(weights)
    if given == [NONE] and predictions is None:
        raise InputError("there is nothing to evaluate: give weights, or saved predictions")
    contenders = [_recipe(options, part)] if given == [NONE] else _contenders(given, options, part)
    names = _file_names(contenders[0].batches)
    saved = None if predictions is None else Saved(Path(predictions), names)
    methods = Methods(contenders, options, first_stage(options, options.device), wavelet, saved)
    rows, slices, whole = _scores(methods, None if save is None else Writer(Path(save), names, methods.labels))
    text = tables.table(rows, f"{len(slices)} slices" if len(slices) > 1 else "1 slice")
    if whole:
        text += "\n" + tables.table(whole, "volumes")
    print(text, end="")
    if folder is not None:
        tables.write(Path(folder), text, rows, list(slices.values()))
        middle = tables.median(rows[_judge(methods, rows)])
        columns, _ = methods.of(_chosen(shown, slices) if shown else list(slices)[middle])
        _draw(Path(folder) / "evaluation.png", columns, methods.labels)
    return {method: {metric: tables.mean(v) for metric, v in row.items()} for method, row in rows.items()}


def _file_names(batches: Batches) -> Names:
    """The names of files for all volumes of the part. Sources that draw their slices have no places in advance."""
    source = batches.source
    paths = [place.path for place in source.places] if isinstance(source, Slices) else []
    return Names.of(paths, batches.options.data)


def _scores(methods: Methods, writer: Writer | None) -> tuple[Rows, dict[int, str], Rows]:
    """The scores of slices, their numbers and names, and the scores of volumes, where all slices are taken."""
    batches, found, slices = methods.contenders[0].batches, list[dict[str, dict[str, float]]](), dict[int, str]()
    count, volumes, counted = batches.examined, Volumes(methods.labels), set[Place]()
    for n in range(count):
        columns, volume = methods.of(n)
        progress(n + 1, count, "slices")
        first = columns[0][2]
        if not once(first, counted):
            continue
        slices[n] = first.names[0]
        found.append({method: _scored(estimate, one, methods.labels, method) for method, estimate, one in columns})
        for method, estimate, example in columns:
            if count == len(batches.source):
                volumes.add(volume, method, estimate, example)
            if writer is not None:
                writer.add(method, estimate, example)
    volumes.close()
    if writer is not None:
        writer.close()
    return tables.rows_of(found), slices, volumes.rows


def _judge(methods: Methods, rows: Rows) -> str:
    """The method whose median slice is shown: the first network, or the first of the saved ones."""
    label = methods.contenders[0].label
    return label if label in rows else next(iter(rows))


def _chosen(shown: str, slices: Mapping[int, str]) -> int:
    """The first slice whose name has `shown` in it, as a whole where it is a number. Raises InputError for none."""
    wanted = re.compile(rf"(?<![0-9]){re.escape(shown)}(?![0-9])")
    found = next((n for n, name in slices.items() if wanted.search(name)), None)
    if found is None:
        first = next(iter(slices.values()))
        raise InputError(f"no slice of the evaluation has {shown!r} in its name; there is {first!r}")
    return found


def _recipe(options: Options, part: Part) -> Contender:
    """The data as the recipe wants them."""
    options, source = fitted(options, part)
    return Contender("", None, options.preparation, Batches(source, options, part, 1))


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
        if contender.trained is None:
            continue
        forward = ended(contender.trained.network, contender.preparation, store.describe(contender.trained.name).echoes)
        yield contender.label, forward(example.scan), example


def _scored(estimate: Estimate, example: Example, labels: Sequence[str], method: str) -> dict[str, float]:
    values = {name: float(value[0]) for name, value in scores(estimate, example, labels).items()}
    if not values:
        raise InputError(f"{method} estimates nothing that {example.names[0]} has a target for")
    return values


def _draw(path: Path, columns: Sequence[tuple[str, Estimate, Example]], labels: Sequence[str]) -> None:
    try:
        from training.figure import draw
    except ModuleNotFoundError as error:
        print(f"no figure: {error.name} is not installed")
        return
    draw(path, columns, labels)
