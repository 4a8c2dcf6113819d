"""Consistency with the measured data: cascades on images, regularised solutions and k-space replacement.

Axes: image (batch, echo, y, x); kspace (batch, echo, coil, y, x); mask (batch or 1, 1, 1, y, x).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from mrnets.blocks import fused
from mrnets.blocks.complex import on_planes
from mrnets.blocks.encoding import Encoding
from mrnets.physics.wavelets import FINE, LEVELS, Steps, detail_noise, l1_wavelet

__all__ = ["cascaded", "combined", "noise_level", "replace", "solved", "sparse"]

_STEPS = Steps(fused.convolved, fused.shrinking)


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
) -> list[Tensor]:
    """Images after each cascade k <- k - w M (k - y) - E D(E^H k), from k = y; each D has its w.

    denoisers: each D takes and gives complex (batch * echo, 1, y, x).
    guess: an image whose k-space stands where nothing was measured, at the start; None: zeros.

    The k-space of all coils is never formed. It is k = y - M F S held - (1 - M) F S free with two images, held and
    free. A cascade makes (1 - w) held + D(x) of the one and free + D(x) of the other. The image is x = E^H k = E^H y -
    S^H S free - E^H E (held - free).
    """
    power, start = encoding.power(), encoding.start
    images = []
    free = held = torch.zeros_like(start)
    x = start
    if guess is not None:
        free = -guess
        x = start - power * free - encoding.normal(held - free)
    for denoiser, weight in zip(denoisers, weights, strict=True):
        correction = on_planes(denoiser, x)
        free = free + correction
        held = (1 - weight) * held + correction
        x = start - power * free - encoding.normal(held - free)
        images.append(x)
    return images


def solved(
    rhs: Tensor, encoding: Encoding, weight: Tensor | float, *, iterations: int, tolerance: float = 1e-5
) -> Tensor:
    """Solution x of (E^H E + weight) x = rhs, both (batch, echo, y, x), by conjugate gradients.

    Differentiable in `rhs`, the sensitivities and `weight` by the implicit function theorem. The backward pass solves
    the same equation for the gradient (Aggarwal 2019, section III), and no iteration is kept in memory.
    """

    def solution(b: Tensor) -> Tensor:
        with torch.no_grad():
            return fused.conjugate_gradients(
                lambda v: encoding.normal(v) + weight * v,
                b,
                iterations=iterations,
                tolerance=tolerance,
                axes=(-3, -2, -1) if encoding.sets else (-2, -1),
            )

    x = solution(rhs)
    if not torch.is_grad_enabled():
        return x
    residual = rhs - encoding.normal(x) - weight * x
    if not residual.requires_grad:
        return x
    residual.register_hook(solution)
    return x + (residual - residual.detach())


def noise_level(encoding: Encoding, noise: Tensor | None) -> Tensor:
    """Return `noise` (batch,) as (batch, 1, 1, 1).

    None: it comes from the details of the zero-filled image, (batch, echo, 1, 1), of the first set of maps.
    """
    start = encoding.start[:, :1] if encoding.sets else encoding.start
    level: Tensor = detail_noise(start) if noise is None else noise[:, None, None, None]
    return level


def sparse(
    encoding: Encoding,
    noise: Tensor | None,
    *,
    iterations: int,
    levels: int = LEVELS,
    regularisation: float = FINE,
) -> Tensor:
    """The l1-wavelet image (batch, echo, y, x), in float32 whatever autocast is on; see `mrnets.physics.wavelets`.

    noise: (batch,), the noise level of the scan; None: it comes from the details of the zero-filled image.
    """
    with torch.autocast(encoding.start.device.type, enabled=False):
        image: Tensor = l1_wavelet(
            encoding.start,
            encoding.sens,
            encoding.mask,
            noise_level(encoding, noise),
            sets=encoding.sets,
            iterations=iterations,
            levels=levels,
            regularisation=regularisation,
            steps=_STEPS,
        )
    return image


def replace(kspace: Tensor, data: Tensor, mask: Tensor) -> Tensor:
    """Measured samples where there are any, k elsewhere: hard data consistency (Schlemper 2018, eq. 8, noise-free)."""
    return torch.where(mask, data, kspace)
