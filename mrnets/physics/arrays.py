"""The array type, and the few functions that the array API leaves to each library. All physics modules use them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

from array_api_compat import array_namespace, device, is_numpy_array, is_torch_array

__all__ = [
    "Array",
    "array_namespace",
    "asarray_like",
    "clipped",
    "constant",
    "device",
    "is_numpy_array",
    "on_host",
    "to_numpy",
]

Array: TypeAlias = Any
"""An array of NumPy, CuPy or torch. (The array API standard has no type for "an array of any library".)"""


def asarray_like(values: Any, like: Array, dtype: Any = None) -> Array:
    """`values` (NumPy array, number or nested sequence) as an array of the library and on the device of `like`."""
    xp = array_namespace(like)
    return xp.asarray(values, dtype=dtype, device=device(like))


MAX_KEPT = 64 << 20
"""Bytes of constants that a process keeps."""
_kept: dict[tuple[Hashable, ...], Array] = {}


def constant(make: Callable[..., Any], *arguments: Hashable, like: Array, dtype: Any = None) -> Array:
    """Return `make(*arguments)`, a NumPy array, as `asarray_like` makes it. Nobody may change it.

    It is made and sent to the device of `like` once, because a host waits for each array that it sends. It is kept
    as long as the process runs: a captured CUDA graph reads it where it lies. After `MAX_KEPT` bytes, further constants
    are made anew each time.
    """
    xp = array_namespace(like)
    inference = getattr(xp, "is_inference_mode_enabled", bool)()  # torch: its tensors are of no use in training
    key = (make, arguments, xp.__name__, str(device(like)), str(dtype), inference)
    if (found := _kept.get(key)) is not None:
        return found
    made = asarray_like(make(*arguments), like, dtype)
    if sum(array.nbytes for array in list(_kept.values())) + made.nbytes <= MAX_KEPT:
        return _kept.setdefault(key, made)
    return made


def clipped(x: Array, low: float, high: float | None = None) -> Array:
    """Return `x` with values from `low` to `high`, in its dtype. (`clip` of array-api-compat asks a CuPy device.)"""
    return x.clip(min=low) if high is None else x.clip(min=low, max=high)


def on_host(x: Array) -> bool:
    """Whether `x` is in the memory of the host. Reading a value there needs no synchronisation."""
    return is_numpy_array(x) or (is_torch_array(x) and x.device.type == "cpu")


def to_numpy(x: Array) -> Any:
    """`x` as a NumPy array on the host; a copy only where the memory is not already the host's."""
    if is_numpy_array(x):
        return x
    if is_torch_array(x):
        return x.detach().cpu().numpy()
    return x.get()  # CuPy
