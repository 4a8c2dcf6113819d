"""One step of the optimiser: the gradient over its batches, and the update of the weights."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from mrnets.blocks import fused
from mrnets.contract import Estimate
from mrnets.errors import InputError
from training import optimisers
from training.data import Example
from training.graphs import GradientGraphs
from training.losses import loss
from training.noise2recon import with_noise
from training.options import Loss, Options
from training.run import Run, Told
from training.turned import turned

__all__ = ["Feed", "Learning", "learn", "settle", "update"]


class Feed:
    """The batches of a run, one ahead of the network, and the time that was spent waiting for them.

    A CUDA device still computes a gradient while the host makes the next batch. It waits from the end of that gradient
    to the moment when the batch is ready. Events on the device tell that time.
    """

    def __init__(self, examples: Iterator[Example], device: torch.device) -> None:
        self._examples, self._device = examples, device
        self._began = time.monotonic()
        self._waited = 0.0
        self._gaps: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()
        self.batch: Example | None = None
        self.fault: InputError | None = None
        """Why there is no next batch. The batches before it have been learned from when `require` tells it."""
        self.advance()

    def advance(self) -> None:
        """Fetch the next batch; None after the last, and where it cannot be read."""
        if self._device.type == "cuda":
            computed, ready = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            computed.record()
            self._fetch()
            ready.record()
            self._gaps.append((computed, ready))
            self._count()
            return
        asked = time.monotonic()
        self._fetch()
        self._waited += time.monotonic() - asked

    def _fetch(self) -> None:
        self.batch = None
        try:
            self.batch = next(self._examples, None)
        except InputError as error:
            self.fault = error

    def require(self) -> Example:
        """Return the batch. Raises InputError as its reader did."""
        if self.fault is not None:
            raise self.fault
        assert self.batch is not None
        return self.batch

    @property
    def waited(self) -> float:
        """Seconds of waiting for batches, as far as the device has come."""
        self._count()
        return self._waited

    def _count(self) -> None:
        while self._gaps and self._gaps[0][1].query():
            computed, ready = self._gaps.popleft()
            self._waited += computed.elapsed_time(ready) / 1e3

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
    graphs: GradientGraphs | None = None
    """Gradients that are recorded and replayed; None: all are computed plainly."""


def learn(run: Run, feed: Feed, how: Learning) -> torch.Tensor:
    """Make one step, and return the norm of its gradient.

    Its loss joins `run.losses` in the next step, or by `settle`. So the host is a step ahead of the device. Raises
    InputError where the loss of the step before is not finite, and where a batch cannot be read: then the weights stay.
    """
    settings = how.options.optimiser
    stage, terms = _staged(run, how.options)
    for group in run.optimiser.param_groups:
        group["lr"] = optimisers.rate(settings, run.step, how.steps)
    run.optimiser.zero_grad(set_to_none=True)
    run.network.train()
    total, names = torch.zeros(()), list[str]()
    for part in range(settings.accumulate):
        batch = feed.require()
        seed = functools.partial(_seed, how.options.seed, run.step * settings.accumulate + part, how.rank)
        gradient = functools.partial(_backward, run, how, terms)
        if how.graphs is not None:
            total = total + how.graphs.run(gradient, batch, stage, seed)
        else:
            seed()
            with _alone(how.shared, last=part == settings.accumulate - 1):
                total = total + gradient(batch)
        names.extend(batch.names)
        feed.advance()  # a device still computes the gradient meanwhile
    norm = update(run, settings.clip, settings.ema)
    settle(run, how.options)
    run.told = _telling(run.step, tuple(names), total)
    run.step += 1
    if run.told.done is None:
        settle(run, how.options)
    return norm


def settle(run: Run, options: Options) -> None:
    """Wait for the loss of the last step. Raises InputError where it is not finite."""
    told, run.told = run.told, None
    if told is None:
        return
    if told.done is not None:
        told.done.synchronize()
    number = told.value.item()
    if not math.isfinite(number):
        raise InputError(
            f"the loss of step {told.step} is {number}, of {', '.join(told.names)}; "
            f"the last checkpoint before it stays in {options.folder}"
        )
    run.losses.append(number)


def update(run: Run, clip: float, ema: float) -> torch.Tensor:
    """Move the weights along the gradient, of norm `clip` at most; not where it is not finite. Return its norm.

    ema: decay of the average of the weights."""
    run.scaler.unscale_(run.optimiser)
    norm = nn.utils.clip_grad_norm_(run.network.parameters(), clip)
    run.scaler.step(run.optimiser)
    run.scaler.update()
    _average(run, 1 - ema if run.step else 1.0)
    return norm


@torch.no_grad()
def _average(run: Run, share: float) -> None:
    """Move the averages to the weights by a share of the way. `AveragedModel` would ask the device for its count."""
    averages, values = ([*one.parameters(), *one.buffers()] for one in (run.average.module, run.network))
    pairs = list(zip(averages, values, strict=True))
    moving = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([x for x, _ in moving], [y for _, y in moving], share)
    for x, y in pairs:
        if not x.is_floating_point():
            x.copy_(y)


def _telling(step: int, names: tuple[str, ...], value: torch.Tensor) -> Told:
    """The loss on its way to the host."""
    if value.device.type != "cuda":
        return Told(step, names, value, None)
    there = torch.empty((), dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
    done = torch.cuda.Event()
    done.record()
    return Told(step, names, there, done)


def _staged(run: Run, options: Options) -> tuple[int, Loss]:
    """The number of this step's stage, and the terms of its loss. Only parameters of the stage are left to learn."""
    stages = options.stages
    number = next((n for n, stage in enumerate(stages) if run.step < stage.until), len(stages))
    terms, trains = (stages[number].loss, stages[number].trains) if number < len(stages) else (options.loss, ())
    for name, parameter in run.network.named_parameters():
        parameter.requires_grad_(name.startswith(trains) if trains else True)
    return number, terms


