"""Arguments that a user gives to the physics: a sentence for what cannot be, instead of an error from deep inside."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from array_api_compat import is_array_api_obj

from mrnets.errors import InputError
from mrnets.physics.arrays import Array, array_namespace

__all__ = ["require_complex", "sizes"]


def sizes(what: str, shape: Sequence[int], least: int = 1) -> tuple[int, ...]:
    """Return a shape as a tuple of int; NumPy's integers are whole numbers, too.

    what: begins the sentence. Raises InputError for what is no sequence of whole numbers, and for one below `least`.
    """
    try:
        found = tuple(operator.index(n) for n in shape)
    except TypeError:
        raise InputError(f"{what}: a shape is whole numbers, such as (256, 256), got {shape!r}") from None
    if min(found, default=least) < least:
        raise InputError(f"{what}: at least {least} along each axis is needed, got the shape {found}")
    return found


def require_complex(what: str, x: Any, axes: str, fewest: int) -> Array:
    """Return `x`. Raises InputError unless it is a complex array with as many axes.

    what: begins the sentence. axes: their names, such as "(..., coil, y, x)"."""
    if not is_array_api_obj(x):
        raise InputError(f"{what}: expected an array {axes} of NumPy, CuPy or torch, got {type(x).__name__}")
    if x.ndim < fewest:
        raise InputError(f"{what}: expected the axes {axes}, got the shape {tuple(x.shape)}")
    if not array_namespace(x).isdtype(x.dtype, "complex floating"):
        kind = str(x.dtype).removeprefix("torch.")
        raise InputError(f"{what}: expected complex values, real and imaginary part in one array, got {kind}")
    return x
