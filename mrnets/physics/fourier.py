"""The one Fourier convention: centred and orthonormal, the zero frequency at index n // 2 of every axis, odd sizes too.

Every transform of the physics is orthonormal, also a pair whose scaling would cancel: without `norm`, NumPy 2.4 takes
five times as long for complex64.

Axes: the last two are (y, x) unless `axes` says otherwise; all others are batch axes.
"""

from __future__ import annotations

from collections.abc import Sequence

from mrnets.errors import InputError
from mrnets.physics.arrays import Array, array_namespace, device
from mrnets.physics.checks import sizes

__all__ = ["fftc", "ifftc", "resize"]


def fftc(image: Array, axes: Sequence[int] = (-2, -1)) -> Array:
    """Image to k-space: centred, orthonormal discrete Fourier transform over `axes`; shape and dtype are kept.

    Raises InputError for axes that there are not."""
    xp = array_namespace(image)
    axes = _there(image, axes)
    return xp.fft.fftshift(xp.fft.fftn(xp.fft.ifftshift(image, axes=axes), axes=axes, norm="ortho"), axes=axes)


def ifftc(kspace: Array, axes: Sequence[int] = (-2, -1)) -> Array:
    """k-space to image: the inverse, and by orthonormality the adjoint, of `fftc`."""
    xp = array_namespace(kspace)
    axes = _there(kspace, axes)
    return xp.fft.fftshift(xp.fft.ifftn(xp.fft.ifftshift(kspace, axes=axes), axes=axes, norm="ortho"), axes=axes)


def resize(x: Array, shape: Sequence[int], axes: Sequence[int] = (-2, -1)) -> Array:
    """Centred crop or zero-fill of `axes` to `shape`, index n // 2 onto index m // 2 (zero frequency stays centred).

    Crop and zero-fill between the same two shapes are adjoint to each other. A view where nothing is to be filled.
    Raises InputError for what is no shape, and for axes that there are not.
    """
    xp = array_namespace(x)
    shape, axes = sizes("crop or zero-fill", shape, least=0), _there(x, axes)
    keep: list[slice] = [slice(None)] * x.ndim
    put: list[slice] = [slice(None)] * x.ndim
    out = list(x.shape)
    for axis, m in zip(axes, shape, strict=True):
        n = x.shape[axis]
        start = n // 2 - m // 2
        keep[axis] = slice(max(start, 0), max(start, 0) + min(n, m))
        put[axis] = slice(max(-start, 0), max(-start, 0) + min(n, m))
        out[axis] = m
    cropped = x[tuple(keep)]
    if cropped.shape == tuple(out):
        return cropped
    filled = xp.zeros(tuple(out), dtype=x.dtype, device=device(x))
    filled[tuple(put)] = cropped
    return filled


def _there(x: Array, axes: Sequence[int]) -> tuple[int, ...]:
    """`axes` as a tuple. Raises InputError for one that `x` does not have."""
    axes = tuple(axes)
    if any(not -x.ndim <= axis < x.ndim for axis in axes):
        raise InputError(f"expected an array with the axes {axes}, got the shape {tuple(x.shape)}")
    return axes
