"""Coil sensitivities from the calibration lines by a small U-Net inside the network (Sriram 2020, section 3.2).

Axes: calibration (batch, 1, coil, y', x') k-space with its centre at (y'//2, x'//2); sens (batch, 1, coil, y, x).
"""

from __future__ import annotations

import dataclasses
from typing import Literal, cast

import torch
from torch import Tensor, nn

from mrnets.blocks.encoding import has_sets, name_of
from mrnets.blocks.unet import NormUnet
from mrnets.contract import Scan
from mrnets.errors import InputError
from mrnets.physics.coils import norm
from mrnets.physics.fourier import ifftc, resize

__all__ = ["SensitivityNet", "unit_norm", "with_sensitivities"]


class SensitivityNet(nn.Module):
    """Low-resolution coil images, each refined by one shared U-Net, divided by the root of their sum of squares.

    The maps have unit norm at every voxel, background included: there is no cut-off that could remove faint tissue.
    """

    def __init__(self, *, channels: int = 8, pooling_layers: int = 4) -> None:
        super().__init__()
        self.unet = NormUnet(channels=channels, pooling_layers=pooling_layers)

    def forward(self, calibration: Tensor, shape: tuple[int, int]) -> Tensor:
        """Calibration k-space (batch, 1, coil, y', x') to maps (batch, 1, coil, *shape), complex."""
        return unit_norm(self._each(ifftc(resize(calibration, shape))))

    def refined(self, sens: Tensor) -> Tensor:
        """Maps (batch, 1, coil, y, x) corrected by what the U-Net makes of each. Their norm over coils stays."""
        size = norm(sens)[:, :, None]
        return unit_norm(sens + self._each(sens)) * size

    def _each(self, images: Tensor) -> Tensor:
        """The U-Net of each of the images (batch, 1, coil, y, x)."""
        made: Tensor = self.unet(images.reshape(-1, 1, *images.shape[-2:])).reshape(images.shape)
        return made


def unit_norm(maps: Tensor) -> Tensor:
    """Maps (..., coil, y, x) divided by the root of the sum of squares over coils; zeros stay zeros."""
    power = torch.sum(maps.real**2 + maps.imag**2, dim=-3, keepdim=True)
    return maps * torch.rsqrt(power + torch.finfo(power.dtype).tiny)


def with_sensitivities(
    network: nn.Module,
    *,
    sens_net: bool = False,
    sens_from: Literal["calibration", "maps"] = "calibration",
    sens_channels: int = 8,
    sens_pooling_layers: int = 4,
) -> nn.Module:
    """`network`; with `sens_net` it takes the sensitivities that a `SensitivityNet` of its own makes.

    Both are then trained together. sens_from: what the maps are made of. "calibration": calibration lines; a scan
    without them is refused with an InputError. "maps": the maps of the scan, estimated or given, which are refined.
    sens_channels, sens_pooling_layers: width and depth of the small U-Net.
    """
    if sens_net:
        network.sens_net = SensitivityNet(channels=sens_channels, pooling_layers=sens_pooling_layers)
        network.register_forward_pre_hook(_estimated if sens_from == "calibration" else _refined)
    return network


def _estimated(network: nn.Module, inputs: tuple[Scan]) -> tuple[Scan]:
    (scan,) = inputs
    if scan.calibration is None or scan.kspace is None:
        raise InputError(
            f"{name_of(network)} with its own sensitivity network needs calibration lines, and the scan has none"
        )
    sens = cast(nn.Module, network.sens_net)(scan.calibration, tuple(scan.kspace.shape[-2:]))
    return (dataclasses.replace(scan, sens=sens),)


def _refined(network: nn.Module, inputs: tuple[Scan]) -> tuple[Scan]:
    (scan,) = inputs
    if scan.sens is None or has_sets(scan.sens):
        have = "none" if scan.sens is None else f"{scan.sens.shape[1]} sets of them"
        raise InputError(f"{name_of(network)} refines one set of coil sensitivities, and the scan has {have}")
    return (dataclasses.replace(scan, sens=cast(SensitivityNet, network.sens_net).refined(scan.sens)),)
