"""DynUNet as ATOMMIC 1.0.1 computes it."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mrnets.blocks.checks import whole
from mrnets.blocks.contrasts import contrast_images
from mrnets.blocks.padding import padded
from mrnets.contract import Estimate, Scan
from mrnets.errors import InputError
from mrnets.traits import Traits

__all__ = ["DynUNet"]

TRAITS = Traits(
    task="segmentation",
    title="the U-Net of nnU-Net",
    paper="Isensee et al., Nature Methods 2021",
    differs="it has no strides, so that every level has the full resolution",
    takes="image",
    sens="unused",
    small={"channels": (2, 4, 6), "kernels": (3, 3, 1)},
    aliases={
        "segmentation_module_input_channels": "contrasts",
        "segmentation_module_output_channels": "classes",
        "segmentation_module_channels": "channels",
        "segmentation_module_kernel_size": "kernels",
    },
    fixed={
        "segmentation_module": "DYNUNet",
        "segmentation_module_norm": "instance",
        "segmentation_module_activation": "leakyrelu",
    },
)

_SLOPE = 0.01


class DynUNet(nn.Module):
    """Logits of `classes` classes from magnitude images of `contrasts` contrasts.

    channels, kernels: of each level, the last being the bottom; channels beyond the kernels are left out. On the way up
    a level has the kernel of the level below it.
    padding: see `mrnets.blocks.padding.padded`. Raises InputError where the scan has no such image.
    """

    name = "atommic.dynunet"

    def __init__(
        self,
        *,
        contrasts: int = 4,
        classes: int = 4,
        channels: tuple[int, ...] = (32, 64, 128, 256, 512),
        kernels: tuple[int, ...] = (3, 3, 3, 3, 1),
        padding: int | None = 11,
    ) -> None:
        super().__init__()
        self.contrasts = whole("contrasts", contrasts, 1, 64)
        whole("classes", classes, 1, 256)
        if not 3 <= len(kernels) <= len(channels) <= 8:
            raise InputError(f"there must be 3 to 8 kernels, and as many channels, not {kernels} and {channels}")
        channels = channels[: len(kernels)]
        for width, kernel in zip(channels, kernels, strict=True):
            whole("channels", width, 1, 1024)
            if whole("kernels", kernel, 1, 31) % 2 == 0:
                raise InputError(f"kernels must be odd, not {kernels}")
        self.padding = padding if padding is None else whole("padding", padding, 0, 1023)
        stages = zip(pairwise((contrasts, *channels)), kernels, strict=True)
        self.top, *downs, self.bottom = (_Stage(i, o, kernel) for (i, o), kernel in stages)
        self.downs = nn.ModuleList(downs)
        coarse_to_fine = zip(pairwise(reversed(channels)), reversed(kernels[1:]), strict=True)
        self.ups = nn.ModuleList(_Up(coarse, fine, kernel) for (coarse, fine), kernel in coarse_to_fine)
        self.head = nn.Conv2d(channels[0], classes, 1)

    def forward(self, scan: Scan) -> Estimate:
        """logits (batch, class, y, x) float32."""
        x, plane = padded(contrast_images(scan, self, self.contrasts), 0, self.padding)
        skips = [self.top(x)]
        for down in self.downs:
            skips.append(down(skips[-1]))
        x = self.bottom(skips[-1])
        for up in self.ups:
            x = up(x, skips.pop())
        return Estimate(logits=self.head(x)[plane])


class _Stage(nn.Module):
    """Twice: convolution, instance normalisation without weights, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.conv1, self.conv2):
            x = functional.leaky_relu(functional.instance_norm(conv(x)), _SLOPE)
        return x


class _Up(nn.Module):
    def __init__(self, coarse: int, fine: int, kernel: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(coarse, fine, 1, bias=False)
        self.stage = _Stage(2 * fine, fine, kernel)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        out: Tensor = self.stage(torch.cat((self.up(x), skip), dim=1))
        return out
