"""Coil sensitivities by ESPIRiT (Uecker 2014), from a small fully sampled calibration block, in milliseconds.

The method: every small patch of multi-coil k-space lies in a low-dimensional space. In image space that says
H(x) S(x) = S(x) at each pixel x inside the object, where H(x) is a coil x coil matrix, Hermitian, with eigenvalues in
[0, 1], made from an orthonormal basis of the space of patches. So the sensitivities are the eigenvectors of H(x) whose
eigenvalue is 1. In the null-space form (Lobos 2023, PISCO) the matrix is 1 - H(x) and the eigenvalue 1 - lambda.

What makes it fast (measured in tests/benchmarks/bench_sensitivities.py):
- No singular value decomposition. Instead of cutting singular values of the calibration matrix A at the threshold, they
  are weighted smoothly by s^2 / (s^2 + t^2), where t = threshold * largest s: the projection A^H (A A^H + t^2)^-1 A,
  one Cholesky factorisation. The maps come out more accurate, too: it is the Wiener weight for noise at the level t.
- Patches of a ball rather than of a cube (Lobos 2023).
- H(x) is a trigonometric polynomial of 2 kernel - 1 terms along each axis: all of it is in so many samples, and it is
  smooth. Eigenvectors are found on a coarse grid, and interpolated after their phases are aligned.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from mrnets.errors import InputError
from mrnets.physics.arrays import Array, array_namespace, asarray_like
from mrnets.physics.fourier import ifftc, resize
from mrnets.physics.interpolation import along, cubic, trigonometric

__all__ = ["espirit", "rss_maps", "unitary_maps"]

SAMPLES_PER_KERNEL = 8
"""Coarse grid points per kernel width."""


def espirit(
    calibration: Array,
    shape: Sequence[int],
    *,
    kernel: int = 6,
    width: int = 24,
    threshold: float = 0.01,
    crop: float = 0.9,
    maps: int = 1,
    grid: int | None = None,
) -> Array:
    """Sensitivities (..., coil, *shape) from calibration k-space (..., coil, *block), zero frequency at n // 2.

    shape: (y, x) or (z, y, x); any leading axes are problems of their own, solved together, with the result that each
    has alone. Of `calibration` the centre is used, up to `width` samples along each axis.
    threshold: singular values of the calibration matrix that count half, relative to the largest (module docstring).
    crop: pixels whose eigenvalue is less get zeros; 0 keeps all. Uecker's usual 0.8 to 0.95 mean the same here.
    Where kept, sum over coils of |S|^2 = 1. S is known up to a phase at each pixel, which is chosen such that the
    strongest virtual coil of the calibration data is real and positive.
    maps=2: a second set, (..., 2, coil, *shape), for objects larger than the field of view: where the object is folded,
    two eigenvectors are kept. Orthogonal to the first at each pixel.
    grid: points along each axis where eigenvectors are found; None: 8 * kernel for one set, every pixel for two (two
    eigenvectors are not smooth where their eigenvalues cross).
    Raises InputError where the options make no sense or the calibration block is smaller than the kernel.
    """
    shape = tuple(shape)
    _check(calibration, shape, kernel, width, threshold, crop, maps)
    xp = array_namespace(calibration)
    axes = tuple(range(-len(shape), 0))
    block = resize(calibration, [min(n, width) for n in calibration.shape[-len(shape) :]], axes)
    lead, coils = block.shape[: -len(shape) - 1], block.shape[-len(shape) - 1]
    block = _scaled(xp.reshape(block, (-1, *block.shape[-len(shape) - 1 :])))
    points = grid or (SAMPLES_PER_KERNEL * kernel if maps == 1 else max(shape))
    coarse = tuple(min(n, max(points, 2 * kernel - 1)) for n in shape)

    filters, nullspace = _filters(block, kernel, threshold)
    matrices = _pixel_matrices(filters, nullspace, coils, kernel, coarse)
    reference = _strongest_virtual_coil(block)
    start = ifftc(resize(block, coarse, axes), axes)
    start = xp.reshape(xp.permute_dims(start, (0, *range(2, start.ndim), 1)), (*matrices.shape[:-1], 1))
    sets = []
    for vectors, values in _eigenvectors(matrices, start, maps):
        sets.append(_interpolated(vectors, values, reference, coarse, shape, crop))
    sens = sets[0] if maps == 1 else xp.stack(sets, axis=1)
    return xp.reshape(sens, (*lead, *sens.shape[1:]))


def rss_maps(calibration: Array, shape: Sequence[int]) -> Array:
    """Low-resolution coil images over their root sum of squares: (..., coil, *block) to (..., coil, *shape).

    A Hann window over the block keeps truncation ripples out of the maps. |S|^2 sums to 1 everywhere but where there is
    no signal at all. S contains the phase of the image, at that resolution.
    """
    shape = tuple(shape)
    xp = array_namespace(calibration)
    axes = tuple(range(-len(shape), 0))
    block = calibration
    for axis in axes:
        n = block.shape[axis]
        window = np.cos(np.pi * (np.arange(n) - n // 2) / (n + 1)) ** 2
        block = block * asarray_like(window.reshape(-1, *[1] * (-1 - axis)), block, block.dtype)
    images = ifftc(resize(block, shape, axes), axes)
    norm = xp.sqrt(xp.sum(xp.abs(images) ** 2, axis=axes[0] - 1, keepdims=True))
    return images / xp.where(norm > 0, norm, xp.ones_like(norm))


def unitary_maps(calibration: Array, shape: Sequence[int]) -> Array:
    """Every coil counts alike everywhere, S = 1 / sqrt(coils): (..., coil, *block) to (..., coil, *shape).

    What there is to assume without knowledge of the coils; right for a single coil.
    """
    xp = array_namespace(calibration)
    shape = tuple(shape)
    lead = calibration.shape[: -len(shape)]
    ones = xp.ones((*lead, *shape), dtype=calibration.dtype, device=calibration.device)
    return ones / lead[-1] ** 0.5


def _check(
    calibration: Array, shape: tuple[int, ...], kernel: int, width: int, threshold: float, crop: float, maps: int
) -> None:
    if len(shape) not in (2, 3) or calibration.ndim < len(shape) + 1:
        raise InputError(
            f"ESPIRiT: expected calibration data (..., coil, [z,] y, x) and a shape of 2 or 3 numbers, "
            f"got {tuple(calibration.shape)} and {shape}"
        )
    block = tuple(calibration.shape[-len(shape) :])
    if maps not in (1, 2):
        raise InputError(f"ESPIRiT: maps must be 1 or 2, got {maps}")
    if kernel < 2 or not 0 < threshold < 1 or not 0 <= crop < 1:
        raise InputError(
            f"ESPIRiT: expected kernel >= 2, 0 < threshold < 1 and 0 <= crop < 1, "
            f"got kernel={kernel}, threshold={threshold}, crop={crop}"
        )
    if min(*block, width) < kernel:
        raise InputError(
            f"ESPIRiT: the calibration block must be at least as wide as the kernel ({kernel}) along each axis, "
            f"got {'x'.join(map(str, block))}, used up to a width of {width}"
        )
    if any(b > n for b, n in zip(block, shape, strict=True) if b <= width):
        raise InputError(f"ESPIRiT: the calibration block {block} is larger than the maps asked for {shape}")


def _scaled(block: Array) -> Array:
    """Unit energy, so that single precision holds whatever the scanner's units; blocks of zeros stay zeros."""
    xp = array_namespace(block)
    axes = tuple(range(1, block.ndim))
    peak = xp.max(xp.abs(block), axis=axes, keepdims=True)
    return block / xp.where(peak > 0, peak, xp.ones_like(peak))


