"""Orthogonal wavelets of images of any size, and the reconstruction with them as prior (Lustig et al., MRM 2007).

Axes: image (..., y, x). A level of the transform is a matrix product along each axis, which CPU and GPU do at the speed
of their matrix products; a shift of the image is a shift of the matrices' columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.physics.arrays import Array, array_namespace, asarray_like
from mrnets.physics.coils import normal

__all__ = ["Transform", "analysis", "detail_noise", "l1_wavelet", "shrunk", "synthesis", "transform"]

Transform = tuple[tuple[Array, Array], ...]
"""For each level the matrices (coefficient, pixel) along y and x: the coarse half of the coefficients comes first."""

_LOW = (
    0.2303778133088964,
    0.7148465705529154,
    0.6308807679298587,
    -0.0279837694168599,
    -0.1870348117190931,
    0.0308413818355607,
    0.0328830116668852,
    -0.0105974017850690,
)
"""The low-pass filter of Daubechies' wavelet with four vanishing moments (Daubechies 1988, table 1)."""
LEVELS = 3
COARSE = 0.02
"""Threshold of the first iterations, relative to the image's maximum."""
FINE = 2e-4
"""Part of the last threshold that does not come from noise: what undersampling leaves."""
PER_NOISE = 0.3
"""The other part, in standard deviations of the noise."""
FALL = 0.6
"""Share of the iterations in which the threshold falls from the first to the last."""


def transform(shape: Sequence[int], like: Array, *, levels: int = LEVELS, shift: Sequence[int] = (0, 0)) -> Transform:
    """The transform of images of `shape` (y, x) after a circular shift by `shift` pixels, in the library of `like`.

    An axis is extended to the next multiple of 2^levels by zeros. Raises InputError for fewer than one level.
    """
    if levels < 1:
        raise InputError(f"wavelets: at least one level is needed, got {levels}")
    sizes = [-(-n // 2**levels) * 2**levels for n in shape]
    made = []
    for level in range(levels):
        pair = [_matrix(size >> level) for size in sizes]
        if level == 0:
            pair = [np.roll(m, -s, axis=1)[:, :n] for m, s, n in zip(pair, shift, shape, strict=True)]
        y, x = (asarray_like(np.ascontiguousarray(matrix), like) for matrix in pair)
        made.append((y, x))
    return tuple(made)


def analysis(image: Array, levels: Transform) -> Array:
    """Coefficients (..., y', x') of images (..., y, x), the coarsest in the first corner. It keeps the norm."""
    (rows, columns), *finer = levels
    coefficients = _both(rows, image, columns)
    if finer:
        y, x = (n // 2 for n in coefficients.shape[-2:])
        coefficients[..., :y, :x] = analysis(coefficients[..., :y, :x], tuple(finer))
    return coefficients


def synthesis(coefficients: Array, levels: Transform) -> Array:
    """Images (..., y, x) of coefficients (..., y', x'): the adjoint and the inverse of `analysis`."""
    (rows, columns), *finer = levels
    xp = array_namespace(coefficients)
    if finer:
        y, x = (n // 2 for n in coefficients.shape[-2:])
        coefficients = coefficients + 0
        coefficients[..., :y, :x] = synthesis(coefficients[..., :y, :x], tuple(finer))
    return _both(xp.matrix_transpose(rows), coefficients, xp.matrix_transpose(columns))


def shrunk(image: Array, threshold: Array, levels: Transform) -> Array:
    """`image` with its detail coefficients drawn towards zero by `threshold`, broadcast against (..., y, x).

    Real and imaginary part are drawn together, along their phase. The coarsest coefficients stay.
    """
    xp = array_namespace(image)
    coefficients = analysis(image, levels)
    y, x = (n >> len(levels) for n in coefficients.shape[-2:])
    coarsest = coefficients[..., :y, :x]
    size = xp.abs(coefficients)
    coefficients = coefficients * (xp.clip(size - threshold, min=0) / xp.clip(size, min=1e-30))
    coefficients[..., :y, :x] = coarsest
    return synthesis(coefficients, levels)


def detail_noise(image: Array) -> Array:
    """Standard deviation of complex noise (..., 1, 1) from the finest diagonal details of images (..., y, x).

    By the median of their magnitudes (Donoho and Johnstone 1994), which is sqrt(ln 2) of it for complex noise.
    """
    xp = array_namespace(image)
    coefficients = analysis(image, transform(image.shape[-2:], xp.real(image), levels=1))
    y, x = (n // 2 for n in coefficients.shape[-2:])
    sizes = xp.sort(xp.reshape(xp.abs(coefficients[..., y:, x:]), (*image.shape[:-2], -1)), axis=-1)
    middle: Array = sizes[..., sizes.shape[-1] // 2] / math.sqrt(math.log(2))
    return middle[..., None, None]


def l1_wavelet(
    start: Array,
    sens: Array,
    mask: Array,
    noise: Array,
    *,
    iterations: int = 60,
    levels: int = LEVELS,
    regularisation: float = FINE,
) -> Array:
    """argmin 1/2 ||E x - y||^2 + t ||W x||_1, with `start` = E^H y, by accelerated proximal gradients.

    start (..., y, x); sens (..., coil, y, x) of unit norm; mask as for `coils.normal`; noise, which broadcasts against
    `start`: standard deviation of complex noise in a sample. Nobody has to tune it: the threshold t falls from `COARSE`
    to `PER_NOISE` noise + `regularisation`, relative to an image whose maximum is 1. W is shifted at random
    in every iteration, by the same shifts in every run: an average over places (Coifman and Donoho 1995).
    FISTA: Beck and Teboulle, SIAM J. Imaging Sci. 2009. The device is asked nothing meanwhile.
    """
    xp = array_namespace(start)
    rng = np.random.default_rng(0)
    scale = xp.max(xp.abs(start), axis=(-2, -1), keepdims=True)
    scale = xp.where(scale > 0, scale, xp.ones_like(scale))
    last = PER_NOISE * noise + regularisation * scale
    image = ahead = xp.zeros_like(start)
    momentum = 1.0
    for n in range(iterations):
        done = min(n / (FALL * iterations), 1.0)
        threshold = (COARSE * scale) ** (1 - done) * last**done
        step = ahead - (normal(ahead, sens, mask) - start)
        wavelets = transform(
            start.shape[-2:], xp.real(step), levels=levels, shift=rng.integers(0, 2**levels, 2).tolist()
        )
        previous, image = image, shrunk(step, threshold, wavelets)
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = image + (momentum - 1) / following * (image - previous)
        momentum = following
    return image


def _both(rows: Array, image: Array, columns: Array) -> Array:
    """rows @ image @ columns^T of a complex image and real matrices."""
    xp = array_namespace(image)
    turned = xp.matrix_transpose(columns)
    parts = [xp.matmul(xp.matmul(rows, part), turned) for part in (xp.real(image), xp.imag(image))]
    return parts[0] + 1j * parts[1]


@lru_cache(maxsize=64)
def _matrix(size: int) -> NDArray[np.float32]:
    """(size, size) orthonormal: `size` / 2 coarse coefficients of a periodic line, then as many details."""
    low = np.asarray(_LOW)
    high = low[::-1] * (-1.0) ** np.arange(len(low))
    matrix = np.zeros((2, size // 2, size))
    place = 2 * np.arange(size // 2)[:, None] + np.arange(len(low))
    for half, taps in zip(matrix, (low, high), strict=True):
        np.add.at(half, (np.arange(size // 2)[:, None], place % size), taps)
    return matrix.reshape(size, size).astype(np.float32)
