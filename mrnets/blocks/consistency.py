"""Consistency with the measured data: gradient and normal operator of the SENSE encoding, and k-space replacement.

Axes: image (batch, echo, y, x); kspace (batch, echo, coil, y, x); sens (batch, 1, coil, y, x);
mask (batch or 1, 1, 1, y, x).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from mrnets.contract import Scan
from mrnets.errors import InputError
from mrnets.physics import coils
from mrnets.physics.coils import adjoint, expand, rss
from mrnets.physics.conjugate import conjugate_gradients
from mrnets.physics.fourier import ifftc

__all__ = [
    "Combination",
    "Start",
    "cascaded",
    "combined",
    "data_gradient",
    "first_image",
    "initial_image",
    "magnitude",
    "measured",
    "normal",
    "replace",
    "solved",
    "weighted",
]

Combination = Literal["sense", "rss"]
"""What makes one image of the coils' in the end: "sense", the sensitivities; "rss", the root of the sum of squares for
the magnitude, which weights trained on such images give, with the phase of the former."""
Start = Literal["sense", "rss_components"]
"""The image that a network starts from: "sense", see `initial_image`; "rss_components", for imported weights: the root
of the sum of squares over coils of real and imaginary parts each by themselves, ATOMMIC 1.0.1's "RSS". Its magnitude is
that of the usual one, its phase, between 0 and 90 degrees, means nothing; so only magnitudes are given back."""


def measured(scan: Scan, name: str) -> tuple[Tensor, Tensor]:
    """The k-space and the mask of `scan`; an InputError that names the network where they are absent or do not fit."""
    kspace, mask = scan.kspace, scan.mask
    if kspace is None or mask is None:
        raise InputError(f"{name} needs k-space and its sampling mask, and the scan lacks at least one of them")
    shape = tuple(kspace.shape)
    if kspace.ndim != 5:
        raise InputError(f"{name} needs k-space (batch, echo, coil, y, x), not of shape {shape}")
    if mask.ndim != 5 or mask.shape[-2:] != kspace.shape[-2:]:
        raise InputError(f"{name}: mask of shape {tuple(mask.shape)} does not fit k-space of shape {shape}")
    sens = scan.sens
    if sens is not None and (sens.ndim != 5 or sens.shape[-3:] != kspace.shape[-3:]):
        raise InputError(f"{name}: sens of shape {tuple(sens.shape)} does not fit k-space of shape {shape}")
    return kspace, mask


def initial_image(kspace: Tensor, mask: Tensor, sens: Tensor | None) -> Tensor:
    """Zero-filled image (batch, echo, y, x), complex: combined with `sens`, or by root of sum of squares without it."""
    if sens is None:
        magnitude = rss(ifftc(mask * kspace))
        return torch.complex(magnitude, torch.zeros_like(magnitude))
    image: Tensor = adjoint(kspace, sens, mask)
    return image


def first_image(kspace: Tensor, mask: Tensor, sens: Tensor | None, start: Start) -> Tensor:
    """The image (batch, echo, y, x), complex, that `start` says; `sens` is for "sense" alone."""
    if start == "sense":
        return initial_image(kspace, mask, sens)
    coil_images = ifftc(mask * kspace)
    parts = (torch.linalg.vector_norm(part, dim=-3) for part in (coil_images.real, coil_images.imag))
    return torch.complex(*parts)


def magnitude(image: Tensor, start: Start) -> Tensor:
    """`image`, complex; of phase 0 where that which comes from `start` means nothing."""
    return image if start == "sense" else torch.complex(image.abs(), torch.zeros_like(image.real))


def normal(image: Tensor, sens: Tensor, mask: Tensor) -> Tensor:
    """`mrnets.physics.coils.normal`, its own adjoint and so its own gradient: no coil images are kept for the backward
    pass."""
    if sens.requires_grad or not torch.is_grad_enabled() or not image.requires_grad:
        return coils.normal(image, sens, mask)
    out: Tensor = _Normal.apply(image, sens, mask)
    return out


class _Normal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, sens: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(sens, mask)
        out: Tensor = coils.normal(image, sens, mask)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        sens, mask = ctx.saved_tensors
        return _Normal.apply(gradients[0], sens, mask), None, None


def data_gradient(image: Tensor, start: Tensor, sens: Tensor, mask: Tensor) -> Tensor:
    """Gradient of half ||E x - k||^2 with respect to conj(x): E^H E x - E^H k, with `start` = E^H k."""
    return normal(image, sens, mask) - start


def combined(image: Tensor, start: Tensor, sens: Tensor, mask: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """The image expanded to all coils, drawn to the data where sampled (`weighted`; hard at weight 1), and combined.

    The coils' k-space is never formed: S^H S x - weight * (E^H E x - start), with `start` = E^H k.
    """
    power = torch.sum(sens.real**2 + sens.imag**2, dim=-3)
    return power * image - weight * data_gradient(image, start, sens, mask)


def cascaded(
    start: Tensor,
    sens: Tensor,
    mask: Tensor,
    denoisers: Iterable[Callable[[Tensor], Tensor]],
    weights: Tensor,
    guess: Tensor | None = None,
    coil_start: Tensor | None = None,
) -> list[Tensor]:
    """Images after each cascade k <- k - w M (k - y) - E D(E^H k), from k = y; `start` = E^H y; each D has its w.

    D takes and gives complex (batch * echo, 1, y, x). The k-space of all coils is never formed: it is
    k = y - M F S held - (1 - M) F S free with two images, whose updates are held <- (1 - w) held + D(x),
    free <- free + D(x), and x = E^H k = start - S^H S free - E^H E (held - free).
    `guess`: an image whose k-space stands where nothing was measured, at the start; None: zeros.
    `coil_start`: F^H y (batch, echo, coil, y, x), for images of `Combination` "rss"; None: "sense".
    """
    power = torch.sum(sens.real**2 + sens.imag**2, dim=-3)
    images = []
    free = held = torch.zeros_like(start)
    x = start
    if guess is not None:
        free = -guess
        x = start - power * free - normal(held - free, sens, mask)
    for denoiser, weight in zip(denoisers, weights, strict=True):
        correction = denoiser(x.reshape(-1, 1, *x.shape[-2:])).reshape(x.shape)
        free = free + correction
        held = (1 - weight) * held + correction
        x = start - power * free - normal(held - free, sens, mask)
        images.append(x if coil_start is None else _root_of_squares(x, coil_start, free, held, sens, mask))
    return images


def _root_of_squares(x: Tensor, coil_start: Tensor, free: Tensor, held: Tensor, sens: Tensor, mask: Tensor) -> Tensor:
    """The images of the coils, of whose k-space `cascaded` keeps two parts, by the root of the sum of squares."""
    plain = torch.fft.ifftshift(mask, dim=(-2, -1))
    sampled = torch.fft.ifft2(torch.fft.fft2(expand(held - free, sens)) * plain)
    size = torch.linalg.vector_norm(coil_start - expand(free, sens) - sampled, dim=-3)
    return size * torch.where(x == 0, torch.ones_like(x), torch.sgn(x))


def solved(
    rhs: Tensor, sens: Tensor, mask: Tensor, weight: Tensor | float, *, iterations: int, tolerance: float = 1e-5
) -> Tensor:
    """Solution x of (E^H E + weight) x = rhs, both (batch, echo, y, x), by conjugate gradients.

    Differentiable in `rhs`, `sens` and `weight` by the implicit function theorem: the backward pass solves the same
    equation for the gradient (Aggarwal 2019, section III), and no iteration is kept in memory.
    """

    def solution(b: Tensor) -> Tensor:
        with torch.no_grad():
            x: Tensor = conjugate_gradients(
                lambda v: normal(v, sens, mask) + weight * v, b, iterations=iterations, tolerance=tolerance
            )
        return x

    x = solution(rhs)
    if not torch.is_grad_enabled():
        return x
    residual = rhs - normal(x, sens, mask) - weight * x
    if not residual.requires_grad:
        return x
    residual.register_hook(solution)
    return x + (residual - residual.detach())


def weighted(kspace: Tensor, data: Tensor, mask: Tensor, weight: Tensor | float) -> Tensor:
    """k - weight * (k - data) where sampled, k elsewhere: soft data consistency (Sriram 2020, eq. 8)."""
    return kspace - weight * (mask * (kspace - data))


def replace(kspace: Tensor, data: Tensor, mask: Tensor) -> Tensor:
    """Measured samples where there are any, k elsewhere: hard data consistency (Schlemper 2018, eq. 8, noise-free)."""
    return torch.where(mask, data, kspace)