def _ball(kernel: int, dims: int) -> np.ndarray[Any, Any]:
    """Positions (n, dims) of a kernel: the largest ball inside a cube of that width."""
    radii = np.arange(kernel) - (kernel - 1) / 2
    square = sum(np.meshgrid(*[radii**2] * dims, indexing="ij"))
    return np.argwhere(square <= (kernel / 2) ** 2)


def _patches(block: Array, kernel: int) -> Array:
    """The calibration matrix (batch, patch, coil * position) of a block (batch, coil, *block)."""
    xp = array_namespace(block)
    sizes = block.shape[2:]
    corners = np.indices([n - kernel + 1 for n in sizes]).reshape(len(sizes), -1).T
    places = corners[:, None, :] + _ball(kernel, len(sizes))
    index = np.ravel_multi_index(tuple(np.moveaxis(places, -1, 0)), tuple(sizes))
    flat = xp.reshape(block, (*block.shape[:2], -1))
    gathered = xp.take(flat, asarray_like(index.ravel(), block), axis=2)
    gathered = xp.reshape(gathered, (*block.shape[:2], *index.shape))
    gathered = xp.permute_dims(gathered, (0, 2, 1, 3))
    return xp.reshape(gathered, (*gathered.shape[:2], -1))


def _filters(block: Array, kernel: int, threshold: float) -> tuple[Array, bool]:
    """Filters F (batch, filter, coil * position) such that F^T conj(F) is the projection onto the space of patches
    or, if the flag returned is set, onto its complement. The smaller of the two Gram matrices is factorised."""
    xp = array_namespace(block)
    patches = _patches(block, kernel)
    nullspace = patches.shape[1] > patches.shape[2]
    adjoint = xp.conj(xp.matrix_transpose(patches))
    gram = xp.matmul(adjoint, patches) if nullspace else xp.matmul(patches, adjoint)
    energy = threshold**2 * _largest_eigenvalue(gram)
    energy = xp.where(energy > 0, energy, xp.ones_like(energy))
    identity = xp.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    triangle = xp.linalg.cholesky(gram + energy * identity)
    # A^H (A A^H + t^2)^-1 A = 1 - t^2 (A^H A + t^2)^-1
    if nullspace:
        return _solve_triangular(triangle, xp.sqrt(energy) * identity), True
    return _solve_triangular(triangle, patches), False


