"""U-Net on a few neighbouring slices."""

from __future__ import annotations

from torch import nn

from mrnets.blocks.checks import whole
from mrnets.blocks.contrasts import contrast_images
from mrnets.blocks.unet import Unet
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["UNet3D"]

TRAITS = Traits(
    task="segmentation",
    title="U-Net on a few neighbouring slices",
    paper="Çiçek et al., MICCAI 2016",
    takes="image",
    slices=3,
    sens="unused",
    small={"channels": 2, "pooling_layers": 3},
    narrow={"channels": 8, "pooling_layers": 3},
    aliases={
        "segmentation_module_input_channels": "contrasts",
        "segmentation_module_output_channels": "classes",
        "segmentation_module_channels": "channels",
        "segmentation_module_pooling_layers": "pooling_layers",
        "segmentation_module_dropout": "dropout",
    },
    fixed={"segmentation_module": "UNet", "segmentation_module_normalize": False},
)


class UNet3D(nn.Module):
    """Logits of `classes` classes in each of the given slices, 3 of them as published, but any number is taken.

    Convolutions are 3x3x3; pooling is in the plane only.
    Raises InputError where the scan has no such image.
    """

    def __init__(
        self,
        *,
        contrasts: int = 4,
        classes: int = 4,
        channels: int = 32,
        pooling_layers: int = 5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.contrasts = whole("contrasts", contrasts, 1, 64)
        whole("classes", classes, 1, 256)
        self.unet = Unet(
            contrasts, classes, channels=channels, pooling_layers=pooling_layers, dropout=dropout, dimensions=3
        )

    def forward(self, scan: Scan) -> Estimate:
        """logits (batch, class, z, y, x) float32."""
        image = contrast_images(scan, self, self.contrasts, dimensions=3)
        return Estimate(logits=self.unet(image))
