"""Learned primal-dual network."""

from __future__ import annotations

import torch
from torch import nn

from mrnets.blocks.checks import whole
from mrnets.blocks.complex import to_channels, to_complex
from mrnets.blocks.correction import CorrectionUnet
from mrnets.blocks.encoding import encoded
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["LPDNet"]

TRAITS = Traits(
    task="reconstruction",
    title="learned primal-dual network",
    paper="Adler and Öktem, IEEE TMI 2018",
    small={"num_primal": 2, "num_dual": 2, "cascades": 2, "channels": 4},
    narrow={"cascades": 3},
    aliases={
        "num_iter": "cascades",
        "primal_unet_num_filters": "channels",
        "primal_unet_num_pool_layers": "pooling_layers",
        "dual_unet_num_filters": "channels",
        "dual_unet_num_pool_layers": "pooling_layers",
    },
    fixed={
        "primal_model_architecture": "UNET",
        "dual_model_architecture": "UNET",
        "primal_unet_dropout_probability": 0.0,
        "primal_unet_normalize": True,
        "dual_unet_dropout_probability": 0.0,
        "dual_unet_normalize": True,
    },
)


class LPDNet(nn.Module):
    """Cascades of a dual network in the k-space of each coil and a primal network in the image:

    h <- h + dual(h, E f2, y), f <- f + primal(f, E^H h1).

    f is a memory of `num_primal` images and h of `num_dual` k-spaces. Every cascade has a primal and a dual network of
    its own (the paper's algorithm 3). h starts at zero, each f at E^H y; f1 is the image. f2 is the second image of the
    memory, or its only one.
    Raises InputError where the scan lacks k-space, mask or sensitivities.
    """

    def __init__(
        self,
        *,
        num_primal: int = 5,
        num_dual: int = 5,
        cascades: int = 5,
        channels: int = 16,
        pooling_layers: int = 2,
    ) -> None:
        super().__init__()
        self.num_primal = whole("num_primal", num_primal, 1, 64)
        self.num_dual = whole("num_dual", num_dual, 1, 64)
        whole("cascades", cascades, 1, 64)
        shape = {"channels": channels, "pooling_layers": pooling_layers}
        self.dual_nets = nn.ModuleList(
            CorrectionUnet(2 * (num_dual + 2), 2 * num_dual, **shape) for _ in range(cascades)
        )
        self.primal_nets = nn.ModuleList(
            CorrectionUnet(2 * (num_primal + 1), 2 * num_primal, **shape) for _ in range(cascades)
        )

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        encoding = encoded(scan, self)
        kspace, start = encoding.kspace, encoding.start
        plane = (-1, 1, *start.shape[-2:])
        data = (kspace * encoding.mask).reshape(plane)
        f = start.reshape(plane).repeat(1, self.num_primal, 1, 1)
        h = torch.zeros_like(data).repeat(1, self.num_dual, 1, 1)
        second = min(1, self.num_primal - 1)
        for dual, primal in zip(self.dual_nets, self.primal_nets, strict=True):
            predicted = encoding.forward(f[:, second].reshape(start.shape)).reshape(plane)
            h = h + to_complex(dual(to_channels(torch.cat((h, predicted, data), dim=1))))
            decoded = encoding.adjoint(h[:, 0].reshape(kspace.shape)).reshape(plane)
            f = f + to_complex(primal(to_channels(torch.cat((f, decoded), dim=1))))
        return encoding.estimate(f[:, 0].reshape(start.shape))
