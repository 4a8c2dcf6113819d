"""Reconstruction: end-to-end variational network (Sriram et al., MICCAI 2020)."""

from __future__ import annotations

import torch
from torch import nn

from mrnets.blocks.checks import whole
from mrnets.blocks.consistency import initial_image, measured, normal
from mrnets.blocks.sensitivity import SensitivityNet, sensitivities
from mrnets.blocks.unet import NormUnet
from mrnets.contract import Estimate, Scan

__all__ = ["VarNet"]


class VarNet(nn.Module):
    """Cascades of k <- k - w M (k - y) - E D(E^H k), with k = y at the start, a scalar w and a U-Net D for each.

    With `sens_net` the coil sensitivities come from the calibration lines by a small U-Net, trained jointly.

    padding: see `NormUnet`. Raises InputError where the scan lacks k-space, mask or what the sensitivities need.
    """

    def __init__(
        self,
        *,
        num_cascades: int = 8,
        channels: int = 18,
        pooling_layers: int = 4,
        padding: int | None = None,
        sens_net: bool = False,
        sens_channels: int = 8,
        sens_pooling_layers: int = 4,
    ) -> None:
        super().__init__()
        whole("num_cascades", num_cascades, 1, 64)
        self.unets = nn.ModuleList(
            NormUnet(channels=channels, pooling_layers=pooling_layers, padding=padding) for _ in range(num_cascades)
        )
        self.dc_weight = nn.Parameter(torch.ones(num_cascades))
        self.sens_net = SensitivityNet(channels=sens_channels, pooling_layers=sens_pooling_layers) if sens_net else None

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64.

        The k-space of all coils is never formed. With k = y - M F S b - (1 - M) F S a, the cascade's update is
        a <- a + D(x), b <- (1 - w) b + D(x), and x = E^H k = E^H y - S^H S a - E^H E (b - a): two images instead of
        the coils' k-space, in exact arithmetic the same.
        """
        kspace, mask = measured(scan, "varnet")
        sens = sensitivities(scan, self.sens_net, "varnet")
        start = initial_image(kspace, mask, sens)
        power = torch.sum(sens.real**2 + sens.imag**2, dim=-3)
        plane = (-1, 1, *start.shape[-2:])
        x = start
        free = held = torch.zeros_like(start)
        for unet, weight in zip(self.unets, self.dc_weight, strict=True):
            correction = unet(x.reshape(plane)).reshape(start.shape)
            free = free + correction
            held = (1 - weight) * held + correction
            x = start - power * free - normal(held - free, sens, mask)
        return Estimate(image=x)
