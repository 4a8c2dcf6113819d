"""The U-Net of fastMRI (Ronneberger 2015; Zbontar 2018), in parts and whole, and its form for complex images.

Axes: (batch, channel, [z,] y, x). Volumes are pooled in the plane only: z is a few neighbouring slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mrnets.blocks import fused, remade
from mrnets.blocks.checks import number, whole
from mrnets.blocks.complex import to_channels, to_complex
from mrnets.blocks.order import channels_last, for_processor
from mrnets.blocks.padding import padded
from mrnets.errors import InputError

__all__ = [
    "ConvBlock",
    "NormUnet",
    "Unet",
    "UnetDecoder",
    "UnetEncoder",
    "destandardised",
    "extended",
    "normalised",
    "standardised",
]

_CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSE: dict[int, type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
_STEP: dict[int, Any] = {2: (2, 2), 3: (1, 2, 2)}
_SLOPE, _EPS = 0.2, 1e-5
_WIDE = 32
"""Channels of the first level from which on a CPU keeps oneDNN's own order in the forward pass, too."""


def normalised(x: Tensor) -> Tensor:
    """Instance normalisation and leaky ReLU 0.2 of a convolution's output, which may be overwritten."""
    if torch.is_grad_enabled() and x.requires_grad and not torch.compiler.is_compiling():
        out: Tensor = _Normalised.apply(x)
        return out
    if fused.can(x):
        return fused.normalised(x, _SLOPE)
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        return _normalise_in_place(x)[0]
    return functional.leaky_relu_(functional.instance_norm(x), _SLOPE)


def _normalise_in_place(x: Tensor) -> tuple[Tensor, Tensor]:
    """The result, and what deviations from the mean were multiplied with."""
    plane = tuple(range(2, x.ndim))
    x.sub_(x.mean(plane, keepdim=True))
    scale = torch.rsqrt((x * x).mean(plane, keepdim=True) + _EPS)
    return functional.leaky_relu_(x.mul_(scale), _SLOPE), scale


def _gradient_in_place(gradient: Tensor, out: Tensor, scale: Tensor) -> Tensor:
    """The gradient at the input of `_normalise_in_place`, from that at its output. It gave `out` and `scale`."""
    plane = tuple(range(2, out.ndim))
    along = (gradient * out).mean(plane, keepdim=True)
    gradient, normal = _before_relu(gradient, out)
    return gradient.sub_(gradient.mean(plane, keepdim=True)).addcmul_(normal, along, value=-1).mul_(scale)


def _normalise(x: Tensor) -> tuple[Tensor, Tensor]:
    """As `_normalise_in_place`, in few passes of a device: one batch normalisation, as in `functional.instance_norm`.

    The scale is (batch * channel,)."""
    out, _, scale = torch.native_batch_norm(_one_sample(x), None, None, None, None, True, 0.0, _EPS)
    return functional.leaky_relu_(out.reshape(x.shape), _SLOPE), scale


def _gradient(gradient: Tensor, out: Tensor, scale: Tensor) -> Tensor:
    """The gradient at the input of `_normalise`, from that at its output. It gave `out` and `scale`.

    The normalised values take the place of the input, which was not kept. Their mean is 0, and their variance is 1. The
    weight `scale` makes the gradient that of the input."""
    gradient, normal = map(_one_sample, _before_relu(gradient, out))
    statistics = (torch.zeros_like(scale), torch.ones_like(scale))
    made: Tensor = torch.ops.aten.native_batch_norm_backward(
        gradient, normal, scale, None, None, *statistics, True, _EPS, [True, False, False]
    )[0]
    return made.reshape(out.shape)


def _one_sample(x: Tensor) -> Tensor:
    """The channels of all samples as those of one."""
    return x.reshape(1, -1, *x.shape[2:])


