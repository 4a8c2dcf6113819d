"""Convolutions that make their input again in the backward pass, from parts that are kept anyway.

A concatenation, a repeated edge or a product takes one pass over memory. The convolution of it takes the time of many.
The input that is made again has the same bytes. The idea is that of Chen et al. 2016 (sublinear memory cost).

Axes: (batch, channel, [z,] y, x).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ["JOINED", "PRODUCT", "RECTIFIED", "Made", "convolved", "through"]

_aten = torch.ops.aten


@dataclass(frozen=True)
class Made:
    """The function that makes the input of a convolution from parts, and its gradients."""

    make: Callable[..., Tensor]
    gradients: Callable[..., Sequence[Tensor]]
    """Returns the gradients of the parts, from the gradient of the input and the parts."""


JOINED = Made(
    lambda *parts: torch.cat(parts, dim=1) if len(parts) > 1 else parts[0],
    lambda gradient, *parts: gradient.split([part.shape[1] for part in parts], dim=1),
)
"""The channels of all parts."""
PRODUCT = Made(torch.mul, lambda gradient, a, b: (gradient * b, gradient * a))
RECTIFIED = Made(torch.relu, lambda gradient, x: (_aten.threshold_backward(gradient, x, 0),))


def through(conv: nn.Module, *parts: Tensor, made: Made = JOINED) -> Tensor:
    """Apply `conv` to what is `made` of `parts`. Only the parts are kept for the backward pass.

    conv: of stride 1 and one group. An edge that it repeats is made again, too.
    """
    assert isinstance(conv, nn.Conv2d | nn.Conv3d)
    assert conv.padding_mode in ("zeros", "replicate")
    edge = conv.padding_mode == "replicate"
    return convolved(parts, conv.weight, conv.bias, made=made, padding=conv.padding, dilation=conv.dilation, edge=edge)


def convolved(
    parts: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    made: Made = JOINED,
    padding: Sequence[int] | str = (0, 0),
    dilation: Sequence[int] = (1, 1),
    edge: bool = False,
) -> Tensor:
    """Convolve what is `made` of `parts` with `weight`. Only the parts are kept for the backward pass.

    edge: whether the edge is repeated. Otherwise zeros are around it.
    """
    assert not isinstance(padding, str)
    form = _Form(made, tuple(padding), tuple(dilation), edge and any(padding))
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return form.convolved(form.edged(made.make(*parts)), weight, bias)
    out: Tensor = _Convolved.apply(form, weight, bias, *parts)
    return out


@dataclass(frozen=True)
class _Form:
    made: Made
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    edge: bool

    @property
    def sides(self) -> list[int]:
        """The padding as `functional.pad` takes it: the last axis first, before and behind."""
        return [n for n in reversed(self.padding) for _ in range(2)]

    @property
    def zeros(self) -> tuple[int, ...]:
        """The zeros that the convolution itself puts around its input."""
        return (0,) * len(self.padding) if self.edge else self.padding

    def edged(self, x: Tensor) -> Tensor:
        return functional.pad(x, self.sides, mode="replicate") if self.edge else x

    def convolved(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        convolve: Callable[..., Tensor] = functional.conv2d if x.ndim == 4 else functional.conv3d
        return convolve(x, weight, bias, padding=self.zeros, dilation=self.dilation)


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, form: _Form, weight: Tensor, bias: Tensor | None, *parts: Tensor) -> Tensor:
        ctx.form, ctx.biases = form, None if bias is None else list(bias.shape)
        ctx.save_for_backward(weight, *parts)
        return form.convolved(form.edged(form.made.make(*parts)), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        form, (weight, *parts) = ctx.form, ctx.saved_tensors
        _, of_weight, of_bias, *of_parts = ctx.needs_input_grad
        ones, half = [1] * len(form.padding), gradient.dtype  # half precision under autocast
        x = form.made.make(*parts)
        before, weights, biases = _aten.convolution_backward(
            gradient, form.edged(x).to(half), weight.to(half), ctx.biases, ones, form.zeros, form.dilation, False,
            [0] * len(ones), 1, [any(of_parts), of_weight, of_bias],
        )  # fmt: skip
        if not any(of_parts):
            return None, weights, biases, *(None for _ in parts)
        if form.edge:
            unpadded = _aten.replication_pad2d_backward if x.ndim == 4 else _aten.replication_pad3d_backward
            before = unpadded(before, x.to(half), form.sides)
        return None, weights, biases, *form.made.gradients(before.to(x.dtype), *parts)
