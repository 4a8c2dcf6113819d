"""Convolutional recurrent network over iterations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mrnets.blocks.checks import whole
from mrnets.blocks.complex import to_channels, to_complex
from mrnets.blocks.consistency import combined
from mrnets.blocks.encoding import encoded
from mrnets.blocks.taps import by_taps
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["CRNN"]

TRAITS = Traits(
    task="reconstruction",
    title="convolutional recurrent network over iterations",
    paper="Qin et al., IEEE TMI 2019",
    small={"iterations": 3, "channels": 4, "hidden_layers": 1},
    narrow={"iterations": 5, "channels": 32},
    aliases={"num_iterations": "iterations", "hidden_channels": "channels", "n_convs": "hidden_layers"},
    fixed={"batchnorm": False, "no_dc": False},
)


class _RecurrentConv(nn.Module):
    """h <- ReLU(W x + U h + b): the paper's CRNN-i unit, its hidden state h carried from iteration to iteration."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.input = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.hidden = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, hidden: Tensor | None) -> Tensor:
        x = self.input(x)
        return torch.relu(x if hidden is None else x + self.hidden(hidden))


class CRNN(nn.Module):
    """Iterations of x <- DC(x + CRNN(x)) with the same weights, whose recurrent units remember the iterations before.

    The CRNN has one recurrent unit, `hidden_layers` more and a linear convolution to the image. With 3 these are the
    five layers of the authors' code (github.com/js3611/Deep-MRI-Reconstruction). The first unit there also recurs over
    the frames of a cine. Here echoes are frames of their own. The paper's data consistency has a weight, which is 1 for
    data without noise; here it is learned and starts at 1.
    Raises InputError where the scan lacks k-space, mask or sensitivities.
    """

    def __init__(
        self,
        *,
        iterations: int = 10,
        channels: int = 64,
        hidden_layers: int = 3,
    ) -> None:
        super().__init__()
        self.iterations = whole("iterations", iterations, 1, 64)
        whole("channels", channels, 1, 1024)
        whole("hidden_layers", hidden_layers, 0, 64)
        self.units = nn.ModuleList(_RecurrentConv(channels if i else 2, channels) for i in range(hidden_layers + 1))
        self.last = nn.Conv2d(channels, 2, 3, padding=1)
        self.dc_weight = nn.Parameter(torch.ones(()))

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        encoding = encoded(scan, self)
        x = encoding.start
        states: list[Tensor | None] = [None] * len(self.units)
        for _ in range(self.iterations):
            features = to_channels(x.reshape(-1, 1, *x.shape[-2:]))
            for i, unit in enumerate(self.units):
                features = states[i] = unit(features, states[i])
            x = x + to_complex(by_taps(self.last, features)).reshape(x.shape)
            x = combined(x, encoding, self.dc_weight)
        return encoding.estimate(x)
