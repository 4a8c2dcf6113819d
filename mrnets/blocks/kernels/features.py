"""Passes over the features between convolutions.

Axes: (n, channel, pixel), or (n, pixel, channel) where BLOCK_C is more than 1. A program takes BLOCK_P pixels of
BLOCK_C channels at a time. Sums are float32, and results have the type of what they overwrite.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["add_in_place", "film_in_place", "gradient_sums", "moments", "normalise_gradient", "normalise_in_place"]

_EPSILON = tl.constexpr(1e-5)


@triton.jit
def _places(n, p, c, pixels, channels, BLOCK_C: tl.constexpr):
    """Where features lie in memory, [BLOCK_P, BLOCK_C]."""
    first = n.to(tl.int64) * pixels * channels
    if BLOCK_C > 1:
        return first + p[:, None] * channels + c[None, :]
    else:
        return first + p[:, None] + c[None, :] * pixels


@triton.jit
def _own_parts(parts, BLOCK_C: tl.constexpr):
    """Where the parts of this program's plane begin, (chunk, 2, BLOCK_C)."""
    plane = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    return parts + plane * tl.num_programs(0) * (2 * BLOCK_C)


@triton.jit
def _store_part(parts, first, second, BLOCK_C: tl.constexpr):
    """Store both sums of this program's chunk."""
    here = _own_parts(parts, BLOCK_C) + tl.program_id(0) * (2 * BLOCK_C) + tl.arange(0, BLOCK_C)
    tl.store(here, first)
    tl.store(here + BLOCK_C, second)


@triton.jit
def _parts_of_all(parts, SPLITS: tl.constexpr, BLOCK_C: tl.constexpr):
    """Both sums of all chunks of this program's plane, [SPLITS, BLOCK_C] each, and 0 beyond the last chunk."""
    chunks = tl.arange(0, SPLITS)[:, None]
    part = _own_parts(parts, BLOCK_C) + chunks * (2 * BLOCK_C) + tl.arange(0, BLOCK_C)[None, :]
    there = (chunks < tl.num_programs(0)) & (tl.arange(0, BLOCK_C) >= 0)[None, :]
    return tl.load(part, mask=there, other=0.0), tl.load(part + BLOCK_C, mask=there, other=0.0)


