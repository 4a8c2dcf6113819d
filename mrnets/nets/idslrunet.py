"""Image domain structured low-rank network, then a segmentation U-Net."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn

from mrnets.blocks.checks import whole
from mrnets.blocks.coilwise import CoilConsistency, one_echo
from mrnets.blocks.complex import to_channels, to_complex
from mrnets.blocks.unet import Unet
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["IDSLRUNet"]

TRAITS = Traits(
    task="joint",
    title="image domain structured low-rank network, then a segmentation U-Net",
    paper="Pramanik and Jacob, ISBI 2021",
    echoes="one",
    small={"coils": 3, "channels": 4, "iterations": 2},
    narrow={"coils": 6, "channels": 16, "iterations": 3},
    aliases={
        "num_iters": "iterations",
        "segmentation_module_output_channels": "classes",
        "num_pools": "pooling_layers",
        "drop_prob": "dropout",
    },
    fixed={"normalize": False},
)


class IDSLRUNet(nn.Module):
    """Iterations, all with the same weights, of x <- DC(x + D(x)) on the images of all coils, from x = F^H k.

    D is a U-Net; another one turns the last x into logits. The number of coils is fixed. Let the network's Preparation
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
        iterations: int = 5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.coils = whole("coils", coils, 1, 256)
        whole("classes", classes, 1, 256)
        self.iterations = whole("iterations", iterations, 1, 64)
        shape: dict[str, Any] = {"channels": channels, "pooling_layers": pooling_layers, "dropout": dropout}
        self.reconstruction = Unet(2 * coils, 2 * coils, **shape)
        self.segmentation = Unet(2 * coils, classes, **shape)
        self.consistency = CoilConsistency()

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, 1, y, x) complex64, logits (batch, class, y, x) float32."""
        encoding = one_echo(scan, self, self.coils)
        x = start = encoding.coil_images()[:, 0]
        for _ in range(self.iterations):
            x = self.consistency(x + to_complex(self.reconstruction(to_channels(x))), start, encoding.mask[:, 0])
        logits = self.segmentation(to_channels(x))
        return dataclasses.replace(encoding.estimate(encoding.reduce(x[:, None])), logits=logits)
