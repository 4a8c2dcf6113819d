"""Complex planes as ATOMMIC's networks take several of them: real and imaginary part of each side by side.

Axes: (n, plane, y, x).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mrnets.blocks.unet import destandardised, standardised

__all__ = ["interleaved", "on_standardised", "paired"]


def interleaved(x: Tensor) -> Tensor:
    """Complex (n, k, y, x) to real (n, 2k, y, x): real and imaginary part in turn."""
    return torch.view_as_real(x.resolve_conj()).movedim(-1, 2).flatten(1, 2)


def paired(x: Tensor) -> Tensor:
    """The inverse of `interleaved`."""
    parts = x.unflatten(1, (-1, 2))
    return torch.complex(parts[:, :, 0], parts[:, :, 1])


def on_standardised(net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`net` on the interleaved channels of complex `x`, whose two halves get mean 0 and standard deviation 1 before.

    The halves are those of the list of channels, whatever planes they belong to. Mean and deviation are put back after.
    """
    real, mean, std = standardised(interleaved(x), 2)
    return paired(destandardised(net(real), mean, std))