def _solve_triangular(triangle: Array, right: Array) -> Array:
    """L^-1 R for lower-triangular L. NumPy and CuPy have only the general solver; torch's fails on large batches."""
    xp = array_namespace(triangle)
    if hasattr(xp.linalg, "solve_triangular"):
        return xp.linalg.solve_triangular(triangle, right, upper=False)
    return xp.linalg.solve(triangle, right)


def _largest_eigenvalue(gram: Array, iterations: int = 15) -> Array:
    """(batch, 1, 1) real, by power iteration; exact to a few per cent, as a threshold needs."""
    xp = array_namespace(gram)
    vector = gram[..., :1] + xp.ones_like(gram[..., :1])
    norm = xp.ones_like(xp.real(vector[..., :1, :]))
    for _ in range(iterations):
        vector = xp.matmul(gram, vector / xp.where(norm > 0, norm, xp.ones_like(norm)))
        norm = xp.sqrt(xp.sum(xp.abs(vector) ** 2, axis=-2, keepdims=True))
    return norm


def _pixel_matrices(filters: Array, nullspace: bool, coils: int, kernel: int, coarse: tuple[int, ...]) -> Array:
    """H(x) on the coarse grid: (batch, *coarse, coil, coil)."""
    xp = array_namespace(filters)
    batch, count, dims = filters.shape[0], filters.shape[1], len(coarse)
    terms = 2 * kernel - 1
    ball = _ball(kernel, dims)
    samples = np.array(list(product(range(terms), repeat=dims)))
    phases = asarray_like(np.exp(2j * np.pi / terms * (ball @ samples.T)), filters, filters.dtype)
    spectra = xp.matmul(xp.reshape(filters, (batch, count * coils, -1)), phases)
    spectra = xp.permute_dims(xp.reshape(spectra, (batch, count, coils, -1)), (0, 3, 2, 1))
    matrices = xp.matmul(spectra, xp.conj(xp.matrix_transpose(spectra))) / ball.shape[0]
    if nullspace:
        matrices = xp.eye(coils, dtype=filters.dtype, device=filters.device) - matrices
    matrices = xp.reshape(matrices, (batch, *[terms] * dims, coils, coils))
    for axis, points in enumerate(coarse, start=1):
        matrices = along(trigonometric(points, terms), matrices, axis)
    return matrices


