"""Recurrent variational network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mrnets.blocks import remade
from mrnets.blocks.checks import whole
from mrnets.blocks.complex import to_channels, to_complex
from mrnets.blocks.consistency import cascaded
from mrnets.blocks.encoding import encoded
from mrnets.blocks.recurrent import State, replicating_conv
from mrnets.blocks.taps import by_taps
from mrnets.contract import Estimate, Scan
from mrnets.errors import InputError
from mrnets.physics.fourier import fftc
from mrnets.traits import Traits

__all__ = ["RVN", "recurrent_steps"]

TRAITS = Traits(
    task="reconstruction",
    title="recurrent variational network",
    paper="Yiasemis et al., CVPR 2022",
    steps=1,
    small={
        "channels": 4,
        "cascades": 2,
        "initializer_channels": (2, 4),
        "initializer_dilations": (1, 2),
    },
    narrow={"cascades": 4, "channels": 32, "initializer_channels": (16, 16, 32, 32)},
    aliases={"num_steps": "cascades", "recurrent_hidden_channels": "channels", "recurrent_num_layers": "layers"},
    fixed={
        "in_channels": 2,
        "no_parameter_sharing": True,
        "initializer_initialization": "sense",
        "initializer_multiscale": 1,
    },
)


class RVN(nn.Module):
    """Steps k <- k - rate M (k - y) + E G(E^H k). Each has a recurrent network G, whose state goes on to the next.

    cascades: number of steps. channels, layers: width and number of the recurrent units.
    learned_initializer: the first state comes from the k-space of the combined zero-filled image by dilated
    convolutions, rather than being zero.
    Raises InputError where the scan lacks k-space, mask or sensitivities.
    """

    def __init__(
        self,
        *,
        cascades: int = 8,
        channels: int = 64,
        layers: int = 4,
        learned_initializer: bool = True,
        initializer_channels: tuple[int, ...] = (32, 32, 64, 64),
        initializer_dilations: tuple[int, ...] = (1, 1, 2, 4),
    ) -> None:
        super().__init__()
        whole("cascades", cascades, 1, 128)
        hidden = whole("channels", channels, 1, 1024)
        layers = whole("layers", layers, 1, 32)
        self.initializer = (
            _Initializer(initializer_channels, initializer_dilations, hidden, layers) if learned_initializer else None
        )
        self.blocks = nn.ModuleList(_ConvGRU(hidden, layers) for _ in range(cascades))
        self.learning_rate = nn.Parameter(torch.ones(cascades))

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64; in training, steps: the image after every step but the last."""
        encoding = encoded(scan, self)
        steps = recurrent_steps(self.blocks, self.initializer, fftc(encoding.start))
        images = cascaded(encoding, steps, self.learning_rate)
        return encoding.estimate(*images, steps=self.training)


def recurrent_steps(
    blocks: Iterable[nn.Module], initializer: nn.Module | None, kspace: Tensor
) -> Iterator[Callable[[Tensor], Tensor]]:
    """The corrections -G of all steps, complex (batch, 1, y, x) to the same; the state goes on from one to the next.

    kspace: of the zero-filled image (batch, echo, y, x), from which `initializer` makes the first state.
    """
    state: State | None = None
    if initializer is not None:
        state = initializer(to_channels(kspace.reshape(-1, 1, *kspace.shape[-2:])))

    def step(block: nn.Module) -> Callable[[Tensor], Tensor]:
        def change(x: Tensor) -> Tensor:
            nonlocal state
            out, state = block(to_channels(x), state)
            return -to_complex(out)

        return change

    return map(step, blocks)


class _ConvGRU(nn.Module):
    """Convolutions 5x5 and 3x3 (the second one dilated), each but the last followed by ReLU, a gated unit and ReLU."""

    def __init__(self, hidden: int, layers: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            replicating_conv(hidden if n else 2, hidden if n < layers else 2, 3 if n else 5, 2 if n == 1 else 1)
            for n in range(layers + 1)
        )
        self.reset = nn.ModuleList(_gate(hidden, bias=-1.0) for _ in range(layers))
        self.update = nn.ModuleList(_gate(hidden) for _ in range(layers))
        self.out = nn.ModuleList(_gate(hidden) for _ in range(layers))

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        new: State = []
        *convs, last = self.convs
        for n, (conv, *gates) in enumerate(zip(convs, self.reset, self.update, self.out, strict=True)):
            before = None if state is None else state[n]
            x = remade.through(conv, new[-1], made=remade.RECTIFIED) if new else remade.through(conv, x)
            new.append(_gated(torch.relu_(x), before, *cast("list[nn.Conv2d]", gates)))
        return by_taps(last, torch.relu(new[-1])), new


def _gated(x: Tensor, before: Tensor | None, reset: nn.Conv2d, update: nn.Conv2d, out: nn.Conv2d) -> Tensor:
    """The new state from (x, state before), both (batch, hidden, y, x); before None: zeros.

    The gates' convolutions 1x1 are done in parts, so that nothing is concatenated, nor kept twice for the gradient.
    """
    width = x.shape[1]
    weights = [gate.weight for gate in (reset, update, out)]
    biases = torch.cat([gate.bias for gate in (reset, update, out) if gate.bias is not None])
    parts = functional.conv2d(x, torch.cat([weight[:, :width] for weight in weights]), biases)
    opened, candidate = parts.split((2 * width, width), dim=1)
    if before is None:
        return torch.tanh(candidate) * torch.sigmoid(opened[:, width:])
    more = functional.conv2d(before, torch.cat([weight[:, width:] for weight in weights[:2]]))
    resets, updates = torch.sigmoid_(more.add_(opened)).chunk(2, dim=1)
    inner = remade.convolved((before, resets), weights[2][:, width:], made=remade.PRODUCT)
    return torch.lerp(before, torch.tanh_(inner.add_(candidate)), updates)


def _gate(hidden: int, bias: float = 0.0) -> nn.Conv2d:
    gate = nn.Conv2d(2 * hidden, hidden, 1)
    nn.init.orthogonal_(gate.weight)
    nn.init.constant_(gate.bias, bias)  # type: ignore[arg-type]
    return gate


class _Initializer(nn.Module):
    def __init__(self, channels: Sequence[int], dilations: Sequence[int], hidden: int, layers: int) -> None:
        super().__init__()
        if not 1 <= len(channels) == len(dilations) <= 32:
            raise InputError(
                "initializer_channels and initializer_dilations must have one length from 1 to 32, "
                f"not {len(channels)} and {len(dilations)}"
            )
        for width, dilation in zip(channels, dilations, strict=True):
            whole("initializer_channels", width, 1, 1024)
            whole("initializer_dilations", dilation, 1, 64)
        inputs = (2, *channels[:-1])
        self.convs = nn.ModuleList(
            replicating_conv(i, o, 3, d) for i, o, d in zip(inputs, channels, dilations, strict=True)
        )
        self.heads = nn.ModuleList(nn.Conv2d(channels[-1], hidden, 1) for _ in range(layers))

    def forward(self, x: Tensor) -> State:
        for conv in self.convs:
            x = torch.relu_(remade.through(conv, x))
        return [torch.relu(head(x)) for head in self.heads]
