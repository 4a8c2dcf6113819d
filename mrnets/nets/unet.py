"""U-Net on the zero-filled image."""

from __future__ import annotations

from torch import nn

from mrnets.blocks.complex import on_planes
from mrnets.blocks.encoding import initial_image, measured
from mrnets.blocks.unet import NormUnet
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["UNet"]

TRAITS = Traits(
    task="reconstruction",
    title="U-Net on the zero-filled image",
    paper="Ronneberger et al., MICCAI 2015; Zbontar et al. 2018",
    sens="optional",
    small={"channels": 4, "pooling_layers": 2},
    narrow={"channels": 32, "pooling_layers": 3},
    fixed={"in_channels": 2, "out_channels": 2, "normalize": True, "norm_groups": 2},
)


class UNet(nn.Module):
    """One U-Net from the combined zero-filled image to the image; no data consistency.

    Without sensitivities in the scan the coils are combined by the root of the sum of squares.
    """

    def __init__(
        self,
        *,
        channels: int = 64,
        pooling_layers: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.unet = NormUnet(channels=channels, pooling_layers=pooling_layers, dropout=dropout)

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        kspace, mask = measured(scan, self)
        start = initial_image(kspace, mask, scan.sens)
        image = on_planes(self.unet, start)
        return Estimate(image=image)
