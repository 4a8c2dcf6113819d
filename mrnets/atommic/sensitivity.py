"""Coil sensitivities by ATOMMIC's own U-Net, which it trained together with many of its networks.

It sees the coil images of a few rows, or columns, in the middle of k-space. Its maps are divided by the root of the sum
of their magnitudes over coils, not of their squares. Their norm is therefore not 1.

Axes: kspace (batch, echo, coil, y, x); sens (batch, 1, coil, y, x).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from mrnets.atommic.kspace import Transform, inverse, sampled
from mrnets.blocks.checks import one_of, whole
from mrnets.blocks.complex import on_planes
from mrnets.blocks.encoding import name_of
from mrnets.blocks.sensitivity import with_sensitivities
from mrnets.blocks.unet import NormUnet
from mrnets.contract import Scan
from mrnets.errors import InputError

__all__ = ["Region", "estimated_maps", "with_maps"]

Region = Literal["calibration", "rows", "columns", "all"]
"""The part of k-space that the sensitivity network sees. "calibration": the calibration lines, as ours does."""


class _Maps(nn.Module):
    """The U-Net, under the name that `blocks.sensitivity.SensitivityNet` gives it."""

    def __init__(self, channels: int, pooling_layers: int, padding: int | None) -> None:
        super().__init__()
        self.unet = NormUnet(channels=channels, pooling_layers=pooling_layers)
        self.unet.unet.padding_bits = None if padding is None else whole("sens_padding", padding, 0, 1023)


def with_maps(
    network: nn.Module,
    *,
    sens_net: bool = False,
    sens_channels: int = 8,
    sens_pooling_layers: int = 4,
    sens_region: Region = "calibration",
    sens_padding: int | None = None,
    transform: Transform = "centred",
) -> nn.Module:
    """`network`; with `sens_net` it takes the sensitivities that a network of its own estimates.

    sens_region: "calibration", by `blocks.sensitivity.SensitivityNet`. Otherwise by ATOMMIC's, and of that part of
    k-space. Its width is that of the block of samples around the middle of the first row of the mask, at least 1.
    sens_padding: see `mrnets.blocks.padding.padded`. transform: the order of k-space in which rows are counted.
    """
    one_of("sens_region", sens_region, get_args(Region))
    if not sens_net or sens_region == "calibration":
        return with_sensitivities(
            network, sens_net=sens_net, sens_channels=sens_channels, sens_pooling_layers=sens_pooling_layers
        )
    network.sens_net = _Maps(sens_channels, sens_pooling_layers, sens_padding)

    def estimated(module: nn.Module, inputs: tuple[Scan]) -> tuple[Scan]:
        (scan,) = inputs
        kspace, mask = sampled(scan, module, transform)
        kspace = kspace[:, :1] * _region(mask, sens_region, name_of(module))
        images = inverse(kspace, transform)
        unet = cast(Callable[[Tensor], Tensor], cast(nn.Module, module.sens_net).unet)
        return (dataclasses.replace(scan, sens=estimated_maps(unet, images)),)

    network.register_forward_pre_hook(estimated)
    return network


def estimated_maps(unet: Callable[[Tensor], Tensor], coil_images: Tensor) -> Tensor:
    """The maps that `unet` makes of `coil_images` (batch, 1, coil, y, x), one coil at a time."""
    maps = on_planes(unet, coil_images)
    return maps / torch.sqrt(maps.abs().sum(dim=-3, keepdim=True))


def _region(mask: Tensor, region: Region, name: str) -> Tensor:
    """Where the network sees k-space: (batch or 1, 1, 1, y, x) bool. Raises InputError, naming `name`, for nowhere."""
    if region == "all":
        return torch.ones_like(mask)
    height, width = mask.shape[-2:]
    first = mask[..., 0, :].to(torch.int8)
    half = width // 2
    # Samples in a row from the middle to either side; 0 where all are there, since argmin then finds the first.
    left, right = first[..., :half].flip(-1).argmin(-1), first[..., half:].argmin(-1)
    number = (2 * torch.minimum(left, right)).clamp(min=1)[..., None, None]
    start = (width - number + 1) // 2
    lines = torch.arange(height if region == "rows" else width, device=mask.device)
    lines = lines[:, None] if region == "rows" else lines
    inside = ((lines >= start) & (lines < start + number)).expand(mask.shape)
    if not bool(inside.flatten(1).any(dim=1).all()):
        raise InputError(
            f"{name}: its sensitivity network sees rows from half the number of columns on, and a matrix of {height} x "
            f"{width} has none there"
        )
    return inside
