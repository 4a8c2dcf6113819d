"""SegNetMRI, cascades of reconstruction and segmentation that share encoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mrnets.blocks.checks import number, whole
from mrnets.blocks.coilwise import CoilConsistency, one_echo
from mrnets.blocks.complex import to_channels, to_complex
from mrnets.blocks.padding import padded
from mrnets.blocks.unet import UnetDecoder, UnetEncoder, destandardised, standardised
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["SegNet"]

TRAITS = Traits(
    task="joint",
    title="SegNetMRI, cascades of reconstruction and segmentation that share encoders",
    paper="Sun et al., MICCAI 2019",
    echoes="one",
    steps=2,
    small={"coils": 3, "channels": 4, "cascades": 2},
    narrow={"coils": 6, "channels": 16, "cascades": 3},
    aliases={
        "num_cascades": "cascades",
        "segmentation_module_output_channels": "classes",
        "num_pools": "pooling_layers",
        "drop_prob": "dropout",
    },
    fixed={
        "normalize": True,
        "norm_groups": 2,
        "segmentation_final_layer_conv_dim": 2,
        "segmentation_final_layer_kernel_size": 3,
        "segmentation_final_layer_dilation": 1,
        "segmentation_final_layer_bias": False,
        "segmentation_final_layer_nonlinear": "relu",
    },
)


class SegNet(nn.Module):
    """Cascades of x <- DC(D(E(x))) on the images of all coils from x = F^H k, each with weights of its own.

    In every cascade a second decoder turns the features of E into logits. A convolution 3x3 and a ReLU merge them into
    the final logits, which therefore are never negative. The number of coils is fixed. Let the network's Preparation
    compress to `coils` virtual coils (geometric-decomposition coil compression). Sensitivities serve only to combine
    the coils in the end.

    Raises InputError for another number of coils, and for several echoes.
    """

    def __init__(
        self,
        *,
        coils: int = 32,
        classes: int = 4,
        channels: int = 64,
        pooling_layers: int = 2,
        cascades: int = 5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.coils = whole("coils", coils, 1, 256)
        whole("classes", classes, 1, 256)
        whole("channels", channels, 1, 1024)
        whole("pooling_layers", pooling_layers, 0, 8)
        whole("cascades", cascades, 1, 64)
        number("dropout", dropout, 0.0, 1.0)
        shape: dict[str, Any] = {"channels": channels, "pooling_layers": pooling_layers, "dropout": dropout}
        self.cascades = nn.ModuleList(_Cascade(coils, classes, shape) for _ in range(cascades))
        self.merge = nn.Conv2d(cascades * classes, classes, 3, padding=1, padding_mode="replicate", bias=False)
        nn.init.kaiming_normal_(self.merge.weight, nonlinearity="relu")
        self.consistency = CoilConsistency()

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, 1, y, x) complex64, logits (batch, class, y, x) float32.

        In training, steps: the logits of every cascade.
        """
        encoding = one_echo(scan, self, self.coils)
        x = start = encoding.coil_images()[:, 0]
        steps = []
        for cascade in self.cascades:
            denoised, logits = cascade(x)
            x = self.consistency(denoised, start, encoding.mask[:, 0])
            steps.append(logits)
        logits = functional.relu(self.merge(torch.cat(steps, dim=1)))
        estimate = encoding.estimate(encoding.reduce(x[:, None]))
        supervised = tuple(Estimate(logits=step) for step in steps) if self.training else ()
        return dataclasses.replace(estimate, logits=logits, steps=supervised)


class _Cascade(nn.Module):
    padding_bits: int | None = None

    def __init__(self, coils: int, classes: int, shape: Mapping[str, Any]) -> None:
        super().__init__()
        self.levels = shape["pooling_layers"]
        self.encoder = UnetEncoder(2 * coils, **shape)
        self.decoder = UnetDecoder(2 * coils, **shape)
        self.segmentation_decoder = UnetDecoder(classes, **shape)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Coil images to denoised ones and logits (batch, class, y, x)."""
        real, mean, std = standardised(to_channels(x), 2)
        real, plane = padded(real, self.levels, self.padding_bits)
        features = self.encoder(real)
        denoised = destandardised(self.decoder(features)[plane], mean, std)
        return to_complex(denoised), self.segmentation_decoder(features)[plane]
