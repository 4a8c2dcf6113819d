"""A U-Net whose result is added to its input. Axes: (batch, channel, y, x), real."""

from __future__ import annotations

from torch import Tensor, nn

from mrnets.blocks.unet import Unet, standardised
from mrnets.errors import InputError

__all__ = ["CorrectionUnet"]


class CorrectionUnet(nn.Module):
    """U-Net on images of any scale and size that gives a change of them, in their scale.

    Each of `groups` groups of channels is standardised before, as in `NormUnet`, and its standard deviation is put back
    after. Its mean is not: what is added to the input would then double the mean with every iteration.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, channels: int, pooling_layers: int, groups: int = 2
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise InputError(f"groups {groups} must divide the channels {in_channels} and {out_channels}")
        self.unet = Unet(in_channels, out_channels, channels=channels, pooling_layers=pooling_layers)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in_channels, y, x) to (batch, out_channels, y, x)."""
        real, _, scale = standardised(x, self.groups)
        change: Tensor = self.unet(real)
        return (change.reshape(len(x), self.groups, -1, *change.shape[-2:]) * scale).reshape(change.shape)
