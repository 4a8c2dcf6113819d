"""Deep cascade of convolutional networks."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from mrnets.blocks.checks import one_of, whole
from mrnets.blocks.complex import to_channels, to_complex
from mrnets.blocks.consistency import Combination, cascaded
from mrnets.blocks.encoding import encoded
from mrnets.blocks.taps import by_taps
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["CCNN"]

TRAITS = Traits(
    task="reconstruction",
    title="deep cascade of convolutional networks",
    paper="Schlemper et al., IEEE TMI 2018",
    small={"num_cascades": 2, "hidden_channels": 4, "n_convs": 3},
    narrow={"num_cascades": 5, "hidden_channels": 32},
)


class CCNN(nn.Module):
    """Cascades of k <- k - w M (k - y) - E CNN(E^H k), with k = y at the start, a scalar w and a CNN for each.

    The CNN has `n_convs` convolutions 3x3 with parametric ReLU between; one slope serves the whole network.
    combination: of the coils in the end, see `Combination`.
    Raises InputError where the scan lacks k-space, mask or what the sensitivities need.
    """

    def __init__(
        self,
        *,
        num_cascades: int = 10,
        hidden_channels: int = 64,
        n_convs: int = 5,
        combination: Combination = "sense",
    ) -> None:
        super().__init__()
        one_of("combination", combination, get_args(Combination))
        self.combination = combination
        whole("num_cascades", num_cascades, 1, 64)
        whole("hidden_channels", hidden_channels, 1, 1024)
        whole("n_convs", n_convs, 2, 64)
        widths = [2, *[hidden_channels] * (n_convs - 1), 2]
        self.stacks = nn.ModuleList(_Stack(widths) for _ in range(num_cascades))
        self.slope = nn.Parameter(torch.full((1,), 0.25))
        self.dc_weight = nn.Parameter(torch.ones(num_cascades))

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        encoding = encoded(scan, self)
        denoisers = [partial(stack, slope=self.slope) for stack in self.stacks]
        coils = encoding.coil_images() if self.combination == "rss" else None
        return encoding.estimate(cascaded(encoding, denoisers, self.dc_weight, coil_start=coils)[-1])


class _Stack(nn.Module):
    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(widths))

    def forward(self, x: Tensor, slope: Tensor) -> Tensor:
        *hidden, last = self.convs
        features = to_channels(x)
        for conv in hidden:
            features = functional.prelu(conv(features), slope)
        return to_complex(by_taps(last, features))
