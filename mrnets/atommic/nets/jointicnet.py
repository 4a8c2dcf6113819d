"""Joint image and coil sensitivity network as ATOMMIC 1.0.1 computes it."""

from __future__ import annotations

from typing import get_args

import torch
from torch import nn

from mrnets.atommic.forms import padded
from mrnets.atommic.kspace import Data, Start, Transform, components, inverse, sampled, transformed
from mrnets.atommic.sensitivity import estimated_maps
from mrnets.blocks.checks import one_of, whole
from mrnets.blocks.complex import on_planes
from mrnets.blocks.unet import NormUnet
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["JointICNet"]

TRAITS = Traits(
    task="reconstruction",
    title="joint image and coil sensitivity network",
    paper="Jun et al., CVPR 2021",
    differs="its sensitivities stay as they are at the start, because their residual is zero wherever it is taken",
    sens="optional",
    small={"channels": 4},
    aliases={
        "num_iter": "iterations",
        "kspace_unet_num_filters": "channels",
        "kspace_unet_num_pool_layers": "pooling_layers",
        "kspace_unet_padding_size": "padding",
        "imspace_unet_num_filters": "channels",
        "imspace_unet_num_pool_layers": "pooling_layers",
        "imspace_unet_padding_size": "padding",
        "sens_unet_num_filters": "channels",
        "sens_unet_num_pool_layers": "pooling_layers",
        "sens_unet_padding_size": "padding",
    },
    fixed={
        "kspace_unet_dropout_probability": 0.0,
        "kspace_unet_normalize": True,
        "imspace_unet_dropout_probability": 0.0,
        "imspace_unet_normalize": True,
        "sens_unet_dropout_probability": 0.0,
        "sens_unet_normalize": True,
    },
)


class JointICNet(nn.Module):
    """Unrolled gradient descent for the image x, on |M E x - y|^2 + a |x - D_I(x)|^2 + b |F x - D_F(F x)|^2.

    A U-Net makes the maps of E once: of the given ones, or of the zero-filled coil images where the scan has none.
    ATOMMIC's update of the maps leaves them as they are: it draws them to themselves. Its data term is taken where
    nothing was sampled, and is zero. All iterations share the U-Nets; steps, a and b are their own.
    start: the first image; from "rss_components" only magnitudes are given back, since its phase has no meaning.
    Raises InputError where the scan lacks k-space or mask.
    """

    name = "atommic.jointicnet"

    def __init__(
        self,
        *,
        iterations: int = 2,
        channels: int = 16,
        pooling_layers: int = 2,
        padding: int | None = 11,
        start: Start = "sense",
        transform: Transform = "centred",
    ) -> None:
        super().__init__()
        whole("iterations", iterations, 1, 64)
        one_of("start", start, get_args(Start))
        one_of("transform", transform, get_args(Transform))
        self.start: Start = start
        self.transform: Transform = transform
        shape = {"channels": channels, "pooling_layers": pooling_layers}
        self.image_net, self.kspace_net, self.map_net = (padded(NormUnet(**shape), padding=padding) for _ in range(3))
        self.image_step, self.image_weight, self.kspace_weight = (
            nn.Parameter(torch.ones(iterations)) for _ in range(3)
        )

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        kspace, mask = sampled(scan, self, self.transform)
        coil_images = inverse(kspace, self.transform)
        maps = estimated_maps(self.map_net, coil_images[:, :1] if scan.sens is None else scan.sens)
        data = Data(kspace, mask, maps, self.transform)
        x = data.reduce(kspace) if self.start == "sense" else components(coil_images)
        for step, image_weight, kspace_weight in zip(
            self.image_step, self.image_weight, self.kspace_weight, strict=True
        ):
            from_kspace = inverse(on_planes(self.kspace_net, transformed(x, self.transform)), self.transform)
            regularised = image_weight * (x - on_planes(self.image_net, x)) + kspace_weight * (x - from_kspace)
            x = x - 2 * step * (regularised + data.reduce(mask * data.expand(x) - kspace))
        return Estimate(image=x)
