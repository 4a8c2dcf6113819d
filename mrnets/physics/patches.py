"""The space of patches of multi-coil k-space, and the matrices H(x) that it gives: the first half of ESPIRiT.

Axes: block (batch, coil, *block), patches (batch, patch, coil * position). See `mrnets.physics.espirit`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrnets.physics.arrays import Array, array_namespace, asarray_like, constant, device, to_numpy

__all__ = ["Patches", "filters_of", "patches_of", "sampled_matrices", "widths_of", "windows"]

SMALLEST_KERNEL = 3
MAX_FILLED = 0.8
"""Share of the patches that singular values above the threshold fill, at most. Where nearly every patch is possible,
maps are poor: there a kernel narrower by one gains 0.7 to 1.2 dB of a head with 10 to 14 calibration lines."""
ENOUGH = 0.5
"""Patches for each value in one from which they never fill that share: 0.6 at most in heads of 8 and 16 coils."""
SMALLEST_THRESHOLD = 0.003
"""Singular values that count half where there is next to no noise, relative to the largest. Lower ones (0.002) gain no
more than 0.2 dB on real heads and lose 0.1 dB on others."""
PRODUCTS = 4
"""Products of a power iteration between two normalisations. In single precision more could underflow."""
BLOCK = 32
"""Rows that NumPy's solver takes at a time."""
LEAST = 1e-30
"""Added to divisors that are 0 for a block of zeros."""


