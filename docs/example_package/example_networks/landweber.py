"""Gradient descent on the data term, with one learnt step for each iteration."""

import torch
from torch import nn

from mrnets.blocks.checks import whole
from mrnets.blocks.encoding import encoded
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["Landweber"]

TRAITS = Traits(
    task="reconstruction",
    title="gradient descent with learnt steps",
    paper="Landweber, American Journal of Mathematics 1951",
    small={"iterations": 2},
    narrow={"iterations": 8},
)
"""The input and output of the network, as literals; see `mrnets.traits`."""


class Landweber(nn.Module):
    """x <- x - t_n E^H (E x - k), from x = E^H k."""

    def __init__(self, *, iterations: int = 10) -> None:
        super().__init__()
        whole("iterations", iterations, 1, 1000)
        self.steps = nn.Parameter(torch.ones(iterations))

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        encoding = encoded(scan, self)
        x = encoding.start
        for step in self.steps:
            x = x - step * encoding.gradient(x)
        return encoding.estimate(x)
