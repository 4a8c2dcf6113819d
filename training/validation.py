"""Validation of the averaged weights: scores, pictures, and whether they are the best so far."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mrnets import store
from mrnets.ending import ended
from mrnets.errors import InputError
from training import checkpoint, panel
from training.batches import Batches, examples, once
from training.data import Example, Place
from training.log import Log
from training.losses import loss
from training.metrics import scores
from training.options import Options
from training.run import Run
from training.tables import mean
from training.targets import First
from training.tasks import opened

__all__ = ["BEST", "checked", "validate", "validated"]

BEST = "best.pt"
"""The weights of the best validation, in the folder of the run."""
HIGHER = ("ssim", "psnr", "dice", "f1", "iou", "lesion")
"""Metrics whose names start so are better when higher."""
SHOWN = 8
"""Examples in a picture."""


def checked(options: Options, device: torch.device, first: First | None) -> list[Example]:
    """Return the examples of every validation of a run, no slice twice."""
    batches = Batches(opened(options, "validation"), options, "validation", 1)
    counted: set[Place] = set()
    return [one for one in examples(batches, range(batches.examined), 0, device, first) if once(one, counted)]


@torch.no_grad()
def validate(
    network: nn.Module, examples: Sequence[Example], options: Options, labels: tuple[str, ...]
) -> dict[str, float]:
    """Return the mean of the loss and of every metric, without slices for which a metric is undefined."""
    forward = ended(network.eval(), options.preparation, store.describe(options.network.name).echoes)
    values: dict[str, list[float]] = {}
    for one in examples:
        estimate = forward(one.scan)
        row = {"loss": loss(estimate, one, options.loss, labels).reshape(1), **scores(estimate, one, labels)}
        for name, value in row.items():
            values.setdefault(name, []).extend(value.tolist())
    return {name: mean(each) for name, each in values.items()}


def validated(
    run: Run, examples: Sequence[Example], options: Options, labels: tuple[str, ...], log: Log
) -> dict[str, float]:
    """Validate, log, and keep the weights if they are the best so far. Raises InputError for an unknown metric."""
    folder = Path(options.folder)
    result = validate(run.average.module, examples, options, labels)
    trained = float(np.mean(run.losses))
    log.row({"step": run.step, "train loss": trained, **{name: round(v, 6) for name, v in result.items()}})
    with torch.no_grad():
        forward = ended(run.average.module, options.preparation, store.describe(options.network.name).echoes)
        pictures = [panel.picture(forward(one.scan), one, labels) for one in examples[:SHOWN]]
    panel.write(folder / f"step{run.step:06d}.png", pictures)
    log.show(run.step, pictures)
    if options.early.patience:
        _compare(run, result, options.early.metric, folder / BEST)
    return result


def _compare(run: Run, result: dict[str, float], metric: str, best: Path) -> None:
    if metric not in result:
        raise InputError(f"option early.metric: no {metric!r} among {', '.join(result)}")
    value = -result[metric] if metric.startswith(HIGHER) else result[metric]
    run.since += 1
    if value < run.best:
        run.best, run.since = value, 0
        checkpoint.write(best, run.average.state_dict())
