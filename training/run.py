"""All that changes while a network learns."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mrnets import store
from mrnets.errors import InputError
from training import optimisers
from training.options import Network, Options

__all__ = ["Run", "Told", "built"]

_logger = logging.getLogger(__name__)

_NEVER = 2**31 - 1
"""Steps."""
_SAME = math.nextafter(1.0, 0.0)
"""The factor of a scale that stays 1, which is float32. torch takes none of 1."""


@dataclass(frozen=True)
class Told:
    """The loss of a step, which a device may still compute."""

    step: int
    names: tuple[str, ...]
    value: torch.Tensor
    """In memory of the host."""
    done: torch.cuda.Event | None
    """The moment when it is there; None: it is."""


@dataclass
class Run:
    """The state of a run, which a checkpoint holds."""

    network: nn.Module
    average: AveragedModel
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    best: float = math.inf
    """The metric of early stopping at the best validation; lower is better."""
    since: int = 0
    """Validations after the best one."""
    losses: list[float] = field(default_factory=list)
    """The losses of the steps since the last validation."""
    told: Told | None = None
    """The loss of the last step, where it is not among `losses` yet. A checkpoint does not have it."""


def built(options: Options, device: torch.device) -> Run:
    """Return a run before its first step.

    Raises InputError where it cannot start from `network.start`, and for a stage that trains nothing."""
    network = store.create(options.network.name, **options.network.options).to(device)
    if options.kernels and device.type == "cuda":
        _put_channels_last(network)
    _start_at_zero(network, options.network)
    for name in (name for stage in options.stages for name in stage.trains):
        if not any(parameter.startswith(name) for parameter, _ in network.named_parameters()):
            first = next(name for name, _ in network.named_parameters())
            raise InputError(f"option stages: trains names {name!r}, and no parameter starts so; there is {first!r}")
    if options.network.start is not None:
        network.load_state_dict(_started(options.network.start, options.network).state_dict())
    settings = options.optimiser
    average = AveragedModel(network, use_buffers=True)
    optimiser = optimisers.made(settings, network.parameters())
    # With a scale of 1 it leaves out steps whose gradient is not finite, and the host need not ask.
    half = options.precision == "float16"
    scale, growth, less = (2.0**16, 2000, 0.5) if half else (1.0, _NEVER, _SAME)
    scaler = torch.amp.GradScaler(device.type, init_scale=scale, growth_interval=growth, backoff_factor=less)
    return Run(network, average, optimiser, scaler)


def _start_at_zero(network: nn.Module, settings: Network) -> None:
    """Set the parameters of `settings.zero` to zero. Warns of an ending that none has: a recipe's network was changed,
    or it is misspelt."""
    for ending in settings.zero:
        chosen = [parameter for name, parameter in network.named_parameters() if name.endswith(ending)]
        if not chosen:
            _logger.warning("option network.zero: no parameter of %s ends with %r", settings.name, ending)
        for parameter in chosen:
            nn.init.zeros_(parameter)


def _put_channels_last(network: nn.Module) -> None:
    """Give the weights of convolutions the order of memory with the channels last. `Module.to` fails for 3-D ones."""
    orders = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in network.parameters():
        if parameter.ndim in orders:
            parameter.data = parameter.data.contiguous(memory_format=orders[parameter.ndim])


def _started(path: str, network: Network) -> nn.Module:
    trained = store.load(path)
    if trained.name != network.name:
        raise InputError(f"cannot start from {path}: it holds {trained.name}, and network.name is {network.name}")
    for key, value in store.bind(network.name, **network.options).items():
        if (its := trained.options[key]) != value:
            raise InputError(f"cannot start from {path}: its option {key} is {its!r}, and here it is {value!r}")
    return trained.network
