"""Parts of networks that take all coils of one echo at once as channels.

Axes: kspace and coil images (batch, coil, y, x); mask (batch or 1, 1, y, x).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mrnets.blocks.encoding import Encoding, encoded, name_of
from mrnets.contract import Scan
from mrnets.errors import InputError, counted

__all__ = ["CoilConsistency", "one_echo"]


def one_echo(scan: Scan, network: nn.Module, coils: int | None = None) -> Encoding:
    """The encoding of `scan`, for `network`, which errors name.

    Raises InputError as `encoded` does, for several echoes, and for another number of coils than `coils`.
    """
    encoding, name = encoded(scan, network), name_of(network)
    _, echoes, have = encoding.kspace.shape[:3]
    if echoes != 1:
        raise InputError(f"{name} takes one echo, and the scan has {echoes}")
    if coils is not None and have != coils:
        raise InputError(
            f"{name} takes {counted(coils, 'coil')}, and the scan has {have}: "
            f"its Preparation must compress to coils={coils}"
        )
    return encoding


class CoilConsistency(nn.Module):
    """Samples become (measured + weight * k) / (1 + weight) in every coil; the rest of k-space stays (Pramanik 2021).

    With the mask M that is x - F^H (M F x - y) / (1 + weight). F^H M F commutes with the shifts of the centred
    transform, so that plain FFTs do, with the mask in their order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, start: Tensor, mask: Tensor) -> Tensor:
        """Coil images to coil images; `start` is the inverse transform of the sampled k-space."""
        plain = torch.fft.ifftshift(mask, dim=(-2, -1))
        sampled = torch.fft.ifft2(torch.fft.fft2(x) * plain)
        averaged: Tensor = x - (sampled - start) / (1 + self.weight)
        return averaged
