"""Smooth and sharp fields over a plane: coordinates, band-limited noise, low-pass filters. Axes: (batch, y, x)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch

from mrnets.physics.interpolation import cubic
from training.simulation.draws import Draws

__all__ = ["band_limited", "between", "chebyshev", "constant", "each", "keys", "low_passed", "positions"]

Plane = tuple[int, int]


def constant(values: object, device: torch.device) -> torch.Tensor:
    """float32 on the device; the copy does not wait for the device's work."""
    return torch.as_tensor(np.asarray(values, dtype=np.float32)).to(device, non_blocking=True)


def each(values: torch.Tensor) -> torch.Tensor:
    """One value for each slice, (batch,), to (batch, 1, 1)."""
    return values[:, None, None]


def positions(n: int, device: torch.device) -> torch.Tensor:
    """(n,) places of the pixels in half fields of view: [-1, 1), pixel n // 2 at 0."""
    return (torch.arange(n, device=device) - n // 2) * (2.0 / n)


def spectrum(shape: Plane, device: torch.device) -> torch.Tensor:
    """(y, x // 2 + 1): square of the frequency, cycles over the field of view, as `torch.fft.rfft2` orders it."""
    y = torch.fft.fftfreq(shape[0], 1 / shape[0], device=device)
    x = torch.fft.rfftfreq(shape[1], 1 / shape[1], device=device)
    return y[:, None] ** 2 + x**2


def low_passed(images: torch.Tensor, cycles: torch.Tensor) -> torch.Tensor:
    """`images` after a Gaussian low-pass; cycles (batch,): over the field of view, where it has fallen to exp(-1/2)."""
    shape = (images.shape[-2], images.shape[-1])
    gain = torch.exp(-0.5 * spectrum(shape, images.device) / each(cycles) ** 2)
    return torch.fft.irfft2(torch.fft.rfft2(images) * gain, s=shape)


def band_limited(draws: Draws, shape: Plane, cycles: torch.Tensor) -> torch.Tensor:
    """Random fields of mean 0 and variance 1, whose spectrum falls from the centre and ends at `cycles` (batch,)."""
    square = spectrum(shape, draws.device) / each(cycles) ** 2
    gain = torch.clamp(1 - square, min=0) / torch.sqrt(square + 0.02)
    gain[:, 0, 0] = 0
    return unit_variance(torch.fft.irfft2(torch.fft.rfft2(draws.normal(*shape)) * gain, s=shape))


def unit_variance(field: torch.Tensor) -> torch.Tensor:
    """`field` with mean 0 and variance 1."""
    centred = field - field.mean((-2, -1), keepdim=True)
    return centred / centred.square().mean((-2, -1), keepdim=True).sqrt().clamp(min=1e-9)


@functools.lru_cache(maxsize=1024)
def chebyshev(pixels: int, nodes: int, device: torch.device, *, reach: float = 1.0) -> torch.Tensor:
    """(pixels, nodes): polynomial interpolation to the pixels' places, from values at Chebyshev points.

    These are at reach * cos(pi (k + 1/2) / nodes); reach is in half fields of view.
    """
    points = np.cos(np.pi * (np.arange(nodes) + 0.5) / nodes)
    coefficients = np.polynomial.chebyshev.chebvander(points, nodes - 1).T * (2 / nodes)
    coefficients[0] /= 2
    places = (np.arange(pixels) - pixels // 2) * (2 / pixels) / reach
    return constant(np.polynomial.chebyshev.chebvander(places, nodes - 1) @ coefficients, device)


@functools.lru_cache(maxsize=1024)
def keys(pixels: int, nodes: int, device: torch.device) -> torch.Tensor:
    """(pixels, nodes): cubic convolution from a coarse periodic grid."""
    return constant(cubic(pixels, nodes), device)


def between(field: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """(..., y', x') from (..., v, u): the matrices (y', v) and (x', u) applied along the last two axes."""
    rows, columns = (m.to(field.dtype) for m in matrices)
    return rows @ field @ columns.mT