def _ball(kernels: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Positions (n, dims) of a kernel: the ellipsoid inside a box of these widths."""
    radii = [(np.arange(kernel) - (kernel - 1) / 2) ** 2 / (kernel / 2) ** 2 for kernel in kernels]
    return np.argwhere(sum(np.meshgrid(*radii, indexing="ij")) <= 1)


def windows(block: Array, kernel: tuple[int, ...]) -> Array:
    """Return all patches (batch, patch, coil * position) of the shape `kernel` of a block (batch, coil, *block)."""
    return _gathered(block, constant(_places, tuple(block.shape[2:]), kernel, False, like=block))


@dataclass(frozen=True)
class Patches:
    """All patches of some blocks. `filters_of` makes filters from them, at any threshold."""

    values: Array
    """The calibration matrix (batch, patch, coil * position)."""
    gram: Array
    """The smaller one of its two Gram matrices."""
    largest: Array
    """(batch, 1, 1): the largest eigenvalue of `gram`."""


def patches_of(block: Array, kernels: tuple[int, ...]) -> Patches:
    """Return the patches of blocks (batch, coil, *block) with kernels of these widths."""
    xp = array_namespace(block)
    values = _gathered(block, constant(_places, tuple(block.shape[2:]), kernels, True, like=block))
    adjoint = xp.conj(xp.matrix_transpose(values))
    gram = xp.matmul(adjoint, values) if values.shape[1] > values.shape[2] else xp.matmul(values, adjoint)
    return Patches(values, gram, _largest_eigenvalue(gram))


def _gathered(block: Array, index: Array) -> Array:
    """The samples (batch, patch, coil * position) of a block (batch, coil, *block) at the places (patch, position)."""
    xp = array_namespace(block)
    flat = xp.reshape(block, (*block.shape[:2], -1))
    gathered = xp.take(flat, xp.reshape(index, (-1,)), axis=2)
    gathered = xp.reshape(gathered, (*block.shape[:2], *index.shape))
    gathered = xp.permute_dims(gathered, (0, 2, 1, 3))
    return xp.reshape(gathered, (*gathered.shape[:2], -1))


def _places(sizes: tuple[int, ...], kernels: tuple[int, ...], ball: bool) -> np.ndarray[Any, Any]:
    """(patch, position): where in a flat block of these sizes each value of each patch lies, or of the ball in it."""
    corners = np.indices([n - kernel + 1 for n, kernel in zip(sizes, kernels, strict=True)]).reshape(len(sizes), -1).T
    places = corners[:, None, :] + (_ball(kernels) if ball else np.argwhere(np.ones(kernels)))
    return np.asarray(np.ravel_multi_index(tuple(np.moveaxis(places, -1, 0)), sizes))


def widths_of(block: Array, largest: int, threshold: float) -> list[tuple[int, ...]]:
    """Return the widths of the kernel along each axis for each problem of a block (batch, coil, *block).

    They are `largest`, and less than half the block along each axis. They are less where the patches fill nearly all of
    their space: so few calibration lines do not tell possible patches from others.
    """
    xp = array_namespace(block)
    widths = np.full(block.shape[0], min(largest, _half(max(block.shape[2:]))))
    for width in range(int(widths.max(initial=0)), SMALLEST_KERNEL, -1):
        kernels = _within(block, width)
        count = math.prod(n - kernel + 1 for n, kernel in zip(block.shape[2:], kernels, strict=True))
        (left,) = np.nonzero(widths == width)
        if not len(left) or count >= ENOUGH * block.shape[1] * len(_ball(kernels)):
            break
        some = patches_of(xp.take(block, asarray_like(left, block), axis=0), kernels)
        filters, _ = filters_of(some, threshold)
        filled = to_numpy(xp.sum(xp.real(filters) ** 2 + xp.imag(filters) ** 2, axis=(1, 2))) / count
        widths[left[filled > MAX_FILLED]] = width - 1
    return [_within(block, int(width)) for width in widths]


def _within(block: Array, width: int) -> tuple[int, ...]:
    return tuple(min(width, _half(n)) for n in block.shape[2:])


def _half(samples: int) -> int:
    return max(SMALLEST_KERNEL, (samples - 1) // 2)


def filters_of(patches: Patches, threshold: float, noise_power: Array | None = None) -> tuple[Array, bool]:
    """Return filters F (batch, filter, coil * position), and a flag.

    F^T conj(F) is the projection onto the space of patches or, if the flag is set, onto its complement. The smaller of
    the two Gram matrices is factorised.
    noise_power: the variance of complex noise in a sample (batch, 1, 1). Singular values then count half where the
    largest one of noise is, between `SMALLEST_THRESHOLD` and `threshold`. None: at `threshold`.
    """
    xp = array_namespace(patches.gram)
    count, length = patches.values.shape[1:]
    level = threshold**2 * patches.largest
    if noise_power is not None:
        noise = noise_power * (math.sqrt(count) + math.sqrt(length)) ** 2  # Marchenko and Pastur 1967
        level = xp.minimum(xp.maximum(noise, SMALLEST_THRESHOLD**2 * patches.largest), level)
    level = xp.where(level > 0, level, xp.ones_like(level))
    identity = xp.eye(patches.gram.shape[-1], dtype=patches.gram.dtype, device=device(patches.gram))
    triangle = _cholesky(patches.gram + level * identity)
    # A^H (A A^H + t^2)^-1 A = 1 - t^2 (A^H A + t^2)^-1
    if count > length:
        return _solve_triangular(triangle, xp.sqrt(level) * identity), True
    return _solve_triangular(triangle, patches.values), False


def _cholesky(matrix: Array) -> Array:
    """The lower triangle of a positive definite matrix. NumPy raises LinAlgError for others; elsewhere they give NaN.

    torch's `cholesky` asks a device whether the matrix is one, and CuPy's does not ask."""
    xp = array_namespace(matrix)
    if not hasattr(xp.linalg, "cholesky_ex"):
        return xp.linalg.cholesky(matrix)
    triangle, failed = xp.linalg.cholesky_ex(matrix)
    return xp.where(failed[..., None, None] == 0, triangle, math.nan)


def _solve_triangular(triangle: Array, right: Array) -> Array:
    """L^-1 R for lower-triangular L (batch, row, row) and R (batch, row, column).

    NumPy and CuPy have only the general solver. Block by block it takes less than half of its time, because most of the
    work is matrix products then."""
    xp = array_namespace(triangle)
    if hasattr(xp.linalg, "solve_triangular"):
        return xp.linalg.solve_triangular(triangle, right, upper=False)
    rows = triangle.shape[-1]
    solved = xp.empty((*triangle.shape[:-1], right.shape[-1]), dtype=right.dtype, device=device(right))
    for first in range(0, rows, BLOCK):
        some = slice(first, first + BLOCK)
        left = right[..., some, :]
        if first:
            left = left - xp.matmul(triangle[..., some, :first], solved[..., :first, :])
        solved[..., some, :] = xp.linalg.solve(triangle[..., some, some], left)
    return solved


def _largest_eigenvalue(gram: Array, iterations: int = 20) -> Array:
    """(batch, 1, 1) real, by power iteration; a few per cent too small, which is enough for a threshold.

    Relative to the trace the eigenvalue is less than 1 and not much less. So a few products may follow each other
    before the vector is made one of norm 1."""
    xp = array_namespace(gram)
    diagonal = xp.linalg.diagonal(gram)[..., None]
    trace = xp.sum(xp.real(diagonal), axis=-2, keepdims=True)
    relative = gram / (trace + LEAST)
    vector = diagonal
    for n in range(iterations):
        if n % PRODUCTS == 0 or n == iterations - 1:
            vector = vector / (_norm(vector) + LEAST)
        vector = xp.matmul(relative, vector)
    return trace * _norm(vector)


def _norm(vector: Array) -> Array:
    return array_namespace(vector).linalg.vector_norm(vector, axis=-2, keepdims=True)


def sampled_matrices(filters: Array, nullspace: bool, coils: int, kernels: tuple[int, ...]) -> Array:
    """Return H(x) at 2 kernel - 1 points along each axis, which determine it: (batch, *points, coil, coil)."""
    xp = array_namespace(filters)
    batch, count = filters.shape[0], filters.shape[1]
    terms = _terms(kernels)
    phases = constant(_phases, kernels, like=filters, dtype=filters.dtype)
    positions = phases.shape[-1]
    filters = xp.permute_dims(xp.reshape(filters, (batch, count, coils, -1)), (0, 3, 2, 1))
    spectra = xp.matmul(phases, xp.reshape(filters, (batch, positions, -1)))
    spectra = xp.reshape(spectra, (batch, -1, coils, count))
    matrices = xp.matmul(spectra, xp.conj(xp.matrix_transpose(spectra))) / positions
    if nullspace:
        matrices = xp.eye(coils, dtype=filters.dtype, device=device(filters)) - matrices
    return xp.reshape(matrices, (batch, *terms, coils, coils))


def _terms(kernels: tuple[int, ...]) -> list[int]:
    return [2 * kernel - 1 for kernel in kernels]


def _phases(kernels: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """(sample, position): of the Fourier transform of a patch, at the points of `sampled_matrices`."""
    terms = _terms(kernels)
    samples = np.indices(terms).reshape(len(kernels), -1).T
    return np.asarray(np.exp(2j * np.pi * (samples @ (_ball(kernels) / np.array(terms)).T)))
