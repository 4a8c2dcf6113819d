"""The space of patches of multi-coil k-space, and the matrices H(x) that it gives: the first half of ESPIRiT.

Axes: block (batch, coil, *block), patches (batch, patch, coil * position). See `mrnets.physics.espirit`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mrnets.physics.arrays import Array, array_namespace, asarray_like, device

__all__ = ["filters_of", "sampled_matrices"]


def _ball(kernels: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Positions (n, dims) of a kernel: the ellipsoid inside a box of these widths."""
    radii = [(np.arange(kernel) - (kernel - 1) / 2) ** 2 / (kernel / 2) ** 2 for kernel in kernels]
    return np.argwhere(sum(np.meshgrid(*radii, indexing="ij")) <= 1)


def _patches(block: Array, kernels: tuple[int, ...]) -> Array:
    """The calibration matrix (batch, patch, coil * position) of a block (batch, coil, *block)."""
    xp = array_namespace(block)
    sizes = block.shape[2:]
    corners = np.indices([n - kernel + 1 for n, kernel in zip(sizes, kernels, strict=True)]).reshape(len(sizes), -1).T
    places = corners[:, None, :] + _ball(kernels)
    index = np.ravel_multi_index(tuple(np.moveaxis(places, -1, 0)), tuple(sizes))
    flat = xp.reshape(block, (*block.shape[:2], -1))
    gathered = xp.take(flat, asarray_like(index.ravel(), block), axis=2)
    gathered = xp.reshape(gathered, (*block.shape[:2], *index.shape))
    gathered = xp.permute_dims(gathered, (0, 2, 1, 3))
    return xp.reshape(gathered, (*gathered.shape[:2], -1))


def filters_of(block: Array, kernels: tuple[int, ...], threshold: float) -> tuple[Array, bool]:
    """Return filters F (batch, filter, coil * position), and a flag.

    F^T conj(F) is the projection onto the space of patches or, if the flag is set, onto its complement. The smaller of
    the two Gram matrices is factorised.
    """
    xp = array_namespace(block)
    patches = _patches(block, kernels)
    count, length = patches.shape[1:]
    adjoint = xp.conj(xp.matrix_transpose(patches))
    gram = xp.matmul(adjoint, patches) if count > length else xp.matmul(patches, adjoint)
    level = threshold**2 * _largest_eigenvalue(gram)
    level = xp.where(level > 0, level, xp.ones_like(level))
    identity = xp.eye(gram.shape[-1], dtype=gram.dtype, device=device(gram))
    triangle = xp.linalg.cholesky(gram + level * identity)
    # A^H (A A^H + t^2)^-1 A = 1 - t^2 (A^H A + t^2)^-1
    if count > length:
        return _solve_triangular(triangle, xp.sqrt(level) * identity), True
    return _solve_triangular(triangle, patches), False


def _solve_triangular(triangle: Array, right: Array) -> Array:
    """L^-1 R for lower-triangular L. NumPy and CuPy have only the general solver; torch's fails on large batches."""
    xp = array_namespace(triangle)
    if hasattr(xp.linalg, "solve_triangular"):
        return xp.linalg.solve_triangular(triangle, right, upper=False)
    return xp.linalg.solve(triangle, right)


def _largest_eigenvalue(gram: Array, iterations: int = 20) -> Array:
    """(batch, 1, 1) real, by power iteration; exact to 1 %, which is enough for a threshold."""
    xp = array_namespace(gram)
    vector = xp.sum(gram * xp.eye(gram.shape[-1], dtype=gram.dtype, device=device(gram)), axis=-1, keepdims=True)
    for _ in range(iterations):
        norm = xp.sqrt(xp.sum(xp.abs(vector) ** 2, axis=-2, keepdims=True))
        vector = xp.matmul(gram, vector / xp.where(norm > 0, norm, xp.ones_like(norm)))
    return xp.sqrt(xp.sum(xp.abs(vector) ** 2, axis=-2, keepdims=True))


def sampled_matrices(filters: Array, nullspace: bool, coils: int, kernels: tuple[int, ...]) -> Array:
    """Return H(x) at 2 kernel - 1 points along each axis, which determine it: (batch, *points, coil, coil)."""
    xp = array_namespace(filters)
    batch, count = filters.shape[0], filters.shape[1]
    terms = [2 * kernel - 1 for kernel in kernels]
    ball = _ball(kernels)
    samples = np.indices(terms).reshape(len(kernels), -1).T
    phases = asarray_like(np.exp(2j * np.pi * (samples @ (ball / np.array(terms)).T)), filters, filters.dtype)
    filters = xp.permute_dims(xp.reshape(filters, (batch, count, coils, -1)), (0, 3, 2, 1))
    spectra = xp.matmul(phases, xp.reshape(filters, (batch, ball.shape[0], -1)))
    spectra = xp.reshape(spectra, (batch, samples.shape[0], coils, count))
    matrices = xp.matmul(spectra, xp.conj(xp.matrix_transpose(spectra))) / ball.shape[0]
    if nullspace:
        matrices = xp.eye(coils, dtype=filters.dtype, device=device(filters)) - matrices
    return xp.reshape(matrices, (batch, *terms, coils, coils))
