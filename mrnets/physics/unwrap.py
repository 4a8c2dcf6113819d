"""Phase unwrapping in the plane: whole turns that make neighbouring voxels agree. Axes: (..., y, x).

Weighted least squares by preconditioned conjugate gradients (Ghiglia and Romero, J Opt Soc Am A 1994). The unknown is
the number of turns, which is rounded. The result therefore always differs from the input by whole turns.
"""

from __future__ import annotations

import math

from mrnets.physics.arrays import Array, array_namespace, asarray_like, device

__all__ = ["unwrap"]

_TAU = 2 * math.pi
_SIGNAL = 0.05
"""A voxel with less than this share of the largest weight of its slice is background. It gets a small weight, so that
the object determines its turns."""


def unwrap(phase: Array, weights: Array, *, passes: int = 4, iterations: int = 50) -> Array:
    """`phase` (..., y, x) in rad plus whole turns, without jumps of more than half a turn where `weights` are large.

    weights (..., y, x), not negative: for instance the magnitude. The one turn that is free for a whole slice is chosen
    so that the weighted mean is within half a turn of zero. A phase that has no jump inside the object is not solved
    for. Phase that really changes by more than half a turn between neighbouring voxels cannot be unwrapped.
    """
    xp = array_namespace(phase)
    largest = xp.max(weights, axis=(-2, -1), keepdims=True)
    relative = weights / xp.where(largest > 0, largest, 1.0)
    quality = xp.where(relative > _SIGNAL, relative, 0.01)
    edges = tuple(xp.minimum(_head(quality, axis), _tail(quality, axis)) for axis in (-2, -1))
    before = None
    for _ in range(passes):
        jumps = tuple(-xp.round(_step(phase, axis) / _TAU) for axis in (-2, -1))
        left = sum(
            xp.sum(xp.where(e > _SIGNAL, xp.abs(n), 0.0), axis=(-2, -1), keepdims=True)
            for n, e in zip(jumps, edges, strict=True)
        )
        # Where the phase is noise, jumps always remain. A slice therefore stops when the number of its jumps no longer
        # halves.
        active = left > 0 if before is None else (left > 0) & (left < 0.5 * before)
        if not bool(xp.any(active)):
            break
        turns = _potential(jumps, edges, iterations)
        phase = xp.where(active, phase + _TAU * xp.round(turns - _fraction(turns, quality)), phase)
        before = left
    mean = xp.sum(relative * phase, axis=(-2, -1), keepdims=True)
    total = xp.sum(relative, axis=(-2, -1), keepdims=True)
    return phase - _TAU * xp.round(mean / (_TAU * xp.where(total > 0, total, 1.0)))


def _head(x: Array, axis: int) -> Array:
    return x[..., :-1, :] if axis == -2 else x[..., :-1]


def _tail(x: Array, axis: int) -> Array:
    return x[..., 1:, :] if axis == -2 else x[..., 1:]


def _step(x: Array, axis: int) -> Array:
    """Forward difference along `axis`, one shorter there."""
    return _tail(x, axis) - _head(x, axis)


def _step_adjoint(steps: Array, axis: int) -> Array:
    xp = array_namespace(steps)
    shape = list(steps.shape)
    shape[axis] = 1
    zero = xp.zeros(tuple(shape), dtype=steps.dtype, device=device(steps))
    return -_step(xp.concat((zero, steps, zero), axis=axis), axis)


def _fraction(turns: Array, weights: Array) -> Array:
    """The weighted circular mean of the fractions of `turns`: a potential is known up to a constant."""
    xp = array_namespace(turns)
    east, north = (xp.sum(weights * wave(_TAU * turns), axis=(-2, -1), keepdims=True) for wave in (xp.cos, xp.sin))
    return xp.atan2(north, east) / _TAU


def _potential(steps: tuple[Array, Array], edges: tuple[Array, Array], iterations: int) -> Array:
    """x that minimises sum edges * (difference of x - steps)^2; every leading index is a problem of its own."""
    xp = array_namespace(steps[0])

    def normal(x: Array) -> Array:
        return sum(_step_adjoint(e * _step(x, axis), axis) for e, axis in zip(edges, (-2, -1), strict=True))

    def dot(a: Array, b: Array) -> Array:
        return xp.sum(a * b, axis=(-2, -1), keepdims=True)

    def ratio(a: Array, b: Array) -> Array:
        return xp.where(b > 0, a / xp.where(b > 0, b, 1.0), 0.0)

    residual = sum(_step_adjoint(e * s, axis) for e, s, axis in zip(edges, steps, (-2, -1), strict=True))
    x = xp.zeros_like(residual)
    inverse = _inverse_laplacian(residual)
    direction = _solved(residual, inverse)
    energy = dot(residual, direction)
    enough = 1e-4 * energy
    for _ in range(iterations):
        active = energy > enough
        if not bool(xp.any(active)):
            break
        image = normal(direction)
        step = xp.where(active, ratio(energy, dot(direction, image)), 0.0)
        x = x + step * direction
        residual = residual - step * image
        solved = _solved(residual, inverse)
        previous, energy = energy, dot(residual, solved)
        direction = solved + ratio(energy, previous) * direction
    return x


def _inverse_laplacian(like: Array) -> Array:
    """Reciprocal eigenvalues of the discrete Laplacian with reflecting borders, for the half-spectrum of `_solved`."""
    height, width = like.shape[-2:]
    xp = array_namespace(like)
    rows = asarray_like([2 - 2 * math.cos(math.pi * k / height) for k in range(2 * height)], like, like.dtype)
    columns = asarray_like([2 - 2 * math.cos(math.pi * k / width) for k in range(width + 1)], like, like.dtype)
    eigenvalues = rows[:, None] + columns
    some = eigenvalues > 0
    return xp.where(some, 1 / xp.where(some, eigenvalues, 1.0), 0.0)


def _solved(x: Array, inverse: Array) -> Array:
    """The Poisson equation without weights, by the FFT of `x` mirrored at its lower and right borders."""
    xp = array_namespace(x)
    mirrored = xp.concat((x, xp.flip(x, axis=-2)), axis=-2)
    mirrored = xp.concat((mirrored, xp.flip(mirrored, axis=-1)), axis=-1)
    spectrum = xp.fft.rfftn(mirrored, axes=(-2, -1), norm="ortho") * inverse
    solution = xp.fft.irfftn(spectrum, s=mirrored.shape[-2:], axes=(-2, -1), norm="ortho")
    return xp.astype(solution[..., : x.shape[-2], : x.shape[-1]], x.dtype)
