"""CG-SENSE (Pruessmann 2001) from the operators of the physics, on any array library; a reference for other methods."""

from __future__ import annotations

from typing import Any

from mrnets.physics.coils import adjoint, normal
from mrnets.physics.conjugate import conjugate_gradients

__all__ = ["cg_sense"]


def cg_sense(
    kspace: Any,
    sens: Any,
    mask: Any,
    *,
    regularisation: float = 0.0,
    iterations: int = 30,
    start: Any = None,
    tolerance: float = 1e-5,
) -> Any:
    """Image (..., y, x) that minimises ||E x - k||^2 + regularisation ||x - start||^2; start None: zeros."""
    rhs = adjoint(kspace, sens, mask)
    rhs = rhs if start is None else rhs + regularisation * start
    return conjugate_gradients(
        lambda image: normal(image, sens, mask) + regularisation * image,
        rhs,
        iterations=iterations,
        tolerance=tolerance,
        start=start,
    )
