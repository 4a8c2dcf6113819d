"""Coil sensitivities by ESPIRiT (Uecker 2014), from a small fully sampled calibration block, in milliseconds.

The method: every small patch of multi-coil k-space lies in a low-dimensional space. In image space that means
H(x) S(x) = S(x) at each pixel x inside the object. H(x) is a Hermitian coil x coil matrix with eigenvalues in [0, 1].
It is made from an orthonormal basis of the space of patches. So the sensitivities are the eigenvectors of H(x) with
the eigenvalue 1. In the null-space form (Lobos 2023, PISCO) the matrix is 1 - H(x) and the eigenvalue 1 - lambda.

The reasons for its speed (measured in tests/benchmarks/bench_sensitivities.py):
- No singular value decomposition. Singular values s of the calibration matrix A are not cut at the threshold. They are
  weighted by s^2 / (s^2 + t^2), where t = threshold * largest s. The result is the projection
  A^H (A A^H + t^2)^-1 A, which takes one Cholesky factorisation. The maps are more accurate, too, because this is the
  Wiener weight for noise at the level t. Where the noise is known and less, t is the largest singular value of noise.
- Patches of a ball rather than of a cube (Lobos 2023).
- H(x) is a trigonometric polynomial of 2 kernel - 1 terms along each axis. That many samples determine it, and it is
  smooth. Eigenvectors are found on a coarse grid, and interpolated with phases and weights of low-resolution images.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mrnets.errors import InputError, NotFiniteError
from mrnets.physics.arrays import Array, array_namespace, clipped, constant, on_host
from mrnets.physics.checks import require_complex, sizes
from mrnets.physics.eigenvectors import strongest
from mrnets.physics.fourier import resize
from mrnets.physics.interpolation import along, cubic, trigonometric
from mrnets.physics.low_resolution import WIDTH, low_resolution
from mrnets.physics.patches import Patches, filters_of, patches_of, sampled_matrices, widths_of

__all__ = ["Espirit", "espirit", "espirit_and_folded", "folded", "require_finite", "weight"]

_AXES = "(..., coil, [z,] y, x)"
SMALLEST_BLOCK = 6
SAMPLES_PER_KERNEL = 8
"""Coarse grid points per kernel width; the projection error is then within 3 % of that of the full grid."""
ENTRIES_AT_ONCE, ENTRIES_ON_DEVICE = 2**21, 2**24
"""Entries of H(x) in memory at once: they should stay in a processor's cache, and fill a device."""
FOLDED, FOLDED_POINTS = 0.9, 24
"""Second eigenvalue where an object is folded, and points along each axis at which that is looked for."""
NOISY = 0.8
"""A second eigenvalue that is nowhere lower comes from noise. Its lowest value is 0.1 to 0.6 at signal-to-noise ratios
of 20 and more, whether the object is folded or not."""
LEAST_OWN = 0.25
"""Share of a second map's energy that is orthogonal to the first one, at least. Where it is less, the interpolation has
lost the second map, and there is none."""
AT_CROP = 4 / 9
"""`weight` of the eigenvalue `crop`."""


@dataclass(frozen=True, kw_only=True)
class Espirit:
    """Options of ESPIRiT, with the defaults that gadgets and preparations take too."""

    kernel: int = 6
    """Width of the patches, in samples; smaller where there are few calibration lines (`patches.widths_of`)."""
    calibration: int = WIDTH
    """Samples along each axis that are taken from the middle of the calibration block, where it has that many."""
    threshold: float = 0.01
    """Singular values of the calibration matrix that count half, relative to the largest (module docstring). Lower
    ones do where the noise is known to be less."""
    crop: float = 0.9
    """Eigenvalue where the maps count about half; see `weight`. 0 keeps all. Uecker's usual 0.8 to 0.95 mean
    the same here."""
    sets: int = 2
    """Sets of maps, at most; see `mrnets.stages.sense_raw`. 2: a second set where the object is larger than the field
    of view. One set costs 8 to 19 dB there."""

    def check(self) -> None:
        """Raises InputError for an option out of its range."""
        if not 2 <= self.kernel <= 16 or not 0.001 <= self.threshold < 1 or not 0 <= self.crop < 1:
            raise InputError(
                f"ESPIRiT: expected a kernel of 2 to 16, 0.001 <= threshold < 1 and 0 <= crop < 1, "
                f"got kernel={self.kernel}, threshold={self.threshold}, crop={self.crop}"
            )
        if self.sets not in (1, 2):
            raise InputError(f"ESPIRiT: sets must be 1 or 2, got {self.sets}")


DEFAULT = Espirit()


