"""KIKI-net as ATOMMIC 1.0.1 computes it."""

from __future__ import annotations

from typing import get_args

import torch
from torch import nn

from mrnets.atommic.forms import padded
from mrnets.atommic.kspace import Transform, seen
from mrnets.blocks.checks import one_of, whole
from mrnets.blocks.complex import on_planes
from mrnets.blocks.unet import NormUnet
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["KIKINet"]

TRAITS = Traits(
    task="reconstruction",
    title="KIKI-net, alternating between k-space and image",
    paper="Eo et al., MRM 2018",
    differs="its iterations share one set of weights, and its data consistency uses the k-space of another step",
    small={"channels": 4},
    aliases={
        "num_iter": "cascades",
        "kspace_unet_num_filters": "channels",
        "kspace_unet_num_pool_layers": "pooling_layers",
        "kspace_unet_padding_size": "padding",
        "imspace_unet_num_filters": "channels",
        "imspace_unet_num_pool_layers": "pooling_layers",
        "imspace_unet_padding_size": "padding",
    },
    fixed={
        "kspace_model_architecture": "UNET",
        "kspace_unet_dropout_probability": 0.0,
        "kspace_unet_normalize": True,
        "imspace_model_architecture": "UNET",
        "imspace_unet_dropout_probability": 0.0,
        "imspace_unet_normalize": True,
        "no_dc": False,
    },
)


class KIKINet(nn.Module):
    """Cascades of x <- E^H (K(k) - w M (k - y) - E I(E^H K(k))) and k <- E x, from k = y, E without the mask.

    K is a U-Net on the k-space of each coil, I one on the image. All cascades have the same weights.
    Raises InputError where the scan lacks k-space, mask or sensitivities.
    """

    name = "atommic.kikinet"

    def __init__(
        self,
        *,
        cascades: int = 2,
        channels: int = 16,
        pooling_layers: int = 2,
        padding: int | None = 11,
        transform: Transform = "centred",
    ) -> None:
        super().__init__()
        self.cascades = whole("cascades", cascades, 1, 64)
        one_of("transform", transform, get_args(Transform))
        self.transform: Transform = transform
        shape = {"channels": channels, "pooling_layers": pooling_layers}
        self.kspace_net, self.image_net = (padded(NormUnet(**shape), padding=padding) for _ in range(2))
        self.dc_weight = nn.Parameter(torch.ones(1))

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        data = seen(scan, self, self.transform)
        kspace, image = data.kspace, data.reduce(data.kspace)
        for cascade in range(self.cascades):
            kspace = data.expand(image) if cascade else kspace
            change = self.dc_weight * data.mask * (kspace - data.kspace)
            kspace = on_planes(self.kspace_net, kspace)
            denoised = on_planes(self.image_net, data.reduce(kspace))
            image = data.reduce(kspace - change - data.expand(denoised))
        return Estimate(image=image)
