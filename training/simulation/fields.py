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
from numpy.typing import NDArray

from mrnets.physics.interpolation import cubic_at, trigonometric
from training.simulation.draws import Draws

__all__ = [
    "band_limited",
    "between",
    "chebyshev",
    "chebyshev_turns",
    "checkerboard",
    "constant",
    "cosines",
    "each",
    "energy",
    "frequencies2",
    "keys",
    "low_passed",
    "periodic",
    "positions",
    "refined",
    "smooth",
    "turns",
    "waves",
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
    return torch.fft.ifft2(torch.fft.fft2(images).mul_(y[:, :, None] * x[:, None]))


@functools.lru_cache(maxsize=1024)
def cosines(pixels: int, terms: int, device: torch.device) -> torch.Tensor:
    """(pixels, terms): cosines of 0, 1/2, 1 and more cycles over the field of view, of mean square 1."""
    order = torch.arange(terms, device=device)
    waves = torch.cos(0.5 * math.pi * order * (positions(pixels, device)[:, None] + 1))
    return waves * torch.where(order > 0, 2**0.5, 1.0)


def smooth(draws: Draws, terms: int) -> torch.Tensor:
    """(batch, terms, terms): random sums of `cosines` along y and x, of fewer cycles the stronger.

    The fields have the mean 0 and the variance 1.
    """
    return _unit_variance(draws.normal(terms, terms) * _falling(terms, draws.device))


@functools.lru_cache(maxsize=16)
def _falling(terms: int, device: torch.device) -> torch.Tensor:
    """(terms, terms): standard deviations of the weights of `cosines`, whose mean square is 1."""
    order = torch.arange(terms, device=device)
    halved = torch.where(order > 0, 0.5**0.5, 1.0)
    return halved[:, None] * halved / (1 + order[:, None] ** 2 + order**2)


@functools.lru_cache(maxsize=1024)
def waves(pixels: int, most: int, device: torch.device) -> torch.Tensor:
    """(pixels, 2 most + 1): 1, cosines and sines of 1 to `most` cycles over the field of view, of mean square 1."""
    angle = math.pi * positions(pixels, device)[:, None] * torch.arange(1, most + 1, device=device)
    return torch.cat([torch.ones_like(angle[:, :1]), 2**0.5 * torch.cos(angle), 2**0.5 * torch.sin(angle)], 1)


def band_limited(draws: Draws, cycles: torch.Tensor, most: int) -> torch.Tensor:
    """(batch, 2 most + 1, 2 most + 1): random sums of `waves` along y and x.

    The fields have the mean 0 and the variance 1. Their spectrum falls from the centre and ends at `cycles` (batch,).
    """
    square = _cycles2(most, draws.device) / each(cycles.square())
    gain = torch.clamp(1 - square, min=0) * torch.rsqrt(square + 0.02)
    return _unit_variance(gain.mul_(draws.normal(*gain.shape[1:])))


@functools.lru_cache(maxsize=16)
def _cycles2(most: int, device: torch.device) -> torch.Tensor:
    """(2 most + 1, 2 most + 1): squares of the frequencies of products of `waves`."""
    rising = torch.arange(most + 1, device=device)
    square = torch.cat([rising, rising[1:]]).square()
    return (square[:, None] + square).float()


def _unit_variance(weights: torch.Tensor) -> torch.Tensor:
    """Weights of orthonormal functions, the first one constant, for fields of mean 0 and variance 1."""
    weights[:, 0, 0] = 0
    return weights * weights.square().sum((1, 2), keepdim=True).clamp(min=1e-18).rsqrt_()


@functools.lru_cache(maxsize=1024)
def turns(pixels: int, low: int, high: int, device: torch.device) -> torch.Tensor:
    """(pixels, high - low + 1) complex64: exp(2 pi i f x) of the frequencies from `low` to `high`, in cycles over the
    field of view."""
    return _turns(positions(pixels, device), low, high)


@functools.lru_cache(maxsize=1024)
def chebyshev_turns(nodes: int, low: int, high: int, device: torch.device) -> torch.Tensor:
    """(nodes, high - low + 1) complex64: those of `turns` at Chebyshev points."""
    return _turns(torch.from_numpy(_points(nodes)).float().to(device), low, high)


def _turns(places: torch.Tensor, low: int, high: int) -> torch.Tensor:
    angle = math.pi * places[:, None] * torch.arange(low, high + 1, device=places.device)
    return torch.polar(torch.ones_like(angle), angle)


@functools.lru_cache(maxsize=1024)
def chebyshev(pixels: int, nodes: int, device: torch.device, *, reach: float = 1.0) -> torch.Tensor:
    """(pixels, nodes): polynomial interpolation to the pixels' places, from values at Chebyshev points.

    These are at reach * cos(pi (k + 1/2) / nodes); reach is in half fields of view.
    """
    places = (np.arange(pixels, dtype=np.float64) - pixels // 2) * (2 / pixels / reach)
    return _chebyshev(places, nodes, device)


@functools.lru_cache(maxsize=1024)
def refined(nodes: int, coarse: int, device: torch.device) -> torch.Tensor:
    """(nodes, coarse): polynomial interpolation from `coarse` Chebyshev points to more of them."""
    return _chebyshev(_points(nodes), coarse, device)


def _points(nodes: int) -> NDArray[np.float64]:
    return np.asarray(np.cos(np.pi * (np.arange(nodes) + 0.5) / nodes))


def _chebyshev(places: NDArray[np.float64], nodes: int, device: torch.device) -> torch.Tensor:
    coefficients = np.polynomial.chebyshev.chebvander(_points(nodes), nodes - 1).T * (2 / nodes)
    coefficients[0] /= 2
    return torch.from_numpy(np.polynomial.chebyshev.chebvander(places, nodes - 1) @ coefficients).float().to(device)


@functools.lru_cache(maxsize=1024)
def keys(nodes: int, coarse: int, device: torch.device) -> torch.Tensor:
    """(nodes, coarse): cubic convolution from a coarse periodic grid to Chebyshev points."""
    return torch.from_numpy(cubic_at(_points(nodes) * (coarse / 2) + coarse // 2, coarse)).float().to(device)


@functools.lru_cache(maxsize=1024)
def periodic(pixels: int, samples: int, device: torch.device) -> torch.Tensor:
    """(pixels, samples): trigonometric interpolation from an odd number of samples at `positions`."""
    matrix = np.roll(trigonometric(pixels, samples), samples // 2, axis=1)
    return torch.from_numpy(matrix).float().to(device)


def between(field: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """(..., y', x') from (..., v, u): the matrices (y', v) and (x', u) applied along the last two axes."""
    rows, columns = matrices
    if rows.is_complex() or not field.is_complex():
        return rows @ (field @ columns.mT)
    # Real products: half the work of complex ones. The larger one writes real and imaginary parts side by side.
    parts = torch.view_as_real(field).movedim(-1, -3) @ columns.mT
    pairs = rows @ parts.movedim(-3, -1).flatten(-2)
    return torch.view_as_complex(pairs.unflatten(-1, (-1, 2)))
