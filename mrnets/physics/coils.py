"""Many coils, one image: the SENSE encoding and its adjoint, coil combination.

Axes: image (..., y, x); coil images, k-space and sens (..., coil, y, x); mask broadcasts against k-space.
"""

from __future__ import annotations

from mrnets.physics.arrays import Array, array_namespace
from mrnets.physics.fourier import fftc, ifftc

__all__ = ["adjoint", "expand", "forward", "mix", "normal", "reduce", "rss"]


def expand(image: Array, sens: Array) -> Array:
    """Image (..., y, x) to coil images (..., coil, y, x): multiplication by the sensitivities."""
    return image[..., None, :, :] * sens


def reduce(coil_images: Array, sens: Array) -> Array:
    """Coil images (..., coil, y, x) to one image (..., y, x): the sum of conj(sens) * image, adjoint of `expand`."""
    xp = array_namespace(coil_images, sens)
    return xp.sum(xp.conj(sens) * coil_images, axis=-3)


def mix(matrix: Array, x: Array) -> Array:
    """New coils as linear combinations of old ones: matrix (..., new, old), x (..., old, y, x) to (..., new, y, x)."""
    xp = array_namespace(matrix, x)
    flat = xp.reshape(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1]))
    mixed = xp.matmul(matrix, flat)
    return xp.reshape(mixed, (*mixed.shape[:-1], *x.shape[-2:]))


def rss(coil_images: Array, axis: int = -3) -> Array:
    """Root of the sum of squared magnitudes over `axis` (Roemer 1990, eq. 28 for unknown sensitivities); real."""
    xp = array_namespace(coil_images)
    return xp.sqrt(xp.sum(xp.abs(coil_images) ** 2, axis=axis))


def forward(image: Array, sens: Array, mask: Array) -> Array:
    """The encoding E: image (..., y, x) to sampled k-space (..., coil, y, x); zeros where `mask` is False."""
    return mask * fftc(expand(image, sens))


def adjoint(kspace: Array, sens: Array, mask: Array) -> Array:
    """E^H: k-space (..., coil, y, x) to image (..., y, x)."""
    return reduce(ifftc(mask * kspace), sens)


def normal(image: Array, sens: Array, mask: Array) -> Array:
    """E^H E, without the shifts of the centred transform.

    It is S^H C S with a circular convolution C, and convolutions commute with the shifts. So only the mask need be
    brought into the order of the plain FFT.
    """
    xp = array_namespace(image, sens)
    plain = xp.fft.ifftshift(mask, axes=(-2, -1))
    encoded = xp.fft.fftn(expand(image, sens), axes=(-2, -1))
    return reduce(xp.fft.ifftn(encoded * plain, axes=(-2, -1)), sens)
