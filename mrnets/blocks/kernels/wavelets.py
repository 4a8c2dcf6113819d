"""A level of the wavelet transform of `mrnets.physics.wavelets`, and back. Complex numbers are pairs of float32.

Axes: image (n, y, x); coefficients (n, band, y, x), bands: coarse, details along x, along y, along both.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mrnets.physics.wavelets import LOW

__all__ = ["BLOCK", "wavelet_down", "wavelet_up"]

BLOCK = tl.constexpr(128)
"""Places in a program."""
_A, _B, _C, _D = (tl.constexpr(tap) for tap in LOW)


@triton.jit
def _low(j: tl.constexpr):
    """Tap j of the low-pass filter."""
    return _A if j == 0 else (_B if j == 1 else (_C if j == 2 else _D))


@triton.jit
def _high(j: tl.constexpr):
    """Tap j of the high-pass filter: the other one backwards, with signs in turn."""
    return _D if j == 0 else (-_C if j == 1 else (_B if j == 2 else -_A))


@triton.jit
def _bands(x, ky, kx, inside, height, width, shift, h, w):
    """One part, real or imaginary, of the four bands at (ky, kx): coarse, details along x, along y, along both."""
    coarse = tl.zeros(ky.shape, tl.float32)
    along_x, along_y, along_both = coarse, coarse, coarse
    for j in tl.static_range(4):
        y = (2 * ky + j) % (2 * h) - shift // 256
        y = tl.where(y < 0, y + 2 * h, y)
        low = tl.zeros(ky.shape, tl.float32)
        high = low
        for i in tl.static_range(4):
            c = (2 * kx + i) % (2 * w) - shift % 256
            c = tl.where(c < 0, c + 2 * w, c)
            value = tl.load(x + 2 * (y * width + c), mask=inside & (y < height) & (c < width), other=0.0)
            low += _low(i) * value
            high += _high(i) * value
        coarse += _low(j) * low
        along_y += _high(j) * low
        along_x += _low(j) * high
        along_both += _high(j) * high
    return coarse, along_x, along_y, along_both


@triton.jit
def _store_drawn(place, real, imag, threshold, inside):
    """Store a complex number with `threshold` less magnitude, or 0."""
    size = tl.sqrt(real * real + imag * imag)
    kept = tl.maximum(size - threshold, 0.0) / tl.maximum(size, 1e-30)
    tl.store(place, real * kept, mask=inside)
    tl.store(place + 1, imag * kept, mask=inside)


@triton.jit(do_not_specialize=["shift"])
def wavelet_down(
    x,
    coefficients,
    thresholds,
    height,
    width,
    shift,
    h,
    w,
    FIRST: tl.constexpr,
):
    """Write coefficients (n, band, h, w) of x (n, height, width), with details drawn to 0 by thresholds (n,).

    shift: 256 y + x. x is moved by it in a plane of 2h by 2w, which is periodic, with zeros where x has no pixels.
    FIRST: whether x is an image. Otherwise it is the first band of coefficients (n, 4, height, width).
    """
    n = tl.program_id(1).to(tl.int64)
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    ky, kx, inside = o // w, o % w, o < h * w
    x += n * (1 if FIRST else 4) * 2 * height * width
    c0, x0, y0, b0 = _bands(x, ky, kx, inside, height, width, shift, h, w)
    c1, x1, y1, b1 = _bands(x + 1, ky, kx, inside, height, width, shift, h, w)
    threshold = tl.load(thresholds + n)
    place = coefficients + n * 8 * h * w + 2 * o
    tl.store(place, c0, mask=inside)
    tl.store(place + 1, c1, mask=inside)
    _store_drawn(place + 2 * h * w, x0, x1, threshold, inside)
    _store_drawn(place + 4 * h * w, y0, y1, threshold, inside)
    _store_drawn(place + 6 * h * w, b0, b1, threshold, inside)


@triton.jit
def _lines(place, j: tl.constexpr, h, w, inside):
    """Shares of coefficients in an even and an odd line: the coarse and the detailed half along x of each."""
    coarse = tl.load(place, mask=inside, other=0.0)
    along_x = tl.load(place + 2 * h * w, mask=inside, other=0.0)
    along_y = tl.load(place + 4 * h * w, mask=inside, other=0.0)
    along_both = tl.load(place + 6 * h * w, mask=inside, other=0.0)
    even, even_detail = _low(2 * j) * coarse + _high(2 * j) * along_y, _low(2 * j) * along_x + _high(2 * j) * along_both
    odd = _low(2 * j + 1) * coarse + _high(2 * j + 1) * along_y
    return even, even_detail, odd, _low(2 * j + 1) * along_x + _high(2 * j + 1) * along_both


@triton.jit(do_not_specialize=["shift"])
def wavelet_up(coefficients, x, height, width, shift, h, w, FIRST: tl.constexpr):
    """Write x (n, height, width) of the coefficients of `wavelet_down`: its inverse where nothing was drawn to 0."""
    n = tl.program_id(1).to(tl.int64)
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    ky, kx, inside = o // w, o % w, o < h * w
    x += n * (1 if FIRST else 4) * 2 * height * width
    coefficients += n * 8 * h * w
    for part in tl.static_range(2):
        even_even = tl.zeros((BLOCK,), tl.float32)
        even_odd, odd_even, odd_odd = even_even, even_even, even_even
        for i in tl.static_range(2):
            for j in tl.static_range(2):
                from_y = tl.where(ky < j, ky - j + h, ky - j)
                from_x = tl.where(kx < i, kx - i + w, kx - i)
                place = coefficients + 2 * (from_y * w + from_x) + part
                even, even_detail, odd, odd_detail = _lines(place, j, h, w, inside)
                even_even += _low(2 * i) * even + _high(2 * i) * even_detail
                even_odd += _low(2 * i + 1) * even + _high(2 * i + 1) * even_detail
                odd_even += _low(2 * i) * odd + _high(2 * i) * odd_detail
                odd_odd += _low(2 * i + 1) * odd + _high(2 * i + 1) * odd_detail
        for i in tl.static_range(2):
            for j in tl.static_range(2):
                y = 2 * ky + j - shift // 256
                y = tl.where(y < 0, y + 2 * h, y)
                c = 2 * kx + i - shift % 256
                c = tl.where(c < 0, c + 2 * w, c)
                value = (odd_odd if i == 1 else odd_even) if j == 1 else (even_odd if i == 1 else even_even)
                tl.store(x + 2 * (y * width + c) + part, value, mask=inside & (y < height) & (c < width))
