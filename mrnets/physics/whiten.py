"""Prewhitening: coils mixed linearly so that their noise is white (Pruessmann 2001, appendix A; Kellman 2005).

Axes: coil, and those that each function names. A covariance is (coil, coil), Hermitian, C[i, j] = mean of n_i
conj(n_j). It is complex, because noise has a phase between coils. `coils.mix` applies a whitener to k-space, matmul to
lines (..., coil, sample).
"""

from __future__ import annotations

import math

import numpy as np

from mrnets.errors import InputError
from mrnets.physics.arrays import Array, array_namespace, asarray_like, to_numpy

__all__ = ["RELATIVE_BANDWIDTH", "covariance", "noise_scale", "periphery_covariance", "whitener"]

RELATIVE_BANDWIDTH = 0.793
"""The receiver's noise bandwidth relative to the inverse of the dwell time, where a header does not say: Gadgetron's
default, a figure of Siemens receivers."""


def covariance(noise: Array) -> Array:
    """Noise (..., coil, sample) to its covariance (coil, coil), over all leading axes and samples.

    Noise has no mean, so none is subtracted; the divisor is samples - 1, as Gadgetron's. Raises InputError for NaN or
    Inf and for fewer samples than coils, with which the covariance is singular.
    """
    xp = array_namespace(noise)
    coils = noise.shape[-2]
    samples = math.prod(noise.shape) // max(coils, 1)
    if samples <= coils:
        raise InputError(f"Noise covariance of {coils} coils: needs more samples than coils, got {samples}.")
    finite = xp.isfinite(noise)
    if not bool(xp.all(finite)):
        bad = [i for i in range(coils) if not bool(xp.all(finite[..., i, :]))]
        raise InputError(f"Noise covariance: samples of coils {bad} (counted from 0) are NaN or Inf.")
    products = xp.matmul(noise, xp.conj(xp.matrix_transpose(noise)))
    total = xp.sum(xp.reshape(products, (-1, coils, coils)), axis=0) / (samples - 1)
    return (total + xp.conj(xp.matrix_transpose(total))) / 2


def periphery_covariance(
    kspace: Array, *, start: int | tuple[int, int] | None = None, length: int | tuple[int, int] | None = None
) -> Array:
    """Covariance (coil, coil) of the noise at the periphery of k-space (..., coil, y, x), where there is no signal.

    start, length: a patch, in samples; one number for both axes, or (y, x). Without a patch, the outermost positions
    are used, as far inwards as their energy stays at the level of the outermost. Positions are chosen by their distance
    from the centre, never by the energy of single samples, which would make the estimate too small. Positions that are
    zero in all coils were not sampled and do not count. Where signal reaches the very corners, the result is an upper
    bound on the noise. Raises InputError as `covariance` does, and for a patch outside k-space.
    """
    xp = array_namespace(kspace)
    if (start is None) != (length is None):
        raise InputError("Noise from the periphery of k-space: give both start and length, or neither.")
    if start is not None and length is not None:
        y, x = _patch(kspace.shape[-2:], start, length)
        noise = _sampled(kspace[..., y, x])[0]
        return covariance(noise)
    noise, position = _sampled(kspace)
    dy, dx = (np.abs(np.arange(n) - (n - 1) / 2) / (n / 2) for n in kspace.shape[-2:])
    outwards = asarray_like(np.argsort(np.argsort(np.hypot(dy[:, None], dx).ravel(), kind="stable")), kspace)
    noise = noise[:, xp.argsort(-outwards[position], stable=True)]
    return covariance(noise[:, : _quiet(noise)])


def noise_scale(dwell: float, noise_dwell: float, bandwidth: float = RELATIVE_BANDWIDTH) -> float:
    """Factor for a whitener from noise sampled at `noise_dwell`, to whiten data sampled at `dwell` (both in one unit).

    sqrt(2 * dwell / noise_dwell * bandwidth), as in Gadgetron. `bandwidth` is relativeReceiverNoiseBandwidth. With the
    factor 2, real and imaginary part have the variance `bandwidth` each at equal dwell times. 1 if one of the three is
    0, i.e. not known. Raises InputError for negative or non-finite values.
    """
    for name, value in (("dwell time", dwell), ("dwell time of the noise", noise_dwell), ("bandwidth", bandwidth)):
        if not 0 <= value < math.inf:
            raise InputError(f"Noise scaling: the {name} must be a finite number, 0 or more, got {value}.")
    if dwell == 0 or noise_dwell == 0 or bandwidth == 0:
        return 1.0
    return math.sqrt(2 * dwell / noise_dwell * bandwidth)


