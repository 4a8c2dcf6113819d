"""Deep cascade of convolutional networks."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from mrnets.blocks.checks import whole
from mrnets.blocks.consistency import cascaded
from mrnets.blocks.encoding import encoded
from mrnets.blocks.stack import ConvStack
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["CCNN"]

TRAITS = Traits(
    task="reconstruction",
    title="deep cascade of convolutional networks",
    paper="Schlemper et al., IEEE TMI 2018",
    small={"cascades": 2, "channels": 4, "convs": 3},
    narrow={"cascades": 5, "channels": 32},
    aliases={"num_cascades": "cascades", "hidden_channels": "channels", "n_convs": "convs"},
    fixed={"batchnorm": False, "no_dc": False},
)


class CCNN(nn.Module):
    """Cascades of a step towards the data and the correction of a CNN, in the k-space of all coils:

    k <- k - w M (k - y) - E CNN(E^H k), from k = y.

    Each cascade has a scalar w and a CNN of its own. The CNN has `convs` convolutions 3x3 with parametric ReLU between;
    one slope serves the whole network.
    Raises InputError where the scan lacks k-space, mask or sensitivities.
    """

    def __init__(
        self,
        *,
        cascades: int = 10,
        channels: int = 64,
        convs: int = 5,
    ) -> None:
        super().__init__()
        whole("cascades", cascades, 1, 64)
        whole("channels", channels, 1, 1024)
        whole("convs", convs, 2, 64)
        self.stacks = nn.ModuleList(ConvStack(channels, convs) for _ in range(cascades))
        self.slope = nn.Parameter(torch.full((1,), 0.25))
        self.dc_weight = nn.Parameter(torch.ones(cascades))

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        encoding = encoded(scan, self)
        denoisers = [partial(stack, slope=self.slope) for stack in self.stacks]
        return encoding.estimate(cascaded(encoding, denoisers, self.dc_weight)[-1])
