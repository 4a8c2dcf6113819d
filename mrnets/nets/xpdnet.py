"""XPDNet, primal network with a wavelet CNN."""

from __future__ import annotations

import torch
from torch import nn

from mrnets.blocks.checks import whole
from mrnets.blocks.complex import to_channels, to_complex
from mrnets.blocks.encoding import encoded
from mrnets.blocks.wavelet import MWCNN
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["XPDNet"]

TRAITS = Traits(
    task="reconstruction",
    title="XPDNet, primal network with a wavelet CNN",
    paper="Ramzi et al., ISMRM 2021",
    small={"num_primal": 2, "cascades": 2, "channels": 2, "scales": 2, "convs": 1},
    narrow={"cascades": 4, "channels": 8},
    aliases={
        "num_iter": "cascades",
        "num_scales": "scales",
        "num_convs": "convs",
        "mwcnn_hidden_channels": "channels",
        "mwcnn_num_scales": "scales",
    },
    fixed={"num_dual": 1, "use_primal_only": True, "image_model_architecture": "MWCNN", "mwcnn_batchnorm": False},
)


class XPDNet(nn.Module):
    """Cascades of f <- f + MWCNN(f, E^H (E f1 - y)) on a memory f of `num_primal` images, of which f1 is the image.

    Primal only, as published: the k-space step is the residual of the data and has no network, nor another dual memory.
    Every cascade has an MWCNN of its own, of `scales` wavelet scales; see `MWCNN`. Widths double from scale to scale,
    as in the authors' code (github.com/zaccharieramzi/fastmri-reproducible-benchmark). That has 32 channels, with 2
    convolutions at full size and 2 or 3 at the others.
    Raises InputError where the scan lacks k-space, mask or sensitivities.
    """

    def __init__(
        self,
        *,
        num_primal: int = 5,
        cascades: int = 10,
        channels: int = 16,
        scales: int = 3,
        convs: int = 2,
    ) -> None:
        super().__init__()
        self.num_primal = whole("num_primal", num_primal, 1, 64)
        whole("cascades", cascades, 1, 64)
        self.image_nets = nn.ModuleList(
            MWCNN(2 * (num_primal + 1), 2 * num_primal, channels=channels, scales=scales, convs=convs)
            for _ in range(cascades)
        )

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        encoding = encoded(scan, self)
        start = encoding.start
        plane = (-1, 1, *start.shape[-2:])
        f = start.reshape(plane).repeat(1, self.num_primal, 1, 1)
        for net in self.image_nets:
            gradient = encoding.gradient(f[:, 0].reshape(start.shape)).reshape(plane)
            f = f + to_complex(net(to_channels(torch.cat((f, gradient), dim=1))))
        return encoding.estimate(f[:, 0].reshape(start.shape))
