"""Optimisers and schedules of the learning rate: our names, and those of torch.

The rate of a schedule at a step depends on the step alone. So a run that was killed goes on as if it was not.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from mrnets.errors import InputError, unknown
from training.settings import Optimiser

__all__ = ["check", "made", "rate", "restore"]

_UNFIT = ("Optimizer", "LBFGS", "SparseAdam")
"""The base class, and those that need a closure or sparse gradients."""
_FUSED = ("Adam", "AdamW", "SGD")
"""Those that update all weights on a CUDA device by one kernel, and look there whether the gradient is finite."""
_WAYS = {"fused", "foreach", "capturable", "differentiable"}
"""Their options for how that is done."""
_OUTSIDE = ("LRScheduler", "ReduceLROnPlateau", "LambdaLR", "MultiplicativeLR", "ChainedScheduler", "SequentialLR")
"""Schedules that need functions, other schedules or the results of validations."""

_SHARES: dict[str, Callable[[int, int, float], float]] = {
    "constant": lambda step, steps, warm_up: 1.0,
    "cosine": lambda step, steps, warm_up: 0.5 * (1 + math.cos(math.pi * _progress(step, steps, warm_up))),
    "inverse_sqrt": lambda step, steps, warm_up: math.sqrt(max(warm_up, 1) / (step + 1)),
    "linear": lambda step, steps, warm_up: 1 - _progress(step, steps, warm_up),
}


def check(settings: Optimiser) -> None:
    """Raise InputError for names and options that torch does not know, or does not take."""
    made(settings, [nn.Parameter(torch.zeros(1))])
    rate(dataclasses.replace(settings, warm_up=0), 0, 1)
    if not 0 <= settings.min_lr <= settings.learning_rate:
        raise InputError(
            f"option optimiser.min_lr must be from 0 to learning_rate {settings.learning_rate:g}, "
            f"got {settings.min_lr:g}"
        )


def made(settings: Optimiser, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Return torch's optimiser of that name, in any case ("adamw", "SGD"), with the settings that it knows.

    Raises InputError for an unknown name, and for options that it does not take.
    """
    kind = _class(vars(torch.optim), Optimizer, _UNFIT, settings.name, "value of option optimiser.name")
    known = inspect.signature(kind).parameters
    given: dict[str, Any] = {"weight_decay": settings.weight_decay} if "weight_decay" in known else {}
    if settings.betas is not None:
        given["betas"] = settings.betas
    given |= settings.options
    for key in given:
        if key not in known or key in ("params", "lr"):
            raise unknown(f"option of {kind.__name__}", key, set(known) - {"params", "lr"})
    parameters = list(parameters)
    if kind.__name__ in _FUSED and not _WAYS & given.keys() and all(p.is_cuda for p in parameters):
        given["fused"] = True
    try:
        return kind(parameters, lr=settings.learning_rate, **given)
    except (TypeError, ValueError) as error:
        raise InputError(f"option optimiser: {kind.__name__}: {error}") from None


def restore(optimiser: Optimizer, state: dict[str, Any]) -> None:
    """Bring an optimiser to the `state_dict` of one like it, which may have updated weights in another way.

    It keeps its own way. torch would take that of the state, and then fail in the first step on another device.
    """
    groups = zip(state["param_groups"], optimiser.param_groups, strict=True)
    own = [{**theirs, **{way: mine[way] for way in _WAYS & mine.keys()}} for theirs, mine in groups]
    optimiser.load_state_dict({**state, "param_groups": own})


def rate(settings: Optimiser, step: int, steps: int) -> float:
    """Return the learning rate of a step, from 0 on: it rises over the warm-up, then falls as the schedule says.

    It rises from `min_lr` and falls to it. Raises InputError for an unknown schedule.
    """
    warm_up = settings.warm_up
    if 0 < warm_up < 1:
        warm_up = max(round(warm_up * steps), 1)
    if step < warm_up:
        share = (step + 1) / warm_up
    elif settings.schedule in _SHARES:
        share = _SHARES[settings.schedule](step, steps, warm_up)
    else:
        share = _walk(settings.schedule, json.dumps(settings.schedule_options)).at(step - math.ceil(warm_up))
    return settings.min_lr + (settings.learning_rate - settings.min_lr) * share


def _progress(step: int, steps: int, warm_up: float) -> float:
    return (step - warm_up) / max(steps - warm_up, 1)


@functools.lru_cache(maxsize=8)
def _walk(name: str, options: str) -> _Walk:
    return _Walk(name, json.loads(options))


class _Walk:
    """A schedule of torch, from step to step."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        kind = _class(
            vars(lr_scheduler), lr_scheduler.LRScheduler, _OUTSIDE, name, "value of option optimiser.schedule", *_SHARES
        )
        self._optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        try:
            self._schedule = kind(self._optimiser, **options)
        except (TypeError, ValueError) as error:
            raise InputError(f"option optimiser.schedule_options: {kind.__name__}: {error}") from None
        self._shares = [self._now]

    @property
    def _now(self) -> float:
        return float(self._optimiser.param_groups[0]["lr"])

    def at(self, step: int) -> float:
        """Return the share of the learning rate after so many steps."""
        while len(self._shares) <= step:
            self._optimiser.step()
            self._schedule.step()
            self._shares.append(self._now)
        return self._shares[step]


def _class(
    module: Mapping[str, Any], base: type[Any], without: tuple[str, ...], name: str, what: str, *others: str
) -> Any:
    """The class of a module of torch of that name, in any case. Raises InputError, which names `others`, too."""
    found = {
        key.lower(): value
        for key, value in module.items()
        if isinstance(value, type) and issubclass(value, base) and key not in without and not key.startswith("_")
    }
    if name.lower() not in found:
        raise unknown(what, name, {*(value.__name__ for value in found.values()), *others})
    return found[name.lower()]
