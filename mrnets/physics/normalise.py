"""Normalisation: the scale, and for real images the offset, by which data get a range that a network can learn in.

Axes: values (..., sample), each leading index with a scale of its own. The normalised data may have any number of
further axes. The definitions are those of ATOMMIC 1.0.1, with one exception. Complex data are only divided by a
positive number, because a real number subtracted from every coil is a spike in k-space.
"""

from __future__ import annotations

from typing import Any, Literal

from mrnets.physics.arrays import Array, array_namespace

__all__ = ["Normalisation", "denormalised", "normalised", "scale_and_offset"]

Normalisation = Literal["max", "minmax", "mean_std", "mean_var", "grayscale", "fft", "none"]

_GREYS = 255


def scale_and_offset(values: Array, normalisation: Normalisation, where: Array | None = None) -> tuple[Array, Array]:
    """Scale and offset (...) float32 of values (..., sample), complex or real, for (values - offset) / scale.

    max: the largest magnitude, no offset. minmax: to the range from 0 to 1. grayscale: to that from 0 to 255.
    mean_std: the mean becomes 0, the standard deviation (divisor samples - 1) 1.
    mean_var: the mean becomes 0, and the divisor is the variance. The result has the unit of 1 / values, so it depends
    on the scanner's units.
    fft, none: the data stay as the orthonormal transform has them.
    Complex values count by their magnitudes and get the offset 0. `where` (..., sample), bool: values that count; all
    where None. Values without any range (an empty slice) get the scale 1.
    """
    xp = array_namespace(values)
    is_complex = xp.isdtype(values.dtype, "complex floating")
    x = xp.abs(values) if is_complex else values
    counts = xp.ones_like(x, dtype=xp.bool) if where is None else xp.broadcast_to(where, x.shape)
    zero = xp.zeros_like(x[..., 0])
    if normalisation in ("fft", "none"):
        return zero + 1, zero
    if normalisation == "max":
        scale, offset = xp.max(xp.where(counts, xp.abs(x), xp.zeros_like(x)), axis=-1), zero
    elif normalisation in ("minmax", "grayscale"):
        offset = xp.min(xp.where(counts, x, xp.full_like(x, xp.inf)), axis=-1)
        scale = xp.max(xp.where(counts, x, xp.full_like(x, -xp.inf)), axis=-1) - offset
        scale = scale / _GREYS if normalisation == "grayscale" else scale
    else:
        offset, variance = _moments(x, counts)
        scale = xp.sqrt(variance) if normalisation == "mean_std" else variance
    usable = xp.isfinite(scale) & (scale > 0)
    scale = xp.where(usable, scale, xp.ones_like(scale))
    offset = zero if is_complex else xp.where(xp.isfinite(offset), offset, zero)
    return scale, offset


def _moments(x: Array, counts: Array) -> tuple[Array, Array]:
    """Mean and variance over the last axis, of those that count."""
    xp = array_namespace(x)
    number = xp.sum(xp.astype(counts, x.dtype), axis=-1)
    none = xp.zeros_like(x)
    mean = xp.sum(xp.where(counts, x, none), axis=-1) / xp.where(number > 0, number, xp.ones_like(number))
    squares = xp.sum(xp.where(counts, (x - mean[..., None]) ** 2, none), axis=-1)
    return mean, squares / xp.where(number > 1, number - 1, xp.ones_like(number))


def normalised(x: Array, scale: Array, offset: Array) -> Array:
    """(x - offset) / scale; scale and offset have the first axes of x, and hold for the others. dtype as x."""
    return (x - _along(offset, x)) / _along(scale, x)


def denormalised(x: Array, scale: Array, offset: Array) -> Array:
    """The inverse of `normalised`."""
    return x * _along(scale, x) + _along(offset, x)


def _along(values: Array, x: Array) -> Any:
    return array_namespace(x).reshape(values, (*values.shape, *[1] * (x.ndim - values.ndim)))
