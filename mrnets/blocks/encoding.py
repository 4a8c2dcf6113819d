"""The SENSE encoding of one scan and its data, from which every reconstruction network starts.

Axes: image (batch, echo, y, x); kspace (batch, echo, coil, y, x). sens (batch, 1, coil, y, x); mask (batch or 1, 1, 1,
y, x). With two sets of maps: image (batch, set, y, x); kspace (batch, 1, coil, y, x); sens (batch, set, coil, y, x).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mrnets.blocks import fused
from mrnets.contract import Estimate, Scan
from mrnets.errors import InputError, counted
from mrnets.physics import coils
from mrnets.physics.fourier import ifftc

__all__ = ["Encoding", "encoded", "has_sets", "initial_image", "measured", "name_of", "normal", "sensitivities"]


@dataclass(frozen=True)
class Encoding:
    """The encoding E = M F S of a scan (mask, Fourier transform, sensitivities), and the data k that were measured.

    Networks reach mask and sensitivities through its methods, and give their images to `estimate`.
    """

    kspace: Tensor
    """k."""
    mask: Tensor
    sens: Tensor
    start: Tensor
    """E^H k, the zero-filled image."""

    @property
    def sets(self) -> bool:
        """Whether there are several sets of maps, each with an image of its own."""
        return has_sets(self.sens)

    def expand(self, image: Tensor) -> Tensor:
        """S x: the image as coil images."""
        expanded: Tensor = coils.expand(image, self.sens, sets=self.sets)
        return expanded

    def reduce(self, coil_images: Tensor) -> Tensor:
        """S^H c: coil images as one image."""
        reduced: Tensor = coils.reduce(coil_images, self.sens)
        return reduced

    def forward(self, image: Tensor) -> Tensor:
        """E x: the image as sampled k-space."""
        kspace: Tensor = coils.forward(image, self.sens, self.mask, sets=self.sets)
        return kspace

    def adjoint(self, kspace: Tensor) -> Tensor:
        """E^H k: k-space as one image."""
        image: Tensor = coils.adjoint(kspace, self.sens, self.mask)
        return image

    def normal(self, image: Tensor) -> Tensor:
        """E^H E x."""
        return normal(image, self.sens, self.mask)

    def gradient(self, image: Tensor) -> Tensor:
        """Gradient of half ||E x - k||^2 with respect to conj(x): E^H E x - E^H k."""
        return self.normal(image) - self.start

    def power(self) -> Tensor:
        """S^H S: the sum of |sens|^2 over coils, (batch, 1, y, x). Different sets of maps are orthogonal."""
        return torch.sum(self.sens.real**2 + self.sens.imag**2, dim=-3)

    def coil_images(self) -> Tensor:
        """F^H M k: the zero-filled images of all coils."""
        images: Tensor = ifftc(self.kspace * self.mask)
        return images

    def estimate(self, *images: Tensor, steps: bool = False) -> Estimate:
        """The last of `images` as a network's estimate; with `steps`, those before it as its earlier estimates."""
        *earlier, last = images
        return Estimate(image=last, steps=tuple(Estimate(image=image) for image in earlier) if steps else ())


def encoded(scan: Scan, network: nn.Module, *, sets: bool = False) -> Encoding:
    """The encoding of `scan`, for `network`, which errors name. sets: as in `measured`.

    Raises InputError where the scan lacks k-space, mask or sensitivities, or where their shapes do not fit.
    """
    kspace, mask = measured(scan, network, sets=sets)
    sens = sensitivities(scan, network)
    return Encoding(kspace, mask, sens, initial_image(kspace, mask, sens))


def sensitivities(scan: Scan, network: nn.Module) -> Tensor:
    """The coil sensitivities of `scan`. Raises InputError, which names `network`, where it has none."""
    if scan.sens is None:
        raise InputError(f"{name_of(network)} needs coil sensitivities, and the scan has none")
    sens: Tensor = scan.sens
    return sens


def measured(scan: Scan, network: nn.Module, *, sets: bool = False) -> tuple[Tensor, Tensor]:
    """The k-space and the mask of `scan`. Raises InputError where they are absent or do not fit.

    sets: whether the network takes several sets of maps, for scans of one echo.
    """
    kspace, mask, sens = scan.kspace, scan.mask, scan.sens
    if kspace is None or mask is None:
        name = name_of(network)
        raise InputError(f"{name} needs k-space and its sampling mask, and the scan lacks at least one of them")
    shape = tuple(kspace.shape)
    if kspace.ndim != 5:
        raise InputError(f"{name_of(network)} needs k-space (batch, echo, coil, y, x), not of shape {shape}")
    for what, array, axes in (("mask", mask, 2), ("sens", sens, 3)):
        if array is not None and (array.ndim != 5 or array.shape[-axes:] != kspace.shape[-axes:]):
            raise InputError(
                f"{name_of(network)}: {what} of shape {tuple(array.shape)} does not fit k-space of shape {shape}"
            )
    if sens is not None and has_sets(sens) and not (sets and kspace.shape[1] == 1):
        have = f"the scan has {sens.shape[1]} for {counted(kspace.shape[1], 'echo')}"
        raise InputError(f"{name_of(network)} takes one set of coil maps, and {have}; set coils.sets=1")
    return kspace, mask


def initial_image(kspace: Tensor, mask: Tensor, sens: Tensor | None) -> Tensor:
    """Zero-filled image (batch, echo, y, x), complex.

    Coils are combined with `sens`, or by the root of the sum of squares without it.
    """
    if sens is None:
        magnitude = coils.rss(ifftc(mask * kspace))
        return torch.complex(magnitude, torch.zeros_like(magnitude))
    image: Tensor = coils.adjoint(kspace, sens, mask)
    return image


def has_sets(sens: Tensor) -> bool:
    """Whether `sens` (batch, set, coil, y, x) holds several sets of maps."""
    return sens.shape[1] > 1


def name_of(network: nn.Module) -> str:
    """The name of `network` in errors: its own `name`, or that of its file, which is its class's in small letters."""
    return str(getattr(network, "name", type(network).__name__.lower()))


def normal(image: Tensor, sens: Tensor, mask: Tensor) -> Tensor:
    """E^H E x, as `mrnets.physics.coils.normal`. It is its own adjoint and so its own gradient.

    Therefore no coil images are kept for the backward pass.
    """
    if sens.requires_grad or not torch.is_grad_enabled() or not image.requires_grad:
        return _convolved(image, sens, mask)
    out: Tensor = _Normal.apply(image, sens, mask)
    return out


def _convolved(image: Tensor, sens: Tensor, mask: Tensor) -> Tensor:
    plain = torch.fft.ifftshift(mask, dim=(-2, -1))
    return fused.convolved(image, sens, plain, sets=has_sets(sens))


class _Normal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, sens: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(sens, mask)
        ctx.fused = fused.can(image)
        return _convolved(image, sens, mask)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        sens, mask = ctx.saved_tensors
        with fused.with_kernels() if ctx.fused else nullcontext():  # torch computes gradients in another thread
            return _Normal.apply(gradients[0], sens, mask), None, None
