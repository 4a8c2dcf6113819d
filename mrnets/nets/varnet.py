"""Reconstruction: end-to-end variational network (Sriram et al., MICCAI 2020)."""

from __future__ import annotations

from typing import get_args

import torch
from torch import nn

from mrnets.blocks.checks import number, one_of, whole
from mrnets.blocks.consistency import Combination, cascaded, initial_image, measured, solved
from mrnets.blocks.sensitivity import SensitivityNet, sensitivities
from mrnets.blocks.unet import NormUnet
from mrnets.contract import Estimate, Scan
from mrnets.physics.fourier import ifftc

__all__ = ["VarNet"]


class VarNet(nn.Module):
    """Cascades of k <- k - w M (k - y) - E D(E^H k), with k = y at the start, a scalar w and a U-Net D for each.

    combination: of the coils in the end, see `Combination`.
    With `sens_net` the coil sensitivities come from the calibration lines by a small U-Net, trained jointly.

    start_iterations: of conjugate-gradient SENSE (with `start_regularisation`), whose k-space stands where nothing was
    measured at the start; 0, as published: zeros. A few cascades cannot unfold what gradient steps unfold slowly, as
    regular undersampling with few coils.

    padding: see `NormUnet`. Raises InputError where the scan lacks k-space, mask or what the sensitivities need.
    """

    def __init__(
        self,
        *,
        num_cascades: int = 8,
        channels: int = 18,
        pooling_layers: int = 4,
        padding: int | None = None,
        start_iterations: int = 0,
        start_regularisation: float = 0.01,
        combination: Combination = "sense",
        sens_net: bool = False,
        sens_channels: int = 8,
        sens_pooling_layers: int = 4,
    ) -> None:
        super().__init__()
        one_of("combination", combination, get_args(Combination))
        self.combination = combination
        whole("num_cascades", num_cascades, 1, 64)
        self.start_iterations = whole("start_iterations", start_iterations, 0, 1000)
        self.start_regularisation = number("start_regularisation", start_regularisation, 0.0, 1e6)
        self.unets = nn.ModuleList(
            NormUnet(channels=channels, pooling_layers=pooling_layers, padding=padding) for _ in range(num_cascades)
        )
        self.dc_weight = nn.Parameter(torch.ones(num_cascades))
        self.sens_net = SensitivityNet(channels=sens_channels, pooling_layers=sens_pooling_layers) if sens_net else None

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        kspace, mask = measured(scan, "varnet")
        sens = sensitivities(scan, self.sens_net, "varnet")
        start = initial_image(kspace, mask, sens)
        guess = None
        if self.start_iterations:
            guess = solved(start, sens, mask, self.start_regularisation, iterations=self.start_iterations)
        coils = ifftc(kspace * mask) if self.combination == "rss" else None
        return Estimate(image=cascaded(start, sens, mask, self.unets, self.dc_weight, guess, coils)[-1])
