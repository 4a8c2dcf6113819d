"""Complex images to stacked real channels and back, in one order: all real parts first, then all imaginary parts.

Axes: (..., channel, [z,] y, x); the channel axis is counted from the end, -3 for planes and -4 for volumes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mrnets.blocks.order import for_processor

__all__ = ["on_channels", "on_planes", "to_channels", "to_complex"]


def to_channels(x: Tensor, axis: int = -3) -> Tensor:
    """Complex (..., channel, y, x) to real (..., 2 * channel, y, x), in the memory order that suits convolutions."""
    channels = torch.cat((x.real, x.imag), dim=axis)
    return for_processor(channels) if channels.ndim == 4 and channels.device.type == "cpu" else channels


def to_complex(x: Tensor, axis: int = -3) -> Tensor:
    """Real (..., 2 * channel, y, x) to complex (..., channel, y, x); inverse of `to_channels`.

    Halves, as mixed precision has them, become complex64."""
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x  # under autocast; complex numbers have no halves
    real, imag = x.chunk(2, dim=axis)
    return torch.complex(real, imag)


def on_planes(net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`net`, on complex (n, 1, y, x), applied to every plane of complex (..., y, x) by itself."""
    return net(x.reshape(-1, 1, *x.shape[-2:])).reshape(x.shape)


def on_channels(net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`net`, on real (n, 2, y, x), applied to every plane of complex (..., y, x) by itself."""
    return on_planes(lambda planes: to_complex(net(to_channels(planes))), x)