@triton.jit
def moments(x, parts, pixels, channels, chunk, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Write the mean and the sum of squared deviations of each `chunk` of pixels.

    parts: (n, block of channels, chunk, 2, BLOCK_C).
    Blocks are joined as by Chan, Golub and LeVeque (1983): the sum is that of deviations, whatever the mean is.
    """
    split, block, n = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    c = block * BLOCK_C + tl.arange(0, BLOCK_C)
    first = split * chunk
    last = tl.minimum(first + chunk, pixels)
    count = 0.0
    mean = tl.zeros((BLOCK_C,), tl.float32)
    squares = tl.zeros((BLOCK_C,), tl.float32)
    for start in range(first, last, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        inside = (p < last)[:, None] & (c < channels)[None, :]
        value = tl.load(x + _places(n, p, c, pixels, channels, BLOCK_C), mask=inside, other=0.0).to(tl.float32)
        here = tl.minimum(last - start, BLOCK_P).to(tl.float32)
        middle = tl.sum(value, 0) / here
        away = tl.where(inside, value - middle[None, :], 0.0)
        apart = middle - mean
        squares += tl.sum(away * away, 0) + apart * apart * (count * here / (count + here))
        mean += apart * (here / (count + here))
        count += here
    _store_part(parts, mean, squares, BLOCK_C)


@triton.jit
def normalise_in_place(
    x,
    scales,
    parts,
    pixels,
    channels,
    chunk,
    slope,
    SCALES: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Instance normalisation by the `moments` of all chunks, and leaky ReLU. SPLITS: a power of two, not below them.

    scales: (n, channel). With SCALES, what deviations from the mean are multiplied with is written there.
    """
    split, block, n = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    c = block * BLOCK_C + tl.arange(0, BLOCK_C)
    means, squares = _parts_of_all(parts, SPLITS, BLOCK_C)
    counts = tl.maximum(tl.minimum(pixels - tl.arange(0, SPLITS)[:, None] * chunk, chunk), 0).to(tl.float32)
    mean = tl.sum(means * counts, 0) / pixels
    apart = means - mean[None, :]
    squares += counts * apart * apart
    scale = tl.rsqrt(tl.sum(squares, 0) / pixels + _EPSILON)
    if SCALES:
        tl.store(scales + n * channels + c, scale, mask=(c < channels) & (split == 0))
    first = split * chunk
    last = tl.minimum(first + chunk, pixels)
    for start in range(first, last, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        inside = (p < last)[:, None] & (c < channels)[None, :]
        place = x + _places(n, p, c, pixels, channels, BLOCK_C)
        value = (tl.load(place, mask=inside, other=0.0).to(tl.float32) - mean[None, :]) * scale[None, :]
        tl.store(place, tl.where(value < 0, value * slope, value).to(x.dtype.element_ty), mask=inside)


@triton.jit
def gradient_sums(gradient, out, parts, pixels, channels, chunk, slope, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Write two sums over each `chunk` of pixels: of the gradient before the leaky ReLU, and of its product with what
    that was applied to.

    out: of `normalise_in_place`. parts: as of `moments`.
    """
    split, block, n = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    c = block * BLOCK_C + tl.arange(0, BLOCK_C)
    first = split * chunk
    last = tl.minimum(first + chunk, pixels)
    total = tl.zeros((BLOCK_C,), tl.float32)
    along = tl.zeros((BLOCK_C,), tl.float32)
    for start in range(first, last, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        inside = (p < last)[:, None] & (c < channels)[None, :]
        place = _places(n, p, c, pixels, channels, BLOCK_C)
        value = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
        made = tl.load(out + place, mask=inside, other=0.0).to(tl.float32)
        total += tl.sum(tl.where(made < 0, value * slope, value), 0)
        along += tl.sum(value * made, 0)
    _store_part(parts, total, along, BLOCK_C)


@triton.jit
def normalise_gradient(
    gradient,
    out,
    made,
    scales,
    parts,
    pixels,
    channels,
    chunk,
    slope,
    SPLITS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Write to `made` the gradient before `normalise_in_place`, by the `gradient_sums` of all chunks."""
    split, block, n = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    c = block * BLOCK_C + tl.arange(0, BLOCK_C)
    totals, products = _parts_of_all(parts, SPLITS, BLOCK_C)
    mean = tl.sum(totals, 0) / pixels
    along = tl.sum(products, 0) / pixels
    scale = tl.load(scales + n * channels + c, mask=c < channels, other=0.0)
    first = split * chunk
    last = tl.minimum(first + chunk, pixels)
    for start in range(first, last, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        inside = (p < last)[:, None] & (c < channels)[None, :]
        place = _places(n, p, c, pixels, channels, BLOCK_C)
        value = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
        normal = tl.load(out + place, mask=inside, other=0.0).to(tl.float32)
        value = tl.where(normal < 0, value * slope, value)
        normal = tl.where(normal < 0, normal / slope, normal)
        value = (value - mean[None, :] - normal * along[None, :]) * scale[None, :]
        tl.store(made + place, value.to(made.dtype.element_ty), mask=inside)


@triton.jit
def film_in_place(x, bias, film, pixels, channels, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """x <- relu((x + bias) (1 + scale) + shift), with film (n, 2 channel): the scales, then the shifts.

    NaN stays NaN.
    """
    n = tl.program_id(2)
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = c < channels
    inside = (p < pixels)[:, None] & known[None, :]
    film += n * 2 * channels + c
    scale = 1 + tl.load(film, mask=known, other=0.0).to(tl.float32)
    shift = tl.load(film + channels, mask=known, other=0.0).to(tl.float32)
    shift += scale * tl.load(bias + c, mask=known, other=0.0).to(tl.float32)
    place = x + _places(n, p, c, pixels, channels, BLOCK_C)
    value = tl.load(place, mask=inside, other=0.0).to(tl.float32) * scale[None, :] + shift[None, :]
    tl.store(place, tl.where(value < 0, 0.0, value).to(x.dtype.element_ty), mask=inside)


@triton.jit
def add_in_place(x, bias, other, pixels, channels, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """x <- x + bias + other, where `other` has the order of x in memory."""
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    known = c < channels
    inside = (p < pixels)[:, None] & known[None, :]
    place = _places(tl.program_id(2), p, c, pixels, channels, BLOCK_C)
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(bias + c, mask=known, other=0.0).to(tl.float32)[None, :]
    value += tl.load(other + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(x + place, value.to(x.dtype.element_ty), mask=inside)
