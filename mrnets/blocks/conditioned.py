"""A residual U-Net without normalisation that is told its conditions. Axes: (batch, channel, y, x), real.

Without normalisation a small structure beside a large one keeps its size, and the background of an image changes
nothing. The design is that of DRUNet (Zhang et al., IEEE TPAMI 2022). The conditions, such as the noise level, scale
and shift the features of every block (FiLM: Perez et al., AAAI 2018).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mrnets.blocks import fused
from mrnets.blocks.checks import whole
from mrnets.blocks.order import channels_last
from mrnets.blocks.padding import padded

__all__ = ["SMALL", "ConditionedUnet"]

SMALL = 1e-3
"""Standard deviation of weights that begin at nearly nothing."""


class ConditionedUnet(nn.Module):
    """U-Net from (batch, in_channels, y, x) and conditions (batch, conditions) to (batch, out_channels, y, x).

    Its result is nearly zero before training. Widths double at each of `pooling_layers` levels. Every level
    has `blocks` residual blocks on the way down and as many on the way up.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, channels: int, pooling_layers: int, blocks: int, conditions: int
    ) -> None:
        super().__init__()
        whole("channels", channels, 1, 1024)
        self.levels = whole("pooling_layers", pooling_layers, 0, 8)
        whole("blocks", blocks, 1, 16)
        widths = [channels * 2**level for level in range(pooling_layers + 1)]
        self.first = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.down = nn.ModuleList(_Level(width, blocks, conditions) for width in widths)
        self.pool = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_Level(width, blocks, conditions) for width in widths[:-1])
        self.last = nn.Conv2d(channels, out_channels, 3, padding=1)
        nn.init.normal_(self.last.weight, std=SMALL)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, conditions: Tensor) -> Tensor:
        x, plane = padded(x, self.levels)
        if x.device.type == "cuda":
            x = channels_last(x)
        x = self.first(x)
        skips = []
        for level, pool in zip(self.down, self.pool, strict=False):
            x = level(x, conditions)
            skips.append(x)
            x = pool(x)
        x = self.down[-1](x, conditions)
        for level, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            x = level(grow(x) + skips.pop(), conditions)
        out: Tensor = self.last(x)[plane]
        return out


class _Level(nn.Module):
    def __init__(self, width: int, blocks: int, conditions: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(width, conditions) for _ in range(blocks))

    def forward(self, x: Tensor, conditions: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, conditions)
        return x


class _Block(nn.Module):
    """x + conv(act(film(conv(x)))); the scale of FiLM is about 1 and its shift about 0 before training."""

    def __init__(self, width: int, conditions: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.film = nn.Linear(conditions, 2 * width)
        nn.init.normal_(self.film.weight, std=SMALL)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, conditions: Tensor) -> Tensor:
        film = self.film(conditions)
        if fused.can(x):
            return self._fused(x, film)
        scale, shift = film[..., None, None].chunk(2, dim=1)
        out: Tensor = x + self.conv2(functional.relu(torch.addcmul(shift, self.conv1(x), 1 + scale)))
        return out

    def _fused(self, x: Tensor, film: Tensor) -> Tensor:
        """The same with the biases in the passes that follow the convolutions."""
        one, two = self.conv1, self.conv2
        assert one.bias is not None
        assert two.bias is not None
        inner = fused.filmed(functional.conv2d(x, one.weight, padding=1), one.bias, film)
        return fused.added(functional.conv2d(inner, two.weight, padding=1), two.bias, x)
