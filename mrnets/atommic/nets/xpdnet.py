"""XPDNet as ATOMMIC 1.0.1 computes it, with the published number of wavelet scales: none."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from mrnets.atommic.channels import interleaved, paired
from mrnets.atommic.kspace import seen
from mrnets.blocks.checks import whole
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["XPDNet"]

TRAITS = Traits(
    task="reconstruction",
    title="XPDNet, primal network with a wavelet CNN",
    paper="Ramzi et al., ISMRM 2021",
    differs="without wavelet scales, as published, its wavelet network is the identity and one convolution is left",
    small={"num_primal": 2, "cascades": 2},
    aliases={"num_iter": "cascades"},
    fixed={
        "num_dual": 1,
        "use_primal_only": True,
        "image_model_architecture": "MWCNN",
        "mwcnn_num_scales": 0,
    },
)


class XPDNet(nn.Module):
    """Cascades of r <- r - M E f1 and f <- C(f, E^H M r), with one convolution 3x3 C of its own each.

    f is a memory of `num_primal` images, of which f1 is the image. All are E^H y at first, and r is y. Sides of odd
    length are extended by reflection.
    Raises InputError where the scan lacks k-space, mask or sensitivities.
    """

    name = "atommic.xpdnet"

    def __init__(self, *, num_primal: int = 5, cascades: int = 10) -> None:
        super().__init__()
        self.num_primal = whole("num_primal", num_primal, 1, 64)
        widths = 2 * (num_primal + 1), 2 * num_primal
        self.convs = nn.ModuleList(nn.Conv2d(*widths, 3, padding=1) for _ in range(whole("cascades", cascades, 1, 64)))

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        data = seen(scan, self, "centred")
        residual, start = data.kspace, data.reduce(data.kspace)
        height, width = start.shape[-2:]
        f = start.reshape(-1, 1, height, width).repeat(1, self.num_primal, 1, 1)
        for conv in self.convs:
            residual = residual - data.mask * data.expand(f[:, 0].reshape(start.shape))
            decoded = data.reduce(data.mask * residual).reshape(-1, 1, height, width)
            channels = interleaved(torch.cat((f, decoded), dim=1))
            channels = functional.pad(channels, (0, width % 2, 0, height % 2), mode="reflect")
            f = paired(conv(channels)[..., :height, :width])
        return Estimate(image=f[:, 0].reshape(start.shape))
