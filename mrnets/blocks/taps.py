"""Convolutions to very few channels, at which a CPU's convolution is slow. Axes: (batch, channel, y, x)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["by_taps"]


def by_taps(conv: nn.Module, x: Tensor) -> Tensor:
    """`conv(x)` for a convolution that keeps the size of the plane and pads with zeros or repeats the edge.

    One convolution 1x1 gives what every tap of the kernel sees. These planes are shifted by the places of the taps and
    added. For two channels, as of an image, this takes a third of the time on a CPU, forward and backward.
    """
    assert isinstance(conv, nn.Conv2d)
    if x.device.type != "cpu" or conv.dilation != (1, 1):
        return conv(x)
    (out, _, high, wide), (height, width) = conv.weight.shape, x.shape[-2:]
    taps = functional.conv2d(x, conv.weight.permute(0, 2, 3, 1).flatten(0, 2)[..., None, None])
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    taps = functional.pad(taps, (wide // 2, wide // 2, high // 2, high // 2), mode=mode).unflatten(1, (out, -1))
    parts = (taps[:, :, i * wide + j, i : i + height, j : j + width] for i in range(high) for j in range(wide))
    total = next(parts)
    for part in parts:
        total = torch.add(total, part)
    return total if conv.bias is None else total + conv.bias[:, None, None]
