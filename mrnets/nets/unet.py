"""U-Net on the zero-filled image."""

from __future__ import annotations

from typing import get_args

from torch import nn

from mrnets.blocks.checks import one_of
from mrnets.blocks.consistency import Start, first_image, magnitude, measured
from mrnets.blocks.sensitivity import SensitivityNet, sensitivities
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
)


class UNet(nn.Module):
    """One U-Net from the combined zero-filled image to the image; no data consistency.

    Without sensitivities in the scan the coils are combined by the root of the sum of squares. start: for imported
    weights, see `Start`. padding: see `NormUnet`.
    """

    def __init__(
        self,
        *,
        channels: int = 64,
        pooling_layers: int = 4,
        dropout: float = 0.0,
        padding: int | None = None,
        start: Start = "sense",
        sens_net: bool = False,
        sens_channels: int = 8,
        sens_pooling_layers: int = 4,
    ) -> None:
        super().__init__()
        one_of("start", start, get_args(Start))
        self.start: Start = start
        self.unet = NormUnet(channels=channels, pooling_layers=pooling_layers, dropout=dropout, padding=padding)
        self.sens_net = SensitivityNet(channels=sens_channels, pooling_layers=sens_pooling_layers) if sens_net else None

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        kspace, mask = measured(scan, "unet")
        sens = scan.sens if self.sens_net is None else sensitivities(scan, self.sens_net, "unet")
        start = first_image(kspace, mask, sens, self.start)
        image = self.unet(start.reshape(-1, 1, *start.shape[-2:])).reshape(start.shape)
        return Estimate(image=magnitude(image, self.start))