def whitener(covariance: Array, scale: float = 1.0) -> Array:
    """scale * inv(L) for covariance = L L^H with L lower triangular; (coil, coil), of the covariance's dtype.

    Noise of that covariance becomes white with variance scale^2. Computed in double precision on the host, since it is
    small. Raises InputError where the covariance is not finite or not positive definite, and names the coil.
    """
    matrix = to_numpy(covariance).astype(np.complex128)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"Noise covariance: expected a matrix of coils x coils, got the shape {matrix.shape}.")
    if not np.all(np.isfinite(matrix)):
        raise InputError("Noise covariance: it has NaN or Inf.")
    variance = np.diagonal(matrix).real
    dead = np.flatnonzero(variance <= 0)
    if dead.size:
        raise InputError(f"Noise covariance: coils {dead.tolist()} (counted from 0) have none: disconnected?")
    deviation = np.sqrt(variance)
    correlation = matrix / np.outer(deviation, deviation)
    if not np.allclose(correlation, correlation.conj().T, atol=1e-4):
        raise InputError("Noise covariance: it is not Hermitian.")
    values, vectors = np.linalg.eigh(correlation)
    if values[0] < len(matrix) * np.finfo(np.float32).eps:
        alike = np.flatnonzero(np.abs(vectors[:, 0]) > 0.1).tolist()
        raise InputError(f"Noise covariance: coils {alike} (counted from 0) are linearly dependent: no inverse.")
    inverse = np.linalg.inv(np.linalg.cholesky(correlation)) / deviation
    return asarray_like(np.tril(scale * inverse).astype(np.complex64), covariance)


def _patch(shape: tuple[int, int], start: int | tuple[int, int], length: int | tuple[int, int]) -> tuple[slice, slice]:
    starts = (start, start) if isinstance(start, int) else start
    lengths = (length, length) if isinstance(length, int) else length
    if any(s < 0 or m < 1 or s + m > n for n, s, m in zip(shape, starts, lengths, strict=True)):
        raise InputError(
            f"Noise from the periphery of k-space: the patch from {starts} of {lengths} samples leaves {shape}."
        )
    y, x = (slice(s, s + m) for s, m in zip(starts, lengths, strict=True))
    return y, x


def _sampled(kspace: Array) -> tuple[Array, Array]:
    """k-space (..., coil, y, x) to its sampled positions (coil, sample), and where each lies in the flat (y, x)."""
    xp = array_namespace(kspace)
    coils, height, width = kspace.shape[-3:]
    flat = xp.reshape(xp.moveaxis(kspace, -3, 0), (coils, -1))
    sampled = xp.nonzero(xp.any(flat != 0, axis=0))[0]
    return xp.take(flat, sampled, axis=1), sampled % (height * width)


def _quiet(noise: Array) -> int:
    """How many samples (coil, sample), ordered from the outside inwards, are noise: up to where the energy rises.

    Shells of equal counts; the energy of each coil is relative to its own in the outermost shell. The bound is two
    standard deviations of a mean over fully correlated coils, of the difference of two shells.
    """
    xp = array_namespace(noise)
    coils, samples = noise.shape
    size = max(samples // 32, min(8 * coils, samples))
    shells = samples // max(size, 1)
    if shells < 2:
        return int(samples)
    energy = xp.mean(xp.abs(xp.reshape(noise[:, : shells * size], (coils, shells, size))) ** 2, axis=-1)
    outermost = xp.where(energy[:, :1] > 0, energy[:, :1], xp.ones_like(energy[:, :1]))
    level = to_numpy(xp.mean(energy / outermost, axis=0))
    risen = np.flatnonzero(~(level <= 1 + 2 * math.sqrt(2 / size)))
    return int(size * (risen[0] if risen.size else shells))
