"""Coil compression: fewer virtual coils that keep the signal, as linear combinations of the measured ones.

Axes: coil (measured), coils (virtual), y, x = readout, last. Every matrix (coils, coil) has orthonormal rows, so white
noise stays white. One set of matrices, from the calibration, is for everything of a scan: k-space, calibration, maps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrnets.errors import InputError, NotFiniteError, counted
from mrnets.physics.arrays import Array, array_namespace, on_host, to_numpy
from mrnets.physics.coils import mix
from mrnets.physics.fourier import ifftc, resize

__all__ = [
    "Gdcc",
    "compress",
    "compress_images",
    "fewest",
    "fewest_hybrid",
    "gdcc_hybrid_matrices",
    "gdcc_matrices",
    "svd_matrix",
]

LEAST_SEEN = 0.1
"""Median of the weaker half of the eigenvalues, over what noise alone gives: about 0.5. If it is less, the noise
level is wrong."""
_BATCHED = 32
"""Coils up to which torch and CuPy decompose Hermitian matrices on a device in one batch. Their QR goes one by one."""
_BLOCK = 1 << 20  # samples that go through hybrid space at a time: few enough for the caches, enough for a GPU


@dataclass(frozen=True, kw_only=True)
class Gdcc:
    """Options of the compression, with the defaults that gadgets and preparations take too."""

    window: int = 5
    """Readout positions that make one matrix together; odd."""
    align: bool = True
    """Make the matrices change smoothly from position to position, so that virtual coils keep their identity."""
    lines: int | None = None
    """Middle calibration samples, along each phase encoding, that the matrices come from (by "svd" too); None: all."""


DEFAULT = Gdcc()


def svd_matrix(calibration: Array, coils: int) -> Array:
    """Principal components over the coils (Buehrer 2007): calibration (..., coil, y, x) to (..., coils, coil).

    Conjugated left singular vectors of the matrix coil by sample, strongest first. One matrix for each leading index;
    `coils.mix` applies it. k-space or images alike. Raises InputError where coils is not from 1 to coil.
    """
    _check(calibration, coils)
    xp = array_namespace(calibration)
    return xp.astype(_principal(_gram(_flat(calibration)), coils), calibration.dtype)


def gdcc_matrices(calibration: Array, coils: int, options: Gdcc = DEFAULT, *, size: int) -> Array:
    """Geometric-decomposition coil compression (Zhang 2013): calibration (..., coil, y, x) to (..., size, coils, coil).

    calibration is k-space, its last axis the fully sampled readout, the centre at x // 2; zero-filled or cropped to
    `size` samples. Each of the `size` readout positions gets a matrix of its own, from the positions around it.
    Positions are in the order of an image along the readout (`fourier.ifftc`). Aligned virtual coils come with the
    strongest first. `compress` applies the matrices. `options.lines` is not used here: the caller crops the phase
    encodings.
    Raises InputError where coils is not from 1 to coil, or window is not odd and positive.
    """
    xp = array_namespace(calibration)
    _check(calibration, coils, options.window)
    hybrid = ifftc(resize(calibration, (size,), axes=(-1,)), axes=(-1,))
    matrices = _geometric(_gram(_by_position(hybrid)), coils, options)
    return xp.astype(matrices, calibration.dtype)


def gdcc_hybrid_matrices(calibration: Array, coils: int, options: Gdcc = DEFAULT) -> Array:
    """As `gdcc_matrices`, for a scan already inverse-transformed along its readout, which is the first axis.

    calibration (readout, ..., coil, y, x) to (readout, ..., coils, coil), which `coils.mix` applies. It is for a 3-D
    scan in which every readout position is a slice.
    """
    xp = array_namespace(calibration)
    _check(calibration, coils, options.window)
    gram = xp.moveaxis(_gram_in_parts(calibration), 0, -3)
    matrices = xp.moveaxis(_geometric(gram, coils, options), -3, 0)
    return xp.astype(matrices, calibration.dtype)


def fewest(
    calibration: Array, limit: float, variance: float, options: Gdcc = DEFAULT, *, size: int | None = None
) -> NDArray[np.int64]:
    """(scan,): the fewest virtual coils with which compression loses signal of at most the energy `limit`.

    calibration (..., coil, y, x): as for `gdcc_matrices`, with the same `size`. size None: for `svd_matrix`. variance:
    of complex noise in its samples, white. The energy is that of the calibration, beyond its expected noise. It is
    found by the eigenvalues over windows that do not overlap. All coils are needed where these eigenvalues say that
    there is less noise than that.
    """
    _check(calibration, 1, options.window)
    if size is None:
        return _fewest(_gram(_flat(calibration))[..., None, :, :], limit, variance * _samples(calibration), 1)
    hybrid = ifftc(resize(calibration, (size,), axes=(-1,)), axes=(-1,))
    noise = variance * _samples(calibration) / size
    return _fewest(_gram(_by_position(hybrid)), limit, noise, options.window)


def fewest_hybrid(calibration: Array, limit: float, variance: float, options: Gdcc = DEFAULT) -> NDArray[np.int64]:
    """As `fewest`, for calibration as `gdcc_hybrid_matrices` takes it."""
    xp = array_namespace(calibration)
    _check(calibration, 1, options.window)
    gram = xp.moveaxis(_gram_in_parts(calibration), 0, -3)
    return _fewest(gram, limit, variance * _samples(calibration), options.window)


def _samples(calibration: Array) -> int:
    return int(calibration.shape[-2] * calibration.shape[-1])


def _fewest(gram: Array, limit: float, noise: float, window: int) -> NDArray[np.int64]:
    """gram (..., position, coil, coil); noise: its expected part in each diagonal element. Returns (scan,)."""
    xp = array_namespace(gram)
    positions, coils = gram.shape[-3], gram.shape[-1]
    counts = [min(n + window // 2 + 1, positions) - max(n - window // 2, 0) for n in range(0, positions, window)]
    values = to_numpy(xp.linalg.eigvalsh(_windowed(gram, window)[..., ::window, :, :])).reshape(-1, len(counts), coils)
    expected = noise * np.array(counts)[:, None]
    seen = np.median(values[..., : max(coils // 2, 1)] / expected, axis=(-2, -1))
    signal = np.clip(values - expected, 0, None).sum(axis=-2)
    lost = np.cumsum(signal, axis=-1)  # of the weakest 1, 2, 3 and so on
    return np.where(seen < LEAST_SEEN, coils, coils - (lost <= limit).sum(axis=-1))


def compress(kspace: Array, matrices: Array) -> Array:
    """k-space (..., coil, y, x) to virtual coils (..., coils, y, x).

    matrices: (coils, coil) of `svd_matrix`, or (..., size, coils, coil) of `gdcc_matrices`, leading axes as those of
    kspace or absent. With matrices of `gdcc_matrices`, x must be fully sampled. k-space of another width than `size`
    (cropped calibration) is zero-filled to `size` and cropped again. That is exact except for samples near its end.
    """
    if matrices.ndim == 2:
        return mix(matrices, kspace)
    xp = array_namespace(kspace, matrices)
    unshifted = xp.fft.ifftshift(matrices, axes=(-3,))
    height = kspace.shape[-2]
    rows = max(1, _BLOCK * height // max(math.prod(kspace.shape), 1))
    blocks = [_compress_unshifted(kspace[..., y : y + rows, :], unshifted) for y in range(0, height, rows)]
    return blocks[0] if len(blocks) == 1 else xp.concat(blocks, axis=-2)


def _compress_unshifted(kspace: Array, matrices: Array) -> Array:
    """`compress` with matrices in the order of an FFT without shifts.

    The data need no shifts. Shifting k-space multiplies the hybrid positions by phases. These phases commute with
    matrices that act on each position alone, and the shift back removes them.
    """
    xp = array_namespace(kspace)
    size, width = matrices.shape[-3], kspace.shape[-1]
    hybrid = xp.fft.ifft(resize(kspace, (size,), axes=(-1,)), axis=-1, norm="ortho")
    return resize(xp.fft.fft(compress_images(hybrid, matrices), axis=-1, norm="ortho"), (width,), axes=(-1,))


def compress_images(images: Array, matrices: Array) -> Array:
    """As `compress`, for images (..., coil, y, size) along the readout: coil images, sensitivities, hybrid space.

    Raises InputError where matrices and images have different numbers of readout positions."""
    if matrices.ndim == 2:
        return mix(matrices, images)
    xp = array_namespace(images, matrices)
    if images.shape[-1] != matrices.shape[-3]:
        raise InputError(
            f"coil compression: matrices for {matrices.shape[-3]} readout positions, but {images.shape[-1]} came"
        )
    return _contiguous(xp.moveaxis(xp.matmul(matrices, _by_position(images)), -3, -1))


def _check(calibration: Array, coils: int, window: int = 1) -> None:
    have = calibration.shape[-3]
    if not 1 <= coils <= have:
        raise InputError(
            f"coil compression: {counted(coils, 'virtual coil')} asked for, but the data have {counted(have, 'coil')}"
        )
    if window < 1 or window % 2 == 0:
        raise InputError(f"coil compression: the window must be an odd number of positions, got {window}")


def _contiguous(x: Array) -> Array:
    """`x` with its elements in memory in the order of its axes."""
    xp = array_namespace(x)
    return xp.reshape(xp.reshape(x, (-1,)), x.shape)


def _flat(x: Array) -> Array:
    """(..., coil, y, x) to (..., coil, sample)."""
    return array_namespace(x).reshape(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1]))


def _by_position(hybrid: Array) -> Array:
    """(..., coil, y, x) to (..., x, coil, y), laid out in memory so that matrix products over it are BLAS calls."""
    xp = array_namespace(hybrid)
    return xp.moveaxis(_contiguous(xp.matrix_transpose(hybrid)), -2, -3)


def _adjoint(matrix: Array) -> Array:
    xp = array_namespace(matrix)
    return xp.conj(xp.matrix_transpose(matrix))


def _gram(x: Array) -> Array:
    """(..., coil, sample) to (..., coil, coil), the sum of x_i conj(x_j) over samples; from here on in double."""
    xp = array_namespace(x)
    if not bool(xp.all(xp.isfinite(x))):
        raise NotFiniteError("coil compression: the calibration data have NaN or Inf")
    return xp.astype(xp.matmul(x, _adjoint(x)), xp.complex128)


def _gram_in_parts(calibration: Array) -> Array:
    """`_gram` of a volume (readout, ..., coil, y, x), without a copy of all of it."""
    step = max(1, _BLOCK * len(calibration) // max(math.prod(calibration.shape), 1))
    parts = [_gram(_flat(calibration[n : n + step])) for n in range(0, len(calibration), step)]
    return array_namespace(calibration).concat(parts)


def _principal(gram: Array, coils: int) -> Array:
    """(..., coil, coil) to the adjoint of its leading eigenvectors (..., coils, coil), strongest first."""
    xp = array_namespace(gram)
    _, vectors = xp.linalg.eigh(gram)
    return _adjoint(xp.flip(vectors[..., -coils:], axis=-1))


def _principal_of_many(gram: Array, coils: int) -> Array:
    """As `_principal`, for many large matrices (..., position, coil, coil) of which a few eigenvectors are wanted.

    Subspace iteration (Halko 2011) starts from the principal vectors of all positions together, with four guard
    vectors. The small eigenproblem within the subspace follows. The lost energy is below the noise. LAPACK's eigh of
    hundreds of matrices takes twice the time, and ten times that on a busy host, where its threads wait for each other.
    A device decomposes them all at once.
    """
    if gram.shape[-1] < 2 * (coils + 4) or (gram.shape[-1] <= _BATCHED and not on_host(gram)):
        return _principal(gram, coils)
    xp = array_namespace(gram)
    basis = _adjoint(_principal(xp.sum(gram, axis=-3, keepdims=True), coils + 4))
    for _ in range(4):
        basis, _triangle = xp.linalg.qr(xp.matmul(gram, basis))
    within = xp.matmul(_adjoint(basis), xp.matmul(gram, basis))
    return xp.matmul(_principal(within, coils), _adjoint(basis))


def _geometric(gram: Array, coils: int, options: Gdcc) -> Array:
    """Gram matrices (..., position, coil, coil) to matrices (..., position, coils, coil)."""
    matrices = _principal_of_many(_windowed(gram, options.window), coils)
    return _aligned(matrices, gram) if options.align else matrices


def _windowed(gram: Array, window: int) -> Array:
    """Sums over `window` neighbouring positions, fewer at the two ends."""
    total = array_namespace(gram).zeros_like(gram) + gram
    for step in range(1, min(window // 2, gram.shape[-3] - 1) + 1):
        total[..., step:, :, :] += gram[..., :-step, :, :]
        total[..., :-step, :, :] += gram[..., step:, :, :]
    return total


def _aligned(matrices: Array, gram: Array) -> Array:
    """Virtual coils (..., position, coils, coil) rotated within their subspaces, so that neighbours are nearest.

    Zhang 2013 goes from position to position: A'_x = Q_x A_x. The unitary matrix Q_x = polar(A'_{x-1} A_x^H) brings A_x
    nearest to A'_{x-1}. A'_{x-1} is Q_{x-1} A_{x-1}, and polar(Q B) = Q polar(B) for unitary Q. Hence Q_x = Q_{x-1}
    polar(A_{x-1} A_x^H). All polar factors are computed at once, and a running product follows. A different start
    rotates all positions alike. The start is chosen such that the virtual coils are sorted by their energy.
    """
    xp = array_namespace(matrices)
    u, _, vh = xp.linalg.svd(
        xp.matmul(matrices[..., :-1, :, :], _adjoint(matrices[..., 1:, :, :])), full_matrices=False
    )
    running = xp.matmul(u, vh)
    step = 1
    while step < running.shape[-3]:  # running product by doubling: after each turn every item spans 2 * step factors
        running = xp.concat(
            (running[..., :step, :, :], xp.matmul(running[..., :-step, :, :], running[..., step:, :, :])), axis=-3
        )
        step *= 2
    aligned = xp.concat((matrices[..., :1, :, :], xp.matmul(running, matrices[..., 1:, :, :])), axis=-3)
    energy = xp.sum(xp.matmul(xp.matmul(aligned, gram), _adjoint(aligned)), axis=-3)
    return xp.matmul(_principal(energy, energy.shape[-1])[..., None, :, :], aligned)