def _eigenvectors(matrices: Array, start: Array, count: int) -> list[tuple[Array, Array]]:
    """Of H (..., coil, coil), from `start` (..., coil, 1): the strongest eigenvectors (..., coil, 1) and eigenvalues
    (..., 1, 1). Power iteration: vectorised over pixels, and a few steps suffice from a start that is nearly right."""
    xp = array_namespace(matrices)
    powered = matrices
    for _ in range(2):
        powered = xp.matmul(powered, powered)
    found: list[tuple[Array, Array]] = []
    for _ in range(count):
        vector = start
        for _ in range(8):
            vector = xp.matmul(powered, vector)
            for other, _value in found:
                vector = vector - other * xp.sum(xp.conj(other) * vector, axis=-2, keepdims=True)
            vector = vector / (xp.sqrt(xp.sum(xp.abs(vector) ** 2, axis=-2, keepdims=True)) + 1e-30)
        value = xp.sum(xp.real(xp.conj(vector) * xp.matmul(matrices, vector)), axis=-2, keepdims=True)
        found.append((vector, value))
        turns = np.exp(1j * np.arange(matrices.shape[-1]) ** 2)  # a start in general position
        start = xp.zeros_like(start) + asarray_like(turns, start, start.dtype)[:, None]
    return found


def _strongest_virtual_coil(block: Array) -> Array:
    """(batch, coil): the principal eigenvector of the coils' covariance, its largest entry real and positive."""
    xp = array_namespace(block)
    flat = xp.reshape(block, (*block.shape[:2], -1))
    vector = xp.linalg.eigh(xp.matmul(flat, xp.conj(xp.matrix_transpose(flat))))[1][..., -1]
    size = xp.abs(vector)
    entry = xp.sum(xp.where(size == xp.max(size, axis=-1, keepdims=True), vector, xp.zeros_like(vector)), axis=-1)
    return vector * (xp.conj(entry) / xp.abs(entry))[..., None]


def _interpolated(
    vectors: Array, values: Array, reference: Array, coarse: tuple[int, ...], shape: tuple[int, ...], crop: float
) -> Array:
    """Maps (batch, coil, *shape) from eigenvectors (batch, *coarse, coil, 1), normalised and cropped.

    Interpolated is v (v^H r), the projection of the reference r: smooth and without a choice of phase even where v^H r
    passes through zero. Normalised, it is v with v^H r real and positive.
    """
    xp = array_namespace(vectors)
    dims = len(shape)
    reference = xp.reshape(reference, (reference.shape[0], *[1] * dims, reference.shape[1], 1))
    maps = vectors * xp.sum(xp.conj(vectors) * reference, axis=-2, keepdims=True)
    maps = xp.permute_dims(maps[..., 0], (0, dims + 1, *range(1, dims + 1)))
    values = xp.permute_dims(values[..., 0], (0, dims + 1, *range(1, dims + 1)))
    for axis in range(dims + 1, 1, -1):
        matrix = cubic(shape[axis - 2], coarse[axis - 2])
        maps, values = along(matrix, maps, axis), along(matrix, values, axis)
    power = xp.sum(xp.real(maps) ** 2 + xp.imag(maps) ** 2, axis=1, keepdims=True)
    keep = (power > 0) & (values >= crop)
    return maps * xp.where(keep, 1 / xp.sqrt(xp.where(keep, power, xp.ones_like(power))), xp.zeros_like(power))
