"""U-Net with additive attention gates on its skip connections (Oktay et al., MIDL 2018).

Axes: (batch, channel, y, x).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mrnets.blocks.checks import number, whole
from mrnets.blocks.padding import padded
from mrnets.blocks.unet import ConvBlock, UnetEncoder, extended, normalised

__all__ = ["AttentionGate", "AttentionUnet"]


class AttentionGate(nn.Module):
    """The skip, multiplied at each pixel by a weight from 0 to 1 that the coarser features give it (eq. 1 and 2)."""

    def __init__(self, skip_channels: int, coarse_channels: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(skip_channels, skip_channels, 2, stride=2, bias=False)
        self.coarse = nn.Conv2d(coarse_channels, skip_channels, 1)
        self.weight = nn.Conv2d(skip_channels, 1, 1)

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        """skip (batch, skip_channels, y, x), coarse (batch, coarse_channels, y // 2, x // 2) to the shape of skip."""
        joint = functional.relu(self.skip(skip) + self.coarse(coarse))
        weight = torch.sigmoid(self.weight(joint))
        return skip * functional.interpolate(weight, size=skip.shape[-2:], mode="bilinear")


class _AttentionDecoder(nn.Module):
    def __init__(self, out_channels: int, *, channels: int, pooling_layers: int, dropout: float) -> None:
        super().__init__()
        widths = [channels * 2**level for level in reversed(range(pooling_layers))]
        self.gates = nn.ModuleList(AttentionGate(w, 2 * w) for w in widths)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2, bias=False) for w in widths)
        self.blocks = nn.ModuleList(ConvBlock(2 * w, w, dropout=dropout) for w in widths)
        self.head = nn.Conv2d(channels, out_channels, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        *skips, x = features
        for gate, up, block, skip in zip(self.gates, self.ups, self.blocks, reversed(skips), strict=True):
            gated = gate(skip, x)
            x = normalised(up(x))
            x = block(extended(x, skip), gated)
        out: Tensor = self.head(x)
        return out


class AttentionUnet(nn.Module):
    """The `Unet` of `mrnets.blocks.unet`, in the plane, with an `AttentionGate` on every skip. Any plane size.

    padding_bits: see `mrnets.blocks.padding.padded`.
    """

    padding_bits: int | None = None

    def __init__(
        self, in_channels: int, out_channels: int, *, channels: int, pooling_layers: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        whole("channels", channels, 1, 1024)
        whole("pooling_layers", pooling_layers, 0, 8)
        number("dropout", dropout, 0.0, 1.0)
        self.encoder = UnetEncoder(in_channels, channels=channels, pooling_layers=pooling_layers, dropout=dropout)
        self.decoder = _AttentionDecoder(
            out_channels, channels=channels, pooling_layers=pooling_layers, dropout=dropout
        )
        self.levels = pooling_layers

    def forward(self, x: Tensor) -> Tensor:
        x, plane = padded(x, self.levels, self.padding_bits)
        out: Tensor = self.decoder(self.encoder(x))
        return out[plane]
