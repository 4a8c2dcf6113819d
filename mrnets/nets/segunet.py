"""U-Net on images of several contrasts."""

from __future__ import annotations

from torch import nn

from mrnets.blocks.checks import whole
from mrnets.blocks.contrasts import contrast_images
from mrnets.blocks.unet import Unet
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["SegUNet"]

TRAITS = Traits(
    task="segmentation",
    title="U-Net on images of several contrasts",
    paper="Ronneberger et al., MICCAI 2015",
    takes="image",
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


class SegUNet(nn.Module):
    """Logits of `classes` classes from magnitude images of `contrasts` contrasts.

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
        self.unet = Unet(contrasts, classes, channels=channels, pooling_layers=pooling_layers, dropout=dropout)

    def forward(self, scan: Scan) -> Estimate:
        """logits (batch, class, y, x) float32."""
        image = contrast_images(scan, self, self.contrasts)
        return Estimate(logits=self.unet(image))
