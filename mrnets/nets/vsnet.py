"""Variable splitting network."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from mrnets.blocks.checks import whole
from mrnets.blocks.complex import on_channels
from mrnets.blocks.consistency import combined
from mrnets.blocks.encoding import encoded
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["VSNet"]

TRAITS = Traits(
    task="reconstruction",
    title="variable splitting network",
    paper="Duan et al., MICCAI 2019",
    small={"cascades": 2, "channels": 4, "convs": 2},
    narrow={"cascades": 5, "channels": 32},
    aliases={
        "num_cascades": "cascades",
        "hidden_channels": "channels",
        "n_convs": "convs",
        "imspace_conv_hidden_channels": "channels",
        "imspace_conv_n_convs": "convs",
    },
    fixed={"imspace_model_architecture": "CONV", "imspace_conv_batchnorm": False},
)


class VSNet(nn.Module):
    """Cascades of three blocks with weights of their own, all on the combined image (the paper's fig. 1):

    - denoiser: u = x + CNN(x);
    - data consistency: z = S^H F^-1 of the coils' k-space F S x, drawn to the measured samples by a learned weight;
    - weighted average: x <- average * u + (1 - average) * z.

    The CNN has `convs` convolutions 3x3 in all, with ReLU between. The authors' code (github.com/j-duan/VS-Net) has 5,
    and otherwise these blocks.
    Raises InputError where the scan lacks k-space, mask or sensitivities.
    """

    def __init__(
        self,
        *,
        cascades: int = 10,
        channels: int = 64,
        convs: int = 4,
    ) -> None:
        super().__init__()
        whole("cascades", cascades, 1, 64)
        whole("channels", channels, 1, 1024)
        whole("convs", convs, 1, 64)
        widths = [2, *[channels] * (convs - 1), 2]
        self.denoisers = nn.ModuleList(_denoiser(widths) for _ in range(cascades))
        self.dc_weight = nn.Parameter(torch.full((cascades,), 0.9))
        self.average = nn.Parameter(torch.full((cascades,), 0.1))

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        encoding = encoded(scan, self)
        x = encoding.start
        for denoiser, weight, average in zip(self.denoisers, self.dc_weight, self.average, strict=True):
            change = on_channels(denoiser, x)
            consistent = combined(x, encoding, weight)
            x = average * (x + change) + (1 - average) * consistent
        return encoding.estimate(x)


def _denoiser(widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, o in pairwise(widths):
        layers += [nn.Conv2d(i, o, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
