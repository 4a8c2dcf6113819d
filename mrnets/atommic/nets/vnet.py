"""V-Net as ATOMMIC 1.0.1 computes it: of one size, and with an even number of channels at its input."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from torch.nn import functional

from mrnets.blocks.checks import whole
from mrnets.blocks.contrasts import contrast_images
from mrnets.blocks.padding import padded
from mrnets.contract import Estimate, Scan
from mrnets.errors import InputError
from mrnets.nets.vnet import VNet as Published
from mrnets.traits import Traits

__all__ = ["VNet"]

TRAITS = Traits(
    task="segmentation",
    title="V-Net, in the plane, with batch normalisation and ELU",
    paper="Milletari et al., 3DV 2016",
    differs="it has 16 channels and 4 levels whatever its settings say",
    takes="image",
    sens="unused",
    small={},
    aliases={
        "segmentation_module_input_channels": "contrasts",
        "segmentation_module_output_channels": "classes",
        "segmentation_module_dropout": "dropout",
        "segmentation_module_padding_size": "padding",
    },
    fixed={
        "segmentation_module": "VNet",
        "segmentation_module_activation": "elu",
        "segmentation_module_bias": False,
    },
)

WIDTH, LEVELS = 16, 4


class VNet(nn.Module):
    """Logits of `classes` classes from magnitude images of `contrasts` contrasts, by the V-Net of `mrnets.nets.vnet`.

    An odd number of contrasts above 1 gets a channel of zeros. padding: see `mrnets.blocks.padding.padded`.
    Raises InputError where the scan has no such image.
    """

    name = "atommic.vnet"

    def __init__(self, *, contrasts: int = 4, classes: int = 4, dropout: float = 0.0, padding: int | None = 15) -> None:
        super().__init__()
        self.contrasts = whole("contrasts", contrasts, 1, WIDTH)
        inputs = contrasts + (contrasts > 1) * contrasts % 2
        if WIDTH % inputs:
            raise InputError(f"atommic.vnet takes a number of contrasts that divides {WIDTH}, or 3, not {contrasts}")
        self.padding = padding if padding is None else whole("padding", padding, 0, 1023)
        self.net = Published(contrasts=inputs, classes=classes, channels=WIDTH, pooling_layers=LEVELS, dropout=dropout)

    def forward(self, scan: Scan) -> Estimate:
        """logits (batch, class, y, x) float32."""
        image = contrast_images(scan, self, self.contrasts)
        empty = self.net.contrasts - self.contrasts
        image, plane = padded(functional.pad(image, (0, 0, 0, 0, 0, empty)), LEVELS, self.padding)
        estimate: Estimate = self.net(Scan(image=image))
        assert isinstance(estimate.logits, torch.Tensor)
        return dataclasses.replace(estimate, logits=estimate.logits[plane])