def espirit(
    calibration: Array,
    shape: Sequence[int],
    options: Espirit = DEFAULT,
    *,
    noise: float | None = None,
    maps: int = 1,
    grid: int | None = None,
    finite: bool = False,
) -> Array:
    """Sensitivities (..., coil, *shape) from calibration k-space (..., coil, *block), zero frequency at n // 2.

    shape: (y, x) or (z, y, x). Problems along leading axes are solved together; each has the result that it has alone.
    The norm of S over coils is a weight from 0 (background) to 1 (object); see `weight`. The method leaves a phase of S
    free at each pixel. It is chosen such that S^H x is real and positive for low-resolution coil images x. S then
    contains the phase of the image, as it does in `rss_maps`. (The usual choice is the phase of a fixed virtual coil.
    It is singular where the sensitivity of that coil vanishes. With local coils that happens inside the object, and the
    combined image gets a phase vortex there.)
    noise: standard deviation of complex noise in a sample of `calibration`; None: unknown.
    maps: 2 adds a second set, (..., 2, coil, *shape), for objects larger than the field of view. Two eigenvectors are
    kept where the object is folded. The second set is orthogonal to the first at each pixel.
    grid: points along each axis where eigenvectors are found. None: 8 * kernel for one set, 16 * kernel for two sets,
    because two eigenvectors are not smooth where their eigenvalues cross.
    finite: whether the caller sees to it that samples are finite. Then a device is not asked.
    Raises InputError where an option is out of range, the calibration block has fewer than 6 samples along an axis, or
    samples are not finite. Likewise for samples that are not complex.
    """
    shape = sizes("ESPIRiT", shape)
    block, noise_power, lead = _block(calibration, shape, options, maps, noise, finite)
    points = grid or SAMPLES_PER_KERNEL * options.kernel * maps
    sens = [_maps(part, shape, options, points, maps) for part in _parts(block, noise_power, shape, options, points)]
    return _joined(sens, lead)


def folded(calibration: Array, shape: Sequence[int], options: Espirit = DEFAULT, *, finite: bool = False) -> Array:
    """Return the share (...,) of the energy of calibration k-space (..., coil, *block) where the object is folded.

    Parts of it that lie a field of view apart are seen on top of each other there, and two sets of maps are needed.
    There the second eigenvalue is near 1. The share is below 0.0002 in heads that fit into the field of view. It is
    above 0.005 where 12 % of the field of view is missing. The share is 0 where noise lifts that eigenvalue: at
    signal-to-noise ratios below about 10 it is high everywhere. Singular values count as at unknown noise:
    lower thresholds take ghosts for folds. finite: as for `espirit`, whose errors it raises.
    """
    shape = sizes("ESPIRiT", shape)
    block, _, lead = _block(calibration, shape, options, 2, None, finite)
    return _joined([_share(part, shape, options) for part in _parts(block, None, shape, options, FOLDED_POINTS)], lead)


def espirit_and_folded(
    calibration: Array,
    shape: Sequence[int],
    options: Espirit = DEFAULT,
    *,
    noise: float | None = None,
    finite: bool = False,
) -> tuple[Array, Array]:
    """Return what `espirit` does for one set of maps, and what `folded` does. Both are made of the same patches."""
    shape = sizes("ESPIRiT", shape)
    block, noise_power, lead = _block(calibration, shape, options, 2, noise, finite)
    points = SAMPLES_PER_KERNEL * options.kernel
    sens, shares = [], []
    for part in _parts(block, noise_power, shape, options, points):
        sens.append(_maps(part, shape, options, points, 1))
        shares.append(_share(part, shape, options))
    return _joined(sens, lead), _joined(shares, lead)


@dataclass(frozen=True)
class _Part:
    """Problems of a batch that have kernels of the same width, and their patches."""

    block: Array
    """(problem, coil, *block)."""
    kernels: tuple[int, ...]
    patches: Patches
    noise_power: Array | None
    """(problem, 1, 1), or None."""


