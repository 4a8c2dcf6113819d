"""Consistency with the measured data: cascades on images, regularised solutions and k-space replacement.

Axes: image (batch, echo, y, x); kspace (batch, echo, coil, y, x); mask (batch or 1, 1, 1, y, x).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor

from mrnets.blocks.encoding import Encoding
from mrnets.physics.conjugate import conjugate_gradients

__all__ = ["Combination", "Start", "cascaded", "combined", "first_image", "magnitude", "replace", "solved"]

Combination = Literal["sense", "rss"]
"""What makes one image of the coils' in the end: "sense", the sensitivities; "rss", the root of the sum of squares for
the magnitude, which weights trained on such images give, with the phase of the former."""
Start = Literal["sense", "rss_components"]
"""The image that a network starts from: "sense", see `initial_image`; "rss_components", for imported weights: the root
of the sum of squares over coils of real and imaginary parts each by themselves, ATOMMIC 1.0.1's "RSS". Its magnitude is
that of the usual one, its phase, between 0 and 90 degrees, means nothing; so only magnitudes are given back."""


def first_image(coil_images: Tensor, sense: Tensor | None, start: Start) -> Tensor:
    """The image (batch, echo, y, x), complex, that `start` says; `sense` is the one of that name."""
    if start == "sense":
        assert sense is not None
        return sense
    parts = (torch.linalg.vector_norm(part, dim=-3) for part in (coil_images.real, coil_images.imag))
    return torch.complex(*parts)


def magnitude(image: Tensor, start: Start) -> Tensor:
    """`image`, complex; of phase 0 where that which comes from `start` means nothing."""
    return image if start == "sense" else torch.complex(image.abs(), torch.zeros_like(image.real))


def combined(image: Tensor, encoding: Encoding, weight: Tensor | float = 1.0) -> Tensor:
    """The image expanded to all coils, drawn to the data where sampled by `weight` (1: replaced), and combined.

    The k-space of the coils is never formed: S^H S x - weight * (E^H E x - E^H k).
    """
    return encoding.power() * image - weight * encoding.gradient(image)


def cascaded(
    encoding: Encoding,
    denoisers: Iterable[Callable[[Tensor], Tensor]],
    weights: Tensor,
    guess: Tensor | None = None,
    coil_start: Tensor | None = None,
) -> list[Tensor]:
    """Images after each cascade k <- k - w M (k - y) - E D(E^H k), from k = y; each D has its w.

    D takes and gives complex (batch * echo, 1, y, x). The k-space of all coils is never formed: it is
    k = y - M F S held - (1 - M) F S free with two images, whose updates are held <- (1 - w) held + D(x),
    free <- free + D(x), and x = E^H k = E^H y - S^H S free - E^H E (held - free).
    `guess`: an image whose k-space stands where nothing was measured, at the start; None: zeros.
    `coil_start`: F^H y (batch, echo, coil, y, x), for images of `Combination` "rss"; None: "sense".
    """
    power, start = encoding.power(), encoding.start
    images = []
    free = held = torch.zeros_like(start)
    x = start
    if guess is not None:
        free = -guess
        x = start - power * free - encoding.normal(held - free)
    for denoiser, weight in zip(denoisers, weights, strict=True):
        correction = denoiser(x.reshape(-1, 1, *x.shape[-2:])).reshape(x.shape)
        free = free + correction
        held = (1 - weight) * held + correction
        x = start - power * free - encoding.normal(held - free)
        images.append(x if coil_start is None else _root_of_squares(x, coil_start, free, held, encoding))
    return images


def _root_of_squares(x: Tensor, coil_start: Tensor, free: Tensor, held: Tensor, encoding: Encoding) -> Tensor:
    """The images of the coils, of whose k-space `cascaded` keeps two parts, by the root of the sum of squares."""
    plain = torch.fft.ifftshift(encoding.mask, dim=(-2, -1))
    sampled = torch.fft.ifft2(torch.fft.fft2(encoding.expand(held - free)) * plain)
    size = torch.linalg.vector_norm(coil_start - encoding.expand(free) - sampled, dim=-3)
    return size * torch.where(x == 0, torch.ones_like(x), torch.sgn(x))


def solved(
    rhs: Tensor, encoding: Encoding, weight: Tensor | float, *, iterations: int, tolerance: float = 1e-5
) -> Tensor:
    """Solution x of (E^H E + weight) x = rhs, both (batch, echo, y, x), by conjugate gradients.

    Differentiable in `rhs`, the sensitivities and `weight` by the implicit function theorem. The backward pass solves
    the same equation for the gradient (Aggarwal 2019, section III), and no iteration is kept in memory.
    """

    def solution(b: Tensor) -> Tensor:
        with torch.no_grad():
            x: Tensor = conjugate_gradients(
                lambda v: encoding.normal(v) + weight * v, b, iterations=iterations, tolerance=tolerance
            )
        return x

    x = solution(rhs)
    if not torch.is_grad_enabled():
        return x
    residual = rhs - encoding.normal(x) - weight * x
    if not residual.requires_grad:
        return x
    residual.register_hook(solution)
    return x + (residual - residual.detach())


def replace(kspace: Tensor, data: Tensor, mask: Tensor) -> Tensor:
    """Measured samples where there are any, k elsewhere: hard data consistency (Schlemper 2018, eq. 8, noise-free)."""
    return torch.where(mask, data, kspace)
