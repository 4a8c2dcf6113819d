"""The array type, and the few functions that the array API leaves to each library. All physics modules use them."""

from __future__ import annotations

from typing import Any, TypeAlias

from array_api_compat import array_namespace, device, is_numpy_array, is_torch_array

__all__ = ["Array", "array_namespace", "asarray_like", "device", "is_numpy_array", "on_host", "to_numpy"]

Array: TypeAlias = Any
"""An array of NumPy, CuPy or torch. (The array API standard has no type for "an array of any library".)"""


def asarray_like(values: Any, like: Array, dtype: Any = None) -> Array:
    """`values` (NumPy array, number or nested sequence) as an array of the library and on the device of `like`."""
    xp = array_namespace(like)
    return xp.asarray(values, dtype=dtype, device=device(like))


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