def _parts(
    block: Array, noise_power: Array | None, shape: tuple[int, ...], options: Espirit, points: int
) -> Iterator[_Part]:
    """The problems of a batch, as many at a time as fit the memory. The coarse grid has `points` along each axis."""
    at_once = max(1, _entries(block) // (block.shape[1] ** 2 * math.prod(_grid(shape, options, points))))
    widths = widths_of(block, options.kernel, options.threshold)
    for kernels, numbers in itertools.groupby(range(len(widths)), widths.__getitem__):
        run = list(numbers)
        for first in range(run[0], run[-1] + 1, at_once):
            some = slice(first, min(first + at_once, run[-1] + 1))
            power = None if noise_power is None else noise_power[some]
            yield _Part(block[some], kernels, patches_of(block[some], kernels), power)


def _grid(shape: tuple[int, ...], options: Espirit, points: int) -> tuple[int, ...]:
    return tuple(min(n, max(points, 2 * options.kernel - 1)) for n in shape)


def _maps(part: _Part, shape: tuple[int, ...], options: Espirit, points: int, maps: int) -> Array:
    """(problem, [maps,] coil, *shape)."""
    vectors, values, images = _coarse(part, part.noise_power, _grid(shape, options, points), options, maps)
    sens = _interpolated(vectors, values, images, shape, options.crop)
    return sens if maps > 1 else sens[:, 0]


def _share(part: _Part, shape: tuple[int, ...], options: Espirit) -> Array:
    """(problem,): see `folded`."""
    _, values, images = _coarse(part, None, _grid(shape, options, FOLDED_POINTS), options, 2)
    xp = array_namespace(images)
    energy = xp.sum(xp.real(images) ** 2 + xp.imag(images) ** 2, axis=1)
    axes = tuple(range(1, energy.ndim))
    second = values[:, 1, 0]
    clear = xp.min(second, axis=axes, keepdims=True) < NOISY
    here = xp.where((second > FOLDED) & clear, energy, xp.zeros_like(energy))
    whole = xp.sum(energy, axis=axes)
    return xp.sum(here, axis=axes) / xp.where(whole > 0, whole, xp.ones_like(whole))


def _joined(parts: list[Array], lead: tuple[int, ...]) -> Array:
    """Results of all parts of a batch, with the leading axes `lead` of the calibration data."""
    whole = array_namespace(*parts).concat(parts) if len(parts) > 1 else parts[0]
    return array_namespace(whole).reshape(whole, (*lead, *whole.shape[1:]))


def _block(
    calibration: Array, shape: tuple[int, ...], options: Espirit, maps: int, noise: float | None, finite: bool
) -> tuple[Array, Array | None, tuple[int, ...]]:
    """The calibration block (batch, coil, *block) that is used, with peak 1, and its variance of noise (batch, 1, 1).

    The third value is the leading axes that are one batch now. Raises InputError."""
    options.check()
    _check(calibration, shape, options.calibration, maps)
    axes = tuple(range(-len(shape), 0))
    block = resize(calibration, [min(n, options.calibration) for n in calibration.shape[-len(shape) :]], axes)
    xp = array_namespace(block)
    lead = block.shape[: -len(shape) - 1]
    block, peak = _scaled(xp.reshape(block, (-1, *block.shape[-len(shape) - 1 :])), finite)
    return block, None if noise is None else (noise / peak) ** 2, lead


def _coarse(
    part: _Part, noise_power: Array | None, grid: tuple[int, ...], options: Espirit, maps: int
) -> tuple[Array, Array, Array]:
    """Return the result of `_coarse_maps`, and low-resolution images on the same grid."""
    filters = filters_of(part.patches, options.threshold, noise_power)
    images = low_resolution(part.block, grid)
    matrices = sampled_matrices(*filters, part.block.shape[1], part.kernels)
    return *_coarse_maps(matrices, images, maps), images


def _entries(like: Array) -> int:
    return ENTRIES_AT_ONCE if on_host(like) else ENTRIES_ON_DEVICE


def weight(eigenvalues: Array, crop: float) -> Array:
    """The norm of maps with these eigenvalues: 0 in the background, 1 in the object, 4/9 at `crop`.

    Images that fit the data are larger by its inverse, and come out right when they are multiplied with it. Their
    regularisation meets the larger values. So it draws the background to zero, as a hard crop does, while an object
    whose eigenvalue is a little too low stays. (A hard crop at 0.9 loses a small object beside a phantom, one at 0.8
    costs l1-wavelet 1.2 dB of a head at 8-fold acceleration. The weight does neither.)
    It is the square of a ramp from 2 crop - 1 to (1 + crop) / 2. A crop of 0 gives 1 everywhere.
    """
    xp = array_namespace(eigenvalues)
    if crop == 0:
        return xp.ones_like(eigenvalues)
    return clipped((eigenvalues + 1 - 2 * crop) / (1.5 * (1 - crop)), 0.0, 1.0) ** 2


def _check(calibration: Array, shape: tuple[int, ...], width: int, maps: int) -> None:
    if len(shape) not in (2, 3):
        raise InputError(f"ESPIRiT: expected a shape of 2 or 3 numbers, (y, x) or (z, y, x), got {shape}")
    require_complex("ESPIRiT", calibration, _AXES, len(shape) + 1)
    block = tuple(calibration.shape[-len(shape) :])
    if maps not in (1, 2):
        raise InputError(f"ESPIRiT: maps must be 1 or 2, got {maps}")
    if maps > calibration.shape[-len(shape) - 1]:
        raise InputError(f"ESPIRiT: {maps} sets of maps need as many coils, and the data have one")
    if min(*block, width) < SMALLEST_BLOCK:
        raise InputError(
            f"ESPIRiT: expected a calibration block of at least {SMALLEST_BLOCK} samples along each axis, "
            f"got {'x'.join(map(str, block))}, used up to a width of {width}"
        )


def require_finite(finite: bool) -> None:
    """Raise NotFiniteError where calibration data are not finite."""
    if not finite:
        raise NotFiniteError("ESPIRiT: the calibration data contain NaN or infinite samples")


def _scaled(block: Array, finite: bool) -> tuple[Array, Array]:
    """The block with peak magnitude 1, so that single precision suffices for any scanner's units, and its peak
    (batch, 1, 1). Zeros stay zeros."""
    xp = array_namespace(block)
    peak = xp.max(xp.abs(block), axis=tuple(range(1, block.ndim)), keepdims=True)
    if not finite or on_host(block):
        require_finite(bool(xp.all(xp.isfinite(peak))))
    peak = xp.where(peak > 0, peak, xp.ones_like(peak))
    return block / peak, xp.reshape(peak, (-1, 1, 1))


def _coarse_maps(matrices: Array, images: Array, maps: int) -> tuple[Array, Array]:
    """Eigenvectors (batch, maps, coil, *coarse) and eigenvalues (batch, maps, 1, *coarse) of H(x), from its samples.
    The search starts from low-resolution coil images (batch, coil, *coarse), which are nearly eigenvectors."""
    xp = array_namespace(images)
    batch, coils, *coarse = images.shape
    dims = len(coarse)
    for axis in range(2, dims + 1):
        matrices = along(_constant(trigonometric, coarse[axis - 1], matrices.shape[axis], matrices), matrices, axis)
    rows = _constant(trigonometric, coarse[0], matrices.shape[1], matrices)
    start = xp.permute_dims(images, (0, *range(2, dims + 2), 1))[..., None]

    at_once = max(1, _entries(images) // (batch * coils**2 * math.prod(coarse[1:])))
    parts = []
    for first in range(0, coarse[0], at_once):
        some = slice(first, first + at_once)
        parts.append(strongest(along(rows[some], matrices, 1), start[:, some], maps))
    order = (0, dims + 2, dims + 1, *range(1, dims + 1))
    vectors, values = (xp.concat([part[i] for part in parts], axis=1) for i in (0, 1))
    return xp.permute_dims(vectors, order), xp.permute_dims(values, order)


def _interpolated(vectors: Array, values: Array, images: Array, shape: tuple[int, ...], crop: float) -> Array:
    """Maps (batch, maps, coil, *shape) from those on the coarse grid, normalised and cropped.

    Interpolated is v (v^H x), the projection of the low-resolution coil images x onto the eigenvector v: smooth, and
    independent of the phase of v. Normalised, it is the v with v^H x real and positive.
    """
    xp = array_namespace(vectors)
    maps = vectors * xp.sum(xp.conj(vectors) * images[:, None], axis=2, keepdims=True)
    for axis in range(len(shape) + 2, 2, -1):
        if shape[axis - 3] != maps.shape[axis]:
            sizes = (shape[axis - 3], maps.shape[axis])
            maps, values = (along(_constant(cubic, *sizes, x), x, axis) for x in (maps, values))
    first = _unit(maps[:, :1])
    if maps.shape[1] == 1:
        return first * weight(values, crop)
    # Eigenvectors are orthogonal, but what is interpolated between them is not. Maps that overlap would count their
    # common part twice, and iterations with steps for a norm of 1 would diverge.
    second = maps[:, 1:]
    own = second - first * xp.sum(xp.conj(first) * second, axis=2, keepdims=True)
    whole, left = (xp.sum(xp.real(x) ** 2 + xp.imag(x) ** 2, axis=2, keepdims=True) for x in (second, own))
    own = xp.where(left > LEAST_OWN * whole, own, xp.zeros_like(own))
    return xp.concat((first, _unit(own)), axis=1) * weight(values, crop)


def _constant(matrix: Callable[[int, int], Array], size: int, have: int, like: Array) -> Array:
    return constant(matrix, size, have, like=like, dtype=like.dtype)


def _unit(maps: Array) -> Array:
    """Maps (batch, maps, coil, *shape) with norm 1 over coils; zeros stay."""
    xp = array_namespace(maps)
    power = xp.sum(xp.real(maps) ** 2 + xp.imag(maps) ** 2, axis=2, keepdims=True)
    norm = xp.sqrt(xp.where(power > 0, power, xp.ones_like(power)))
    return maps * xp.where(power > 0, 1 / norm, xp.zeros_like(power))
