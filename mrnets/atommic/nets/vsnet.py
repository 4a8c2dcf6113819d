"""VS-Net as ATOMMIC 1.0.1 computes it."""

from __future__ import annotations

from functools import partial
from typing import get_args

import torch
from torch import nn

from mrnets.atommic.kspace import Combination, Transform, seen
from mrnets.blocks.checks import one_of, whole
from mrnets.blocks.complex import on_planes
from mrnets.blocks.stack import ConvStack
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["VSNet"]

TRAITS = Traits(
    task="reconstruction",
    title="variable splitting network",
    paper="Duan et al., MICCAI 2019",
    differs="it adds images to k-space, does not impose the measured data, and its cascades share their weights",
    small={"cascades": 2, "channels": 4, "convs": 2},
    aliases={
        "num_cascades": "cascades",
        "imspace_conv_hidden_channels": "channels",
        "imspace_conv_n_convs": "convs",
    },
    fixed={"imspace_model_architecture": "CONV", "imspace_conv_batchnorm": False},
)


class VSNet(nn.Module):
    """Cascades of k <- a (k + p) + (1 - a) z, from k = y, all with the same weights, on the k-space k of all coils.

    p = E C(E^H k) without the mask. z = E^H (w k where sampled, w p elsewhere) is an image: its pixels are added to the
    samples of the same places. So `transform` matters. The published weight a is 1 before training.
    Raises InputError where the scan lacks k-space, mask or sensitivities.
    """

    name = "atommic.vsnet"

    def __init__(
        self,
        *,
        cascades: int = 10,
        channels: int = 64,
        convs: int = 4,
        combination: Combination = "sense",
        transform: Transform = "centred",
    ) -> None:
        super().__init__()
        self.cascades = whole("cascades", cascades, 1, 64)
        whole("channels", channels, 1, 1024)
        self.stack = ConvStack(channels, whole("convs", convs, 1, 64))
        one_of("combination", combination, get_args(Combination))
        one_of("transform", transform, get_args(Transform))
        self.combination: Combination = combination
        self.transform: Transform = transform
        self.slope = nn.Parameter(torch.full((1,), 0.25))
        self.dc_weight = nn.Parameter(torch.ones(1))
        self.average = nn.Parameter(torch.ones(1))

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        data = seen(scan, self, self.transform)
        kspace = data.kspace
        for _ in range(self.cascades):
            denoised = on_planes(partial(self.stack, slope=self.slope), data.reduce(kspace))
            predicted = data.expand(denoised)
            image = data.reduce(torch.where(data.mask, kspace, predicted) * self.dc_weight)
            kspace = self.average * (kspace + predicted) + (1 - self.average) * image[:, :, None]
        return Estimate(image=data.combined(kspace, self.combination))
