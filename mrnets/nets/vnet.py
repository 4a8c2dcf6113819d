"""V-Net, in the plane, with batch normalisation and ELU."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mrnets.blocks.checks import number, whole
from mrnets.blocks.contrasts import contrast_images
from mrnets.blocks.padding import padded
from mrnets.contract import Estimate, Scan
from mrnets.errors import InputError
from mrnets.traits import Traits

__all__ = ["VNet"]

TRAITS = Traits(
    task="segmentation",
    title="V-Net, in the plane, with batch normalisation and ELU",
    paper="Milletari et al., 3DV 2016",
    takes="image",
    sens="unused",
    small={"channels": 4, "pooling_layers": 3},
    narrow={"channels": 8, "pooling_layers": 3, "dropout": 0.0},
    aliases={
        "segmentation_module_input_channels": "contrasts",
        "segmentation_module_output_channels": "classes",
        "segmentation_module_channels": "channels",
        "segmentation_module_pooling_layers": "pooling_layers",
        "segmentation_module_dropout": "dropout",
    },
    fixed={"segmentation_module": "VNet", "segmentation_module_activation": "elu"},
)


class VNet(nn.Module):
    """Logits of `classes` classes from magnitude images of `contrasts` contrasts; every stage learns a residual.

    Each of `pooling_layers` levels halves the resolution and doubles the width by a strided convolution 2x2. On the way
    down a stage has 1, 2, 3, 3, ... convolutions 5x5, by level, and 2 at the bottom. On the way up it has 1 on the two
    finest levels and 2 below.

    dropout: share of whole channels that is dropped, from the skips and from what enters the two lowest stages of each
    way.
    Raises InputError where the scan has no such image.
    """

    def __init__(
        self,
        *,
        contrasts: int = 4,
        classes: int = 4,
        channels: int = 16,
        pooling_layers: int = 5,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.contrasts = whole("contrasts", contrasts, 1, 64)
        whole("classes", classes, 1, 256)
        self.levels = whole("pooling_layers", pooling_layers, 1, 8)
        if whole("channels", channels, 1, 256) < contrasts:
            raise InputError(f"channels {channels} must be at least the number of contrasts, {contrasts}")
        number("dropout", dropout, 0.0, 1.0)
        self.top = _Conv(contrasts, channels)
        self.downs = nn.ModuleList()
        self.ups = nn.ModuleList()
        for level in range(1, pooling_layers + 1):
            width = channels * 2**level
            lowest = level > pooling_layers - 2
            convolutions = 2 if level == pooling_layers else min(level, 3)
            self.downs.append(_Down(width, convolutions, dropout if lowest else 0.0))
            # The stage below gives the bottom's own width, or twice the width of a finer level after a skip.
            below = width if level == pooling_layers else 2 * width
            self.ups.insert(0, _Up(below, width, 1 if level <= 2 else 2, dropout if lowest else 0.0, dropout))
        self.mix = _Conv(2 * channels, classes)
        self.head = nn.Conv2d(classes, classes, 1)

    def forward(self, scan: Scan) -> Estimate:
        """logits (batch, class, y, x) float32."""
        image = contrast_images(scan, self, self.contrasts)
        x, plane = padded(image, self.levels)
        width = self.top.conv.out_channels
        repeated = x.repeat(1, math.ceil(width / self.contrasts), 1, 1)[:, :width]
        skips = [functional.elu(self.top(x) + repeated)]
        for down in self.downs:
            skips.append(down(skips[-1]))
        x = skips.pop()
        for up in self.ups:
            x = up(x, skips.pop())
        return Estimate(logits=self.head(functional.elu(self.mix(x)))[plane])


class _Conv(nn.Module):
    """Convolution 5x5 and batch normalisation."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 5, padding=2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        return out


class _Down(nn.Module):
    def __init__(self, width: int, convolutions: int, dropout: float) -> None:
        super().__init__()
        self.down = nn.Conv2d(width // 2, width, 2, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.convs = nn.ModuleList(_Conv(width, width) for _ in range(convolutions))
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        x = functional.elu(self.norm(self.down(x)))
        return _residual(self.convs, functional.dropout2d(x, self.dropout, self.training), x)


class _Up(nn.Module):
    def __init__(self, below: int, width: int, convolutions: int, dropout: float, skip_dropout: float) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(below, width // 2, 2, stride=2)
        self.norm = nn.BatchNorm2d(width // 2)
        self.convs = nn.ModuleList(_Conv(width, width) for _ in range(convolutions))
        self.dropout, self.skip_dropout = dropout, skip_dropout

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = functional.dropout2d(x, self.dropout, self.training)
        skip = functional.dropout2d(skip, self.skip_dropout, self.training)
        joint = torch.cat((functional.elu(self.norm(self.up(x))), skip), dim=1)
        return _residual(self.convs, joint, joint)


def _residual(convs: nn.ModuleList, x: Tensor, identity: Tensor) -> Tensor:
    for conv in convs:
        x = functional.elu(conv(x))
    return functional.elu(x + identity)
