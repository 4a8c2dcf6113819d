"""Conjugate gradients (Hestenes and Stiefel 1952) for a batch of images.

Axes: image (..., y, x); every index before the axes of a problem is a problem of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from mrnets.physics.arrays import Array, array_namespace, on_host

__all__ = ["conjugate_gradients"]


def conjugate_gradients(
    operator: Callable[[Array], Array],
    rhs: Array,
    *,
    iterations: int,
    tolerance: float = 1e-5,
    start: Array | None = None,
    axes: tuple[int, ...] = (-2, -1),
) -> Array:
    """Solution x of operator(x) = rhs, both (..., y, x) complex; `operator` Hermitian and positive semi-definite.

    axes: of one problem, which `operator` couples. Every problem has its own step lengths. It stops when its residual
    is below `tolerance` times its right-hand side, while the others continue. `start` (None: zeros) is where x begins.
    """
    xp = array_namespace(rhs)

    def dot(a: Array, b: Array) -> Array:
        return xp.sum(xp.real(xp.conj(a) * b), axis=axes, keepdims=True)

    def ratio(numerator: Array, denominator: Array, active: Array) -> Array:
        safe = xp.where(active, denominator, xp.ones_like(denominator))
        return xp.where(active, numerator / safe, xp.zeros_like(numerator))

    here = on_host(rhs)
    x = xp.zeros_like(rhs) if start is None else start
    direction = residual = rhs if start is None else rhs - operator(start)
    enough = tolerance**2 * dot(rhs, rhs)
    energy = dot(residual, residual)
    for _ in range(iterations):
        active = energy > enough
        if here and not bool(xp.any(active)):  # on a device this test takes longer than the iterations it could save
            break
        image = operator(direction)
        curvature = dot(direction, image)
        step = ratio(energy, curvature, active & (curvature > 0))
        x = x + step * direction
        residual = residual - step * image
        previous, energy = energy, dot(residual, residual)
        direction = residual + ratio(energy, previous, active) * direction
    return x
