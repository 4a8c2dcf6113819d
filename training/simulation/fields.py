"""Smooth and sharp fields over a plane: coordinates, band-limited noise, low-pass filters, transforms.

Axes: (batch, y, x). Images and k-space that are called signed are multiplied by a checkerboard of signs, -1 where y + x
is odd. Between those the plain Fourier transform is the centred one, for sizes that are multiples of 4; nothing need be
shifted. What multiplies images or k-space pixel by pixel keeps them signed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch

from mrnets.physics.interpolation import cubic
from training.simulation.draws import Draws

__all__ = [
    "band_limited",
    "between",
    "chebyshev",
    "checkerboard",
    "constant",
    "each",
    "energy",
    "frequencies2",
    "keys",
    "low_passed",
    "positions",
    "smooth",
    "turns",
    "unit_variance",
]

Plane = tuple[int, int]


@functools.lru_cache(maxsize=1024)
def checkerboard(shape: Plane, device: torch.device) -> torch.Tensor:
    """(y, x) float32: 1 where y + x is even, -1 where it is odd."""
    y, x = (1 - 2 * (torch.arange(n, device=device) % 2) for n in shape)
    return (y[:, None] * x).float()


def energy(x: torch.Tensor) -> torch.Tensor:
    """(batch, y, x): squared magnitudes of complex (batch, coil, y, x), summed over the coils."""
    real, imaginary = torch.view_as_real(x).square().sum(1).unbind(-1)
    return real + imaginary


@functools.lru_cache(maxsize=1024)
def constant(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """(n,) float32 on the device; copied there once, since a copy may wait for the device."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def each(values: torch.Tensor) -> torch.Tensor:
    """One value for each slice, (batch,), to (batch, 1, 1)."""
    return values[:, None, None]


@functools.lru_cache(maxsize=1024)
def positions(n: int, device: torch.device) -> torch.Tensor:
    """(n,) places of the pixels in half fields of view: [-1, 1), pixel n // 2 at 0."""
    return (torch.arange(n, device=device) - n // 2) * (2.0 / n)


@functools.lru_cache(maxsize=1024)
def frequencies2(pixels: int, device: torch.device) -> torch.Tensor:
    """(pixels,): squares of the frequencies, in cycles over the field of view, as `torch.fft.fft` orders them."""
    return torch.fft.fftfreq(pixels, 1 / pixels, device=device).square()


def low_passed(images: torch.Tensor, cycles: torch.Tensor) -> torch.Tensor:
    """Complex `images` after a Gaussian low-pass that has fallen to exp(-1/2) at `cycles` (batch,) over the field."""
    y, x = (torch.exp(-0.5 * frequencies2(n, images.device) / cycles.square()[:, None]) for n in images.shape[-2:])
    return torch.fft.ifft2(torch.fft.fft2(images) * (y[:, :, None] * x[:, None]))


@functools.lru_cache(maxsize=1024)
def _cosines(pixels: int, terms: int, device: torch.device) -> torch.Tensor:
    """(pixels, terms): cosines of 0, 1/2, 1 and more cycles over the field of view."""
    return torch.cos(0.5 * math.pi * torch.arange(terms, device=device) * (positions(pixels, device)[:, None] + 1))


def smooth(draws: Draws, shape: Plane, terms: int = 4) -> torch.Tensor:
    """Random fields of mean 0 and variance 1: sums of `terms` cosines along each axis, of fewer cycles the stronger."""
    order = torch.arange(terms, device=draws.device)
    weight = draws.normal(terms, terms) / (1 + order[:, None] ** 2 + order**2)
    return unit_variance(between(weight, [_cosines(n, terms, draws.device) for n in shape]))


@functools.lru_cache(maxsize=1024)
def turns(pixels: int, low: int, high: int, device: torch.device) -> torch.Tensor:
    """(pixels, high - low + 1) complex64: exp(2 pi i f x) of the frequencies from `low` to `high`, in cycles over the
    field of view."""
    frequency = torch.arange(low, high + 1, device=device)
    angle = math.pi * positions(pixels, device)[:, None] * frequency
    return torch.polar(torch.ones_like(angle), angle)


def band_limited(draws: Draws, shape: Plane, cycles: torch.Tensor, most: float) -> torch.Tensor:
    """Random fields of mean 0 and variance 1. Their spectrum falls from the centre and ends at `cycles` over the field
    of view.
    cycles: (batch,), at most `most`."""
    end = math.ceil(most)
    y, x = torch.arange(-end, end + 1, device=draws.device), torch.arange(end + 1, device=draws.device)
    square = (y[:, None] ** 2 + x**2) / each(cycles.square())
    gain = torch.clamp(1 - square, min=0) / torch.sqrt(square + 0.02)
    gain[:, end, 0] = 0
    spectrum = gain * draws.complex_normal(len(y), len(x))
    rows, columns = turns(shape[0], -end, end, draws.device), turns(shape[1], 0, end, draws.device)
    return unit_variance(between(spectrum, (rows, columns)).real)


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
    return torch.from_numpy(np.polynomial.chebyshev.chebvander(places, nodes - 1) @ coefficients).float().to(device)


@functools.lru_cache(maxsize=1024)
def keys(pixels: int, nodes: int, device: torch.device) -> torch.Tensor:
    """(pixels, nodes): cubic convolution from a coarse periodic grid."""
    return torch.from_numpy(cubic(pixels, nodes)).float().to(device)


def between(field: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """(..., y', x') from (..., v, u): the matrices (y', v) and (x', u) applied along the last two axes."""
    rows, columns = (m.to(field.dtype) for m in matrices)
    return rows @ field @ columns.mT