def _before_relu(gradient: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient at the input of the leaky ReLU, and that input, from the gradient at its output `out`."""
    return torch.ops.aten.leaky_relu_backward(gradient, out, _SLOPE, True), functional.leaky_relu(out, 1 / _SLOPE)


class _Normalised(torch.autograd.Function):
    """Keeps its output only, which the next convolution keeps anyway: one activation a layer instead of three.

    The leaky ReLU is invertible, so what the backward pass needs is recovered from the output (Rota Bulo et al., CVPR
    2018). A slope of 0.2 and no affine scale make the inverse as exact as the output.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        if fused.can(x):
            made, ctx.gradient = fused.scaled(x, _SLOPE), partial(fused.normalised_gradient, slope=_SLOPE)
        elif x.device.type == "cpu":
            made, ctx.gradient = _normalise_in_place(x), _gradient_in_place
        else:
            made, ctx.gradient = _normalise(x), _gradient
        if made[0] is x:
            ctx.mark_dirty(x)
        ctx.save_for_backward(*made)
        return made[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        before: Tensor = ctx.gradient(gradient, *ctx.saved_tensors)
        return before


class ConvBlock(nn.Module):
    """Twice: convolution 3x3 without bias, instance normalisation, leaky ReLU 0.2, channel dropout."""

    def __init__(self, in_channels: int, out_channels: int, *, dropout: float = 0.0, dimensions: int = 2) -> None:
        super().__init__()
        self.conv1 = _CONV[dimensions](in_channels, out_channels, 3, padding=1, bias=False)
        self.conv2 = _CONV[dimensions](out_channels, out_channels, 3, padding=1, bias=False)
        self.dropout = dropout

    def forward(self, *parts: Tensor) -> Tensor:
        """Features, or several whose channels are joined. The joined ones are not kept for the backward pass."""
        for conv in (self.conv1, self.conv2):
            x = normalised(remade.through(conv, *parts) if len(parts) > 1 else conv(*parts))
            if self.dropout and self.training:
                x = functional.dropout2d(x, self.dropout) if x.ndim == 4 else functional.dropout3d(x, self.dropout)
            parts = (x,)
        return x


class UnetEncoder(nn.Module):
    """The way down: features of every level, finest first; the last is the bottom's. Widths double per level."""

    def __init__(
        self, in_channels: int, *, channels: int, pooling_layers: int, dropout: float = 0.0, dimensions: int = 2
    ) -> None:
        super().__init__()
        widths = [in_channels, *(channels * 2**level for level in range(pooling_layers + 1))]
        *blocks, self.bottom = (ConvBlock(i, o, dropout=dropout, dimensions=dimensions) for i, o in pairwise(widths))
        self.blocks = nn.ModuleList(blocks)
        self.narrow = channels < _WIDE

    def forward(self, x: Tensor) -> list[Tensor]:
        if x.device.type == "cpu":
            x = for_processor(x, narrow=self.narrow)
        elif fused.can(x):
            x = channels_last(x)
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
            x = functional.avg_pool2d(x, 2) if x.ndim == 4 else functional.avg_pool3d(x, (1, 2, 2))
        return [*features, self.bottom(x)]


class UnetDecoder(nn.Module):
    """The way up: from the bottom's features through the skips to (batch, out_channels, [z,] y, x)."""

    def __init__(
        self, out_channels: int, *, channels: int, pooling_layers: int, dropout: float = 0.0, dimensions: int = 2
    ) -> None:
        super().__init__()
        widths = [channels * 2**level for level in reversed(range(pooling_layers))]
        step = _STEP[dimensions]
        self.ups = nn.ModuleList(_TRANSPOSE[dimensions](2 * w, w, step, stride=step, bias=False) for w in widths)
        self.blocks = nn.ModuleList(ConvBlock(2 * w, w, dropout=dropout, dimensions=dimensions) for w in widths)
        self.head = _CONV[dimensions](channels, out_channels, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        *skips, x = features
        for up, block, skip in zip(self.ups, self.blocks, reversed(skips), strict=True):
            x = normalised(up(x))
            x = block(extended(x, skip), skip)
        out: Tensor = self.head(x)
        return out


def extended(x: Tensor, skip: Tensor) -> Tensor:
    """`x` reflected at its end by one where pooling has dropped a row or column of an odd-sized level."""
    missing = (0, skip.shape[-1] - x.shape[-1], 0, skip.shape[-2] - x.shape[-2])
    if not any(missing):
        return x
    return functional.pad(x, missing if x.ndim == 4 else (*missing, 0, 0), mode="reflect")


class Unet(nn.Module):
    """U-Net from real (batch, in_channels, [z,] y, x) to (batch, out_channels, [z,] y, x). Any plane size.

    padding_bits: see `mrnets.blocks.padding.padded`.
    """

    padding_bits: int | None = None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        channels: int,
        pooling_layers: int,
        dropout: float = 0.0,
        dimensions: int = 2,
    ) -> None:
        super().__init__()
        whole("channels", channels, 1, 1024)
        whole("pooling_layers", pooling_layers, 0, 8)
        number("dropout", dropout, 0.0, 1.0)
        shape = {"channels": channels, "pooling_layers": pooling_layers, "dimensions": dimensions}
        self.encoder = UnetEncoder(in_channels, dropout=dropout, **shape)
        self.decoder = UnetDecoder(out_channels, dropout=dropout, **shape)
        self.levels = pooling_layers

    def forward(self, x: Tensor) -> Tensor:
        x, plane = padded(x, self.levels, self.padding_bits)
        out: Tensor = self.decoder(self.encoder(x))
        return out[plane]


class NormUnet(nn.Module):
    """U-Net on complex images of any scale and size: normalises, applies, and takes the scale back.

    The mean and the standard deviation of each group of real channels are taken out before and put back after. With 2
    groups these are the real parts and the imaginary parts. So the result scales with the input. An image that is
    constant, or zero, is finite in both directions.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        channels: int,
        pooling_layers: int,
        dropout: float = 0.0,
        groups: int = 2,
    ) -> None:
        super().__init__()
        if 2 * in_channels % groups or 2 * out_channels % groups:
            raise InputError(f"groups {groups} must divide the real channels {2 * in_channels} and {2 * out_channels}")
        self.unet = Unet(
            2 * in_channels, 2 * out_channels, channels=channels, pooling_layers=pooling_layers, dropout=dropout
        )
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Complex (batch, in_channels, y, x) to complex (batch, out_channels, y, x)."""
        real, mean, std = standardised(to_channels(x), self.groups)
        return to_complex(destandardised(self.unet(real), mean, std))


def standardised(real: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """`real` (batch, channel, y, x) with mean 0 and standard deviation 1 in each group of channels, and those two."""
    grouped = real.reshape(len(real), groups, -1, *real.shape[-2:])
    variance, mean = torch.var_mean(grouped, dim=(2, 3, 4), keepdim=True)
    # The floor, far below any image's scale, keeps a constant group and its gradient finite.
    std = torch.sqrt(variance + 1e-24)
    return ((grouped - mean) / std).reshape(real.shape), mean, std


def destandardised(real: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Inverse of `standardised`; the number of channels may be another."""
    grouped = real.reshape(len(real), mean.shape[1], -1, *real.shape[-2:])
    return torch.addcmul(mean, grouped, std).reshape(real.shape)
