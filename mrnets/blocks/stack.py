"""A plain stack of convolutions on complex planes, with one parametric slope that its owner holds."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from mrnets.blocks.complex import to_channels, to_complex
from mrnets.blocks.taps import by_taps

__all__ = ["ConvStack"]


class ConvStack(nn.Module):
    """`convs` convolutions 3x3 with parametric ReLU between, `channels` wide inside."""

    def __init__(self, channels: int, convs: int) -> None:
        super().__init__()
        widths = [2, *[channels] * (convs - 1), 2]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(widths))

    def forward(self, x: Tensor, slope: Tensor) -> Tensor:
        """Complex (n, 1, y, x) to complex (n, 1, y, x). slope: (1,), of the parametric ReLU."""
        *hidden, last = self.convs
        features = to_channels(x)
        for conv in hidden:
            features = functional.prelu(conv(features), slope)
        return to_complex(by_taps(last, features))
