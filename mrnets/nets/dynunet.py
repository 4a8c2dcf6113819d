"""The U-Net of nnU-Net, strided and deeply supervised."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mrnets.blocks.checks import whole
from mrnets.blocks.contrasts import contrast_images
from mrnets.blocks.padding import padded
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["DynUNet"]

TRAITS = Traits(
    task="segmentation",
    title="the U-Net of nnU-Net, strided and deeply supervised",
    paper="Isensee et al., Nature Methods 2021",
    takes="image",
    sens="unused",
    steps=2,
    small={"channels": 2, "pooling_layers": 3},
    narrow={"channels": 8, "pooling_layers": 3},
    aliases={
        "segmentation_module_input_channels": "contrasts",
        "segmentation_module_output_channels": "classes",
        "segmentation_module_deep_supervision_levels": "deep_supervision",
    },
    fixed={
        "segmentation_module": "DYNUNet",
        "segmentation_module_deep_supervision": True,
        "segmentation_module_norm": "instance",
        "segmentation_module_activation": "leakyrelu",
    },
)

_SLOPE = 0.01
_WIDEST = 512
"""Widths double per level up to this one (two dimensions)."""


class DynUNet(nn.Module):
    """Logits of `classes` classes from magnitude images of `contrasts` contrasts.

    Each of `pooling_layers` levels halves the resolution by a strided convolution. In training the `deep_supervision`
    levels below the finest give logits too, by heads of their own. These are the estimate's `steps`, coarsest first;
    each voxel is repeated to full size. Raises InputError where the scan has no such image.
    """

    def __init__(
        self,
        *,
        contrasts: int = 4,
        classes: int = 4,
        channels: int = 32,
        pooling_layers: int = 5,
        deep_supervision: int = 2,
    ) -> None:
        super().__init__()
        self.contrasts = whole("contrasts", contrasts, 1, 64)
        whole("classes", classes, 1, 256)
        whole("channels", channels, 1, _WIDEST)
        self.levels = whole("pooling_layers", pooling_layers, 1, 8)
        whole("deep_supervision", deep_supervision, 0, pooling_layers - 1)
        widths = [min(channels * 2**level, _WIDEST) for level in range(pooling_layers + 1)]
        self.top = _Stage(contrasts, channels, stride=1)
        self.downs = nn.ModuleList(_Stage(fine, coarse, stride=2) for fine, coarse in pairwise(widths))
        self.ups = nn.ModuleList(_Up(coarse, fine) for coarse, fine in pairwise(reversed(widths)))
        self.heads = nn.ModuleList(nn.Conv2d(width, classes, 1) for width in reversed(widths[: deep_supervision + 1]))
        self.apply(_initialise)

    def forward(self, scan: Scan) -> Estimate:
        """logits (batch, class, y, x) float32; in training, steps likewise."""
        image = contrast_images(scan, self, self.contrasts)
        x, plane = padded(image, self.levels)
        full = x.shape[-2:]
        skips = [self.top(x)]
        for down in self.downs:
            skips.append(down(skips[-1]))
        x = skips.pop()
        levels = []
        for up in self.ups:
            x = up(x, skips.pop())
            levels.append(x)
        heads = self.heads if self.training else self.heads[-1:]
        supervised = zip(heads, levels[-len(heads) :], strict=True)
        *steps, logits = (functional.interpolate(head(level), size=full)[plane] for head, level in supervised)
        return Estimate(logits=logits, steps=tuple(Estimate(logits=step) for step in steps))


class _Stage(nn.Module):
    """Twice: convolution 3x3, the first with `stride`, instance normalisation with weights, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.InstanceNorm2d(out_channels, affine=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.InstanceNorm2d(out_channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.leaky_relu(self.norm1(self.conv1(x)), _SLOPE)
        return functional.leaky_relu(self.norm2(self.conv2(x)), _SLOPE)


class _Up(nn.Module):
    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(coarse, fine, 2, stride=2, bias=False)
        self.stage = _Stage(2 * fine, fine, stride=1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        out: Tensor = self.stage(torch.cat((self.up(x), skip), dim=1))
        return out


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, a=_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
