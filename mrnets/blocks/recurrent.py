"""The recurrent inference machine (Putzky and Welling 2017; Lønning et al. 2019) and its recurrent units.

Axes: (batch, channel, y, x); image (batch, echo, y, x). A state is a list of one tensor for each recurrent unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mrnets.blocks.checks import one_of, whole
from mrnets.blocks.complex import to_channels, to_complex
from mrnets.blocks.encoding import Encoding
from mrnets.blocks.remade import through
from mrnets.blocks.taps import by_taps
from mrnets.errors import InputError

__all__ = ["ConvGRU", "IndRNN", "Rim", "RimLayers", "State", "infer", "inferred", "replicating_conv"]

State = list[Tensor]


class ConvGRU(nn.Module):
    """Gated recurrent unit (Cho et al. 2014) of convolutions: h <- (1 - z) n + z h."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.input = nn.Conv2d(in_channels, 3 * channels, 1)
        self.hidden = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        nn.init.orthogonal_(self.input.weight)
        nn.init.orthogonal_(self.hidden.weight)
        nn.init.zeros_(self.input.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, hidden: Tensor | None) -> Tensor:
        reset, update, new = self.input(x).chunk(3, dim=1)
        if hidden is None:
            return (1 - torch.sigmoid(update)) * torch.tanh(new)
        reset_hidden, update_hidden, new_hidden = self.hidden(hidden).chunk(3, dim=1)
        new = torch.tanh(new + torch.sigmoid(reset + reset_hidden) * new_hidden)
        return new + torch.sigmoid(update + update_hidden) * (hidden - new)


class IndRNN(nn.Module):
    """Independently recurrent unit (Li et al. 2018): h <- ReLU(W x + u h), u a number for each channel."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.input = nn.Conv2d(in_channels, channels, 1)
        self.hidden = nn.Parameter(torch.empty(1, channels, 1, 1))
        for weight in (self.input.weight, self.hidden):
            nn.init.normal_(weight, std=1 / (2 * channels))
        nn.init.zeros_(self.input.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, hidden: Tensor | None) -> Tensor:
        x = self.input(x)
        return torch.relu_(x if hidden is None else torch.addcmul(x, self.hidden, hidden))


_UNITS: dict[str, type[ConvGRU] | type[IndRNN]] = {"GRU": ConvGRU, "IndRNN": IndRNN}


def replicating_conv(i: int, o: int, kernel: int, dilation: int = 1, *, bias: bool = True) -> nn.Conv2d:
    """Convolution that keeps the size of the plane and repeats its edge."""
    padding = dilation * (kernel - 1) // 2
    return nn.Conv2d(i, o, kernel, dilation=dilation, padding=padding, padding_mode="replicate", bias=bias)


@dataclass(frozen=True)
class RimLayers:
    """The layers of an inference machine: convolutions, and recurrent units after all but the last of them."""

    unit: Literal["GRU", "IndRNN"]
    filters: Sequence[int]
    """Channels that each convolution gives."""
    kernels: Sequence[int]
    dilations: Sequence[int]
    recurrent_filters: Sequence[int]
    """Channels that each unit gives, one fewer."""


class Rim(nn.Module):
    """The network of one inference machine: convolution, ReLU and recurrent unit in turn; last a linear convolution.

    channels: of the result; there are twice as many at the input, which is an estimate and its gradient.
    Raises InputError where the layers do not fit together.
    """

    def __init__(self, channels: int, layers: RimLayers) -> None:
        super().__init__()
        _check(layers, channels)
        unit, filters, recurrent_filters = layers.unit, layers.filters, layers.recurrent_filters
        inputs = (2 * channels, *recurrent_filters)
        *self_convs, self.last = (
            replicating_conv(i, o, k, d, bias=n < len(recurrent_filters))
            for n, (i, o, k, d) in enumerate(zip(inputs, filters, layers.kernels, layers.dilations, strict=True))
        )
        self.convs = nn.ModuleList(self_convs)
        self.units = nn.ModuleList(_UNITS[unit](i, o) for i, o in zip(filters, recurrent_filters, strict=False))
        for conv in (*self_convs, self.last):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Features (batch, 2 * channels, y, x) to the result (batch, channels, y, x) and the new state.

        state: the last step's; None before the first.
        """
        before: Sequence[Tensor | None] = state or [None] * len(self.units)
        new: State = []
        for conv, unit, hidden in zip(self.convs, self.units, before, strict=True):
            x = unit(torch.relu_(through(conv, x)), hidden)
            new.append(x)
        return by_taps(self.last, x), new


def _check(layers: RimLayers, channels: int) -> None:
    """Raise InputError where the layers do not fit together, or do not end with `channels`."""
    filters, kernels = layers.filters, layers.kernels
    dilations, recurrent_filters = layers.dilations, layers.recurrent_filters
    one_of("recurrent_layer", layers.unit, tuple(_UNITS))
    if tuple(filters[-1:]) != (channels,):
        raise InputError(f"conv_filters must end with {channels}, the channels of the result, not {filters}")
    if not len(filters) == len(kernels) == len(dilations) == len(recurrent_filters) + 1 <= 8:
        raise InputError(
            "conv_filters, conv_kernels and conv_dilations must have one length, at most 8, and recurrent_filters "
            f"one less, not {len(filters)}, {len(kernels)}, {len(dilations)} and {len(recurrent_filters)}"
        )
    for width in (*filters, *recurrent_filters):
        whole("conv_filters and recurrent_filters", width, 1, 1024)
    for kernel, dilation in zip(kernels, dilations, strict=True):
        whole("conv_kernels", kernel, 1, 31)
        whole("conv_dilations", dilation, 1, 31)
        if kernel % 2 == 0:
            raise InputError(f"conv_kernels must be odd, not {kernel}")


def infer(
    machine: nn.Module, time_steps: int, x: Tensor, encoding: Encoding, state: State | None
) -> tuple[list[Tensor], State]:
    """The images of all steps of one machine, x <- x + Rim(x, E^H (E x - k)), and the last state."""
    images = []
    for _ in range(time_steps):
        pair = [to_channels(part.reshape(-1, 1, *x.shape[-2:])) for part in (x, encoding.gradient(x))]
        change, state = machine(torch.cat(pair, dim=1), state)
        x = x + to_complex(change).reshape(x.shape)
        images.append(x)
    return images, state or []


def inferred(machines: Iterable[nn.Module], time_steps: int, x: Tensor, encoding: Encoding) -> list[Tensor]:
    """The images of all steps of a cascade of machines, from `x`; state and image go on from machine to machine."""
    images = [x]
    state: State | None = None
    for machine in machines:
        more, state = infer(machine, time_steps, images[-1], encoding, state)
        images += more
    return images[1:]
