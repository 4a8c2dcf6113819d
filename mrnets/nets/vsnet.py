"""Variable splitting network."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from mrnets.blocks.checks import whole
from mrnets.blocks.complex import to_channels, to_complex
from mrnets.blocks.consistency import combined
from mrnets.blocks.encoding import encoded
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["VSNet"]

TRAITS = Traits(
    task="reconstruction",
    title="variable splitting network",
    paper="Duan et al., MICCAI 2019",
    small={"num_cascades": 2, "hidden_channels": 4, "n_convs": 2},
    narrow={"num_cascades": 5, "hidden_channels": 32},
)


class VSNet(nn.Module):
    """Cascades of three blocks with weights of their own, all on the combined image (the paper's fig. 1):

    denoiser u = x + CNN(x); data consistency z = S^H F^-1 of the coils' k-space F S x, drawn to the measured samples
    by a learned weight; weighted average x <- average * u + (1 - average) * z.

    The CNN has `n_convs` convolutions 3x3 in all, with ReLU between; the authors' code (github.com/j-duan/VS-Net) has
    5, and otherwise these blocks.
    Raises InputError where the scan lacks k-space, mask or what the sensitivities need.
    """

    def __init__(
        self,
        *,
        num_cascades: int = 10,
        hidden_channels: int = 64,
        n_convs: int = 4,
    ) -> None:
        super().__init__()
        whole("num_cascades", num_cascades, 1, 64)
        whole("hidden_channels", hidden_channels, 1, 1024)
        whole("n_convs", n_convs, 1, 64)
        widths = [2, *[hidden_channels] * (n_convs - 1), 2]
        self.denoisers = nn.ModuleList(_denoiser(widths) for _ in range(num_cascades))
        self.dc_weight = nn.Parameter(torch.full((num_cascades,), 0.9))
        self.average = nn.Parameter(torch.full((num_cascades,), 0.1))

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        encoding = encoded(scan, self)
        x = encoding.start
        for denoiser, weight, average in zip(self.denoisers, self.dc_weight, self.average, strict=True):
            change = to_complex(denoiser(to_channels(x.reshape(-1, 1, *x.shape[-2:])))).reshape(x.shape)
            consistent = combined(x, encoding, weight)
            x = average * (x + change) + (1 - average) * consistent
        return encoding.estimate(x)


def _denoiser(widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, o in pairwise(widths):
        layers += [nn.Conv2d(i, o, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