def _seed(seed: int, batch: int, rank: int) -> None:
    """Make dropout draw the same in a run that was killed and in one that was not."""
    torch.manual_seed(int(np.random.SeedSequence([seed, batch, rank]).generate_state(1, np.uint64)[0]) >> 1)


def _alone(network: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[None]:
    """Keep gradients in this process until the last part of a step."""
    if isinstance(network, nn.parallel.DistributedDataParallel) and not last:
        return network.no_sync()
    return contextlib.nullcontext()


def _backward(run: Run, how: Learning, terms: Loss, batch: Example) -> torch.Tensor:
    """Add the gradient of a part of a step. Its share of the loss may still be computed by a device."""
    precision = how.options.precision
    half = torch.float16 if precision == "float16" else torch.bfloat16
    kernels = fused.with_kernels() if how.options.kernels else contextlib.nullcontext()
    with kernels, torch.autocast(batch.weight.device.type, half, enabled=precision != "float32"):
        estimate = how.forward(batch.scan)
        more = [(*one, how.forward(one[0].scan)) for one in _again(batch, estimate, how.options, terms.steps)]
    value = loss(estimate, batch, terms, how.labels)
    for example, weight, own, other in more:
        value = value + weight * loss(other, example, own, how.labels)
    value = value / how.options.optimiser.accumulate
    run.scaler.scale(value).backward()
    return value.detach()


def _again(batch: Example, estimate: Estimate, options: Options, steps: bool) -> Iterator[tuple[Example, float, Loss]]:
    """The scans that are made of the network's own image, and the weight and loss of each."""
    noise, weight = options.noise_to_recon, options.self_supervised.turned
    if noise.weight:
        yield with_noise(batch, estimate, noise), noise.weight, Loss(complex_l1=1.0, steps=steps)
    if weight:
        yield turned(batch, estimate), weight, Loss(kspace=1.0, steps=steps)
