"""Many coils, one image: the SENSE encoding and its adjoint, coil combination.

Axes: image (..., y, x); coil images, k-space and sens (..., coil, y, x); mask broadcasts against k-space.
Where `sets` is true, an object larger than the field of view has several sets of maps (Uecker 2014, soft SENSE). The
axes are image (..., set, y, x), sens (..., set, coil, y, x), coil images and k-space (..., 1, coil, y, x). Coil images
are then the sum over the sets, each with an image of its own.
"""

from __future__ import annotations

from mrnets.errors import InputError
from mrnets.physics.arrays import Array, array_namespace, clipped
from mrnets.physics.fourier import fftc, ifftc

__all__ = [
    "adjoint",
    "convolved",
    "expand",
    "forward",
    "gain",
    "joined",
    "mix",
    "norm",
    "normal",
    "reduce",
    "regularisation_of",
    "rss",
]

PER_NOISE = 0.3
"""Regularisation of CG-SENSE for noise as strong as the image; see `regularisation_of`."""


def expand(image: Array, sens: Array, *, sets: bool = False) -> Array:
    """Image (..., y, x) to coil images (..., coil, y, x): multiplication by the sensitivities."""
    coil_images = image[..., None, :, :] * sens
    return array_namespace(image, sens).sum(coil_images, axis=-4, keepdims=True) if sets else coil_images


def reduce(coil_images: Array, sens: Array) -> Array:
    """Coil images (..., coil, y, x) to one image (..., y, x): the sum of conj(sens) * image, adjoint of `expand`."""
    xp = array_namespace(coil_images, sens)
    return xp.sum(xp.conj(sens) * coil_images, axis=-3)


def joined(images: Array) -> Array:
    """Images (..., set, y, x) of several sets of maps as one (..., y, x).

    The magnitude is the root of the sum of squares. Maps of different sets are orthogonal, so this is also the root of
    the sum of squares over the coils. The phase is that of the first set, which holds most of the signal.
    """
    xp = array_namespace(images)
    first = images[..., 0, :, :]
    if images.shape[-3] == 1:
        return first
    power = xp.sum(xp.real(images) ** 2 + xp.imag(images) ** 2, axis=-3)
    size = xp.abs(first)
    ones, zeros = xp.ones_like(size), xp.zeros_like(size)
    magnitude = xp.where(power > 0, xp.sqrt(xp.where(power > 0, power, ones)), zeros)
    return xp.where(size > 0, first / xp.where(size > 0, size, ones), xp.ones_like(first)) * magnitude


def mix(matrix: Array, x: Array) -> Array:
    """New coils as linear combinations of old ones: matrix (..., new, old), x (..., old, y, x) to (..., new, y, x).

    Raises InputError for a matrix of another number of coils."""
    xp = array_namespace(matrix, x)
    if x.ndim < 3 or matrix.ndim < 2 or matrix.shape[-1] != x.shape[-3]:
        shapes = f"{tuple(matrix.shape)} and {tuple(x.shape)}"
        raise InputError(f"mixing coils: a matrix (new, old) and data (..., old, y, x) were expected, got {shapes}")
    flat = xp.reshape(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1]))
    mixed = xp.matmul(matrix, flat)
    return xp.reshape(mixed, (*mixed.shape[:-1], *x.shape[-2:]))


def norm(sens: Array) -> Array:
    """The root of the sum over coils of |sens|^2: (..., coil, y, x) to (..., y, x)."""
    xp = array_namespace(sens)
    return xp.sqrt(xp.sum(xp.real(sens) ** 2 + xp.imag(sens) ** 2, axis=-3))


def gain(sens: Array, *, sets: bool = False) -> Array:
    """The largest eigenvalue of S^H S over all pixels, an upper bound of that of E^H E, but at least 1: (..., 1, 1).

    With sets the result is (..., 1, 1, 1), and there are two of them at most. Maps of ESPIRiT have 1. Given maps may
    have any norm.
    """
    xp = array_namespace(sens)
    power = norm(sens) ** 2
    if sets and sens.shape[-4] == 2:
        first, second = power[..., :1, :, :], power[..., 1:, :, :]
        overlap = reduce(sens[..., :1, :, :, :], sens[..., 1:, :, :, :])
        common = xp.real(overlap) ** 2 + xp.imag(overlap) ** 2
        power = (first + second) / 2 + xp.sqrt(((first - second) / 2) ** 2 + common)
    return clipped(xp.max(power, axis=(-2, -1), keepdims=True), 1.0)


def rss(coil_images: Array, axis: int = -3) -> Array:
    """Root of the sum of squared magnitudes over `axis` (Roemer 1990, eq. 28 for unknown sensitivities); real."""
    xp = array_namespace(coil_images)
    return xp.sqrt(xp.sum(xp.abs(coil_images) ** 2, axis=axis))


def forward(image: Array, sens: Array, mask: Array, *, sets: bool = False) -> Array:
    """The encoding E: image (..., y, x) to sampled k-space (..., coil, y, x); zeros where `mask` is False."""
    return mask * fftc(expand(image, sens, sets=sets))


def adjoint(kspace: Array, sens: Array, mask: Array) -> Array:
    """E^H: k-space (..., coil, y, x) to image (..., y, x)."""
    return reduce(ifftc(mask * kspace), sens)


def normal(image: Array, sens: Array, mask: Array, *, sets: bool = False) -> Array:
    """E^H E, without the shifts of the centred transform.

    It is S^H C S with a circular convolution C, and convolutions commute with the shifts. So only the mask need be
    brought into the order of the plain FFT.
    """
    plain = array_namespace(image, sens).fft.ifftshift(mask, axes=(-2, -1))
    return convolved(image, sens, plain, sets=sets)


def convolved(image: Array, sens: Array, plain: Array, *, sets: bool = False) -> Array:
    """As `normal`, with a mask in the order of the plain FFT: `ifftshift` of it, done once for many images."""
    xp = array_namespace(image, sens)
    encoded = xp.fft.fftn(expand(image, sens, sets=sets), axes=(-2, -1), norm="ortho")
    return reduce(xp.fft.ifftn(encoded * plain, axes=(-2, -1), norm="ortho"), sens)


def regularisation_of(start: Array, noise: Array) -> Array:
    """The regularisation of CG-SENSE that fits the noise: 0.3 noise / (root mean square of `start`).

    start (..., y, x): E^H k with maps of unit norm. noise, which broadcasts against it: standard deviation of complex
    noise in a sample. Returns (..., 1, 1).
    For white images the best one would be the square of that ratio (Wiener). Images are not white: what undersampling
    leaves open is mostly weak, fine structure. The rule is the best of several linear and square ones over two real
    scans and simulated ones of SNR 30 to 1000. It is within 0.7 dB of the best fixed number of each, where 0.01 is
    up to 6.5 dB behind.
    """
    xp = array_namespace(start)
    energy = xp.mean(xp.abs(start) ** 2, axis=(-2, -1), keepdims=True)
    signal = xp.sqrt(xp.where(energy > 0, energy, xp.ones_like(energy)))
    return PER_NOISE * noise / signal
