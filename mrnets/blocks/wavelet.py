"""The orthonormal Haar wavelet transform of a plane, and the multi-level wavelet CNN built on it (Liu et al., 2018).

Axes: (batch, channel, y, x), real.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from mrnets.blocks.checks import whole
from mrnets.blocks.padding import padded

__all__ = ["MWCNN", "haar", "inverse_haar"]


def haar(x: Tensor) -> Tensor:
    """Bands (batch, 4 channel, y/2, x/2) of (batch, channel, y, x) of even y and x; orthonormal.

    They are all means, then the differences along y, along x, along both. The transform keeps the norm, and
    `inverse_haar` is its adjoint and its inverse.
    """
    top, bottom = x[..., 0::2, :], x[..., 1::2, :]
    low, high = top + bottom, top - bottom
    bands = [f(part[..., 0::2], part[..., 1::2]) for f in (torch.add, torch.sub) for part in (low, high)]
    return torch.cat(bands, dim=-3) / 2


def inverse_haar(bands: Tensor) -> Tensor:
    """(batch, 4 channel, y, x) to (batch, channel, 2 y, 2 x); inverse of `haar`."""
    mean, across, along, both = bands.chunk(4, dim=-3)
    low = torch.stack((mean + along, mean - along), dim=-1).flatten(-2)
    high = torch.stack((across + both, across - both), dim=-1).flatten(-2)
    return torch.stack((low + high, low - high), dim=-2).flatten(-3, -2) / 2


class MWCNN(nn.Module):
    """A U-shaped network whose pooling is the Haar transform, so that nothing is lost on the way down.

    At full size `convs` convolutions of `channels`, at scale s = 1 .. scales of channels * 2^s, on the way down
    and again on the way up; features of equal scale are added. Every convolution is 3x3, without bias and with ReLU.
    The last has a bias and no ReLU, so that the result has either sign. Any plane size.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, channels: int = 16, scales: int = 3, convs: int = 2
    ) -> None:
        super().__init__()
        whole("channels", channels, 1, 1024)
        whole("scales", scales, 1, 8)
        whole("convs", convs, 1, 16)
        widths = [channels * 2**scale for scale in range(scales + 1)]
        wavelet = [4 * width for width in widths[:-1]]
        self.down = nn.ModuleList(
            _convs([i, *[w] * convs]) for i, w in zip([in_channels, *wavelet], widths, strict=True)
        )
        self.up = nn.ModuleList(_convs([*[w] * convs, o]) for w, o in zip(widths[1:], wavelet, strict=True))
        self.last = nn.Sequential(_convs([channels] * convs), nn.Conv2d(channels, out_channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x, plane = padded(x, len(self.up))
        x = self.down[0](x)
        skips = [x]
        for block in self.down[1:]:
            x = block(haar(x))
            skips.append(x)
        skips.pop()
        for block, skip in zip(reversed(self.up), reversed(skips), strict=True):
            x = inverse_haar(block(x)) + skip
        out: Tensor = self.last(x)[plane]
        return out


def _convs(widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, o in pairwise(widths):
        layers += [nn.Conv2d(i, o, 3, padding=1, bias=False), nn.ReLU()]
    return nn.Sequential(*layers)
