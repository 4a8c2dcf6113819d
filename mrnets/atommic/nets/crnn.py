"""CRNN as ATOMMIC 1.0.1 computes it."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor, nn

from mrnets.atommic.forms import root_of_squares
from mrnets.atommic.kspace import Combination
from mrnets.blocks.checks import one_of, whole
from mrnets.blocks.complex import on_channels
from mrnets.blocks.consistency import cascaded
from mrnets.blocks.encoding import encoded
from mrnets.blocks.recurrent import replicating_conv
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["CRNN"]

TRAITS = Traits(
    task="reconstruction",
    title="convolutional recurrent network over iterations",
    paper="Qin et al., IEEE TMI 2019",
    differs="its hidden state is always zero, so that nothing recurs, and its network cannot give negative values",
    small={"iterations": 3, "channels": 4, "hidden_layers": 1},
    aliases={"num_iterations": "iterations", "hidden_channels": "channels", "n_convs": "hidden_layers"},
    fixed={"batchnorm": False, "no_dc": False},
)


class CRNN(nn.Module):
    """Iterations of k <- k - w M (k - y) - E (x + C(x)) with x = E^H k, from k = y, all with the same weights.

    C is a gated recurrent unit whose state is zero, `hidden_layers` convolutions and a last one, all with ReLU.
    Raises InputError where the scan lacks k-space, mask or sensitivities.
    """

    name = "atommic.crnn"

    def __init__(
        self, *, iterations: int = 10, channels: int = 64, hidden_layers: int = 3, combination: Combination = "sense"
    ) -> None:
        super().__init__()
        self.iterations = whole("iterations", iterations, 1, 64)
        whole("channels", channels, 1, 1024)
        whole("hidden_layers", hidden_layers, 0, 64)
        self.combination = one_of("combination", combination, get_args(Combination))
        # Its first third is the reset gate's, which acts on the state alone.
        self.input = nn.Conv2d(2, 3 * channels, 3, padding=1, bias=False)
        widths = [channels] * hidden_layers + [2]
        self.convs = nn.ModuleList(replicating_conv(channels, width, 3, bias=False) for width in widths)
        self.dc_weight = nn.Parameter(torch.ones(1))

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        encoding = encoded(scan, self)
        cascades = cascaded if self.combination == "sense" else root_of_squares
        denoisers = [lambda x: x + on_channels(self._features, x)] * self.iterations
        return encoding.estimate(cascades(encoding, denoisers, self.dc_weight.expand(self.iterations))[-1])

    def _features(self, x: Tensor) -> Tensor:
        _, update, new = self.input(x).chunk(3, dim=1)
        x = (1 - torch.sigmoid(update)) * torch.tanh(new)
        for conv in self.convs:
            x = torch.relu(conv(x))
        return x
