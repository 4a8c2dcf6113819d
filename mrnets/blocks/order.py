"""The order of features in memory that suits a processor's convolutions: the channels last, or first.

Axes: (batch, channel, [z,] y, x).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["channels_last", "for_processor"]


def for_processor(x: Tensor, *, narrow: bool = True) -> Tensor:
    """Features, or a copy of them, as convolutions on a processor take them fastest.

    narrow: whether few channels follow. Then the forward pass is faster with the channels last. The backward pass is
    slower with them for any number of channels. `tests/benchmarks/bench_order.py` measures both."""
    return channels_last(x) if narrow and not torch.is_grad_enabled() else x.contiguous()


def channels_last(x: Tensor) -> Tensor:
    """Features, or a copy of them, with the channels last in memory.

    A batch of one, and one channel, can have strides that fit both orders. Torch then takes the channels to come
    first."""
    last = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    x = x.contiguous(memory_format=last)
    if torch.compiler.is_compiling() or (x.stride(1) == 1 and x.stride(0) * len(x) == x.numel()):
        return x
    return x.clone(memory_format=last)
