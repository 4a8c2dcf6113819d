"""One step of the optimiser: the gradient over its batches, and the update of the weights."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from mrnets.errors import InputError
from training import optimisers
from training.data import Example
from training.losses import loss
from training.noise2recon import with_noise
from training.options import Loss, Options
from training.run import Run

__all__ = ["Feed", "Learning", "learn", "update"]


class Feed:
    """The batches of a run, one ahead of the network, and the time that was spent waiting for them."""

    def __init__(self, examples: Iterator[Example]) -> None:
        self._examples = examples
        self._began = time.monotonic()
        self.waited = 0.0
        """s."""
        self.batch: Example | None = None
        self.advance()

    def advance(self) -> None:
        """Fetch the next batch; None after the last."""
        asked = time.monotonic()
        self.batch = next(self._examples, None)
        self.waited += time.monotonic() - asked

    @property
    def seconds(self) -> float:
        """Since the feed was opened."""
        return time.monotonic() - self._began


@dataclass(frozen=True)
class Learning:
    """The settings and the network of the steps of one process."""

    options: Options
    steps: int
    """The number of steps of the whole run."""
    labels: tuple[str, ...]
    rank: int
    shared: nn.Module
    """The network, whose gradients become the mean over all processes."""
    forward: Callable[..., Any]
    """`shared`, compiled where that was asked for."""


def learn(run: Run, feed: Feed, how: Learning) -> torch.Tensor:
    """Make one step, and return the norm of its gradient.

    Raises InputError where the loss is not finite; then the weights stay as they were."""
    settings = how.options.optimiser
    terms = _staged(run, how.options)
    for group in run.optimiser.param_groups:
        group["lr"] = optimisers.rate(settings, run.step, how.steps)
    run.optimiser.zero_grad(set_to_none=True)
    run.network.train()
    total = 0.0
    for part in range(settings.accumulate):
        batch = feed.batch
        assert batch is not None
        _seed(how.options.seed, run.step * settings.accumulate + part, how.rank)
        with _alone(how.shared, last=part == settings.accumulate - 1):
            value = _backward(run, how, batch, terms)
        feed.advance()  # a device still computes the gradient meanwhile
        total += _finite(value, batch.names, run.step, how.options)
    norm = update(run, settings.clip)
    run.step += 1
    run.losses.append(total)
    return norm


def update(run: Run, clip: float) -> torch.Tensor:
    """Move the weights along the gradient, of norm `clip` at most; not where it is not finite. Return its norm."""
    run.scaler.unscale_(run.optimiser)
    norm = nn.utils.clip_grad_norm_(run.network.parameters(), clip)
    if run.scaler.is_enabled() or bool(torch.isfinite(norm)):
        run.scaler.step(run.optimiser)
        run.average.update_parameters(run.network)
    run.scaler.update()
    return norm


def _staged(run: Run, options: Options) -> Loss:
    """The terms of the loss at this step. Only the parameters of its stage are left to learn."""
    for stage in options.stages:
        if run.step < stage.until:
            terms, trains = stage.loss, stage.trains
            break
    else:
        terms, trains = options.loss, ()
    for name, parameter in run.network.named_parameters():
        parameter.requires_grad_(name.startswith(trains) if trains else True)
    return terms


def _seed(seed: int, batch: int, rank: int) -> None:
    """Make dropout draw the same in a run that was killed and in one that was not."""
    torch.manual_seed(int(np.random.SeedSequence([seed, batch, rank]).generate_state(1, np.uint64)[0]) >> 1)


def _alone(network: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[None]:
    """Keep gradients in this process until the last part of a step."""
    if isinstance(network, nn.parallel.DistributedDataParallel) and not last:
        return network.no_sync()
    return contextlib.nullcontext()


def _backward(run: Run, how: Learning, batch: Example, terms: Loss) -> torch.Tensor:
    """Add the gradient of a part of a step. Its share of the loss may still be computed by a device."""
    precision, again = how.options.precision, how.options.noise_to_recon
    half = torch.float16 if precision == "float16" else torch.bfloat16
    with torch.autocast(batch.weight.device.type, half, enabled=precision != "float32"):
        estimate = how.forward(batch.scan)
        noisy = with_noise(batch, estimate, again) if again.weight else None
        other = None if noisy is None else how.forward(noisy.scan)
    value = loss(estimate, batch, terms, how.labels)
    if noisy is not None and other is not None:
        value = value + again.weight * loss(other, noisy, Loss(complex_l1=1.0, steps=terms.steps), how.labels)
    value = value / how.options.optimiser.accumulate
    run.scaler.scale(value).backward()
    return value.detach()


def _finite(value: torch.Tensor, names: Sequence[str], step: int, options: Options) -> float:
    """The loss as a number. Raises InputError where it is not finite."""
    number = value.item()
    if not math.isfinite(number):
        raise InputError(
            f"the loss of step {step} is {number}, of {', '.join(names)}; "
            f"the last checkpoint before it stays in {options.folder}"
        )
    return number
