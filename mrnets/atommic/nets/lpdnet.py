"""Learned primal-dual network as ATOMMIC 1.0.1 computes it."""

from __future__ import annotations

from typing import get_args

import torch
from torch import nn

from mrnets.atommic.channels import on_standardised
from mrnets.atommic.forms import padded
from mrnets.atommic.kspace import Start, Transform, components, inverse, seen
from mrnets.blocks.checks import one_of, whole
from mrnets.blocks.unet import Unet
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["LPDNet"]

TRAITS = Traits(
    task="reconstruction",
    title="learned primal-dual network",
    paper="Adler and Öktem, IEEE TMI 2018",
    differs="its iterations share one primal and one dual network, which replace the memories and do not change them",
    small={"num_primal": 2, "num_dual": 2, "cascades": 2, "channels": 4},
    aliases={
        "num_iter": "cascades",
        "primal_unet_num_filters": "channels",
        "primal_unet_num_pool_layers": "pooling_layers",
        "primal_unet_padding_size": "padding",
        "dual_unet_num_filters": "channels",
        "dual_unet_num_pool_layers": "pooling_layers",
        "dual_unet_padding_size": "padding",
    },
    fixed={
        "primal_model_architecture": "UNET",
        "primal_unet_dropout_probability": 0.0,
        "primal_unet_normalize": True,
        "dual_model_architecture": "UNET",
        "dual_unet_dropout_probability": 0.0,
        "dual_unet_normalize": True,
    },
)


class LPDNet(nn.Module):
    """Cascades of h <- dual(h, M E f2, y) in the k-space of each coil and f <- primal(f, E^H M h1) in the image.

    h begins as copies of y, f as copies of the first image. All cascades have the same two U-Nets; `on_standardised`
    says how these see their channels.
    start: of f; from "rss_components" only magnitudes are given back, since its phase has no meaning.
    Raises InputError where the scan lacks k-space, mask or sensitivities.
    """

    name = "atommic.lpdnet"

    def __init__(
        self,
        *,
        num_primal: int = 5,
        num_dual: int = 5,
        cascades: int = 5,
        channels: int = 16,
        pooling_layers: int = 2,
        padding: int | None = 11,
        start: Start = "sense",
        transform: Transform = "centred",
    ) -> None:
        super().__init__()
        self.num_primal = whole("num_primal", num_primal, 2, 64)
        self.num_dual = whole("num_dual", num_dual, 1, 64)
        self.cascades = whole("cascades", cascades, 1, 64)
        one_of("start", start, get_args(Start))
        one_of("transform", transform, get_args(Transform))
        self.start: Start = start
        self.transform: Transform = transform
        shape = {"channels": channels, "pooling_layers": pooling_layers}
        self.primal_net = padded(Unet(2 * (num_primal + 1), 2 * num_primal, **shape), padding=padding)
        self.dual_net = padded(Unet(2 * (num_dual + 2), 2 * num_dual, **shape), padding=padding)

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        data = seen(scan, self, self.transform)
        start = data.reduce(data.kspace) if self.start == "sense" else components(inverse(data.kspace, self.transform))
        plane = (-1, 1, *start.shape[-2:])
        samples = data.kspace.reshape(plane)
        f, h = start.reshape(plane).repeat(1, self.num_primal, 1, 1), samples.repeat(1, self.num_dual, 1, 1)
        for _ in range(self.cascades):
            predicted = data.mask * data.expand(f[:, 1].reshape(start.shape))
            h = on_standardised(self.dual_net, torch.cat((h, predicted.reshape(plane), samples), dim=1))
            decoded = data.reduce(data.mask * h[:, 0].reshape(data.kspace.shape))
            f = on_standardised(self.primal_net, torch.cat((f, decoded.reshape(plane)), dim=1))
        return Estimate(image=f[:, 0].reshape(start.shape))
