"""The array type, and the few functions that the array API leaves to each library. All physics modules use them."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array, is_torch_array

__all__ = [
    "Array",
    "array_namespace",
    "asarray_like",
    "clipped",
    "constant",
    "device",
    "fetched",
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
_kept: OrderedDict[tuple[Hashable, ...], Array] = OrderedDict()
_lock = threading.Lock()


def constant(make: Callable[..., Any], *arguments: Hashable, like: Array, dtype: Any = None) -> Array:
    """Return `make(*arguments)`, a NumPy array, as `asarray_like` makes it. Nobody may change it.

    It is made and sent to the device of `like` once, because a host waits for each array that it sends. A process keeps
    `MAX_KEPT` bytes of them. Constants on the host that were used longest ago go first. Those on a device stay: a
    captured CUDA graph reads them where they lie. Where they leave no room, others are made anew each time.
    """
    xp = array_namespace(like)
    inference = getattr(xp, "is_inference_mode_enabled", bool)()  # torch: its tensors are of no use in training
    key = (make, arguments, xp.__name__, str(device(like)), str(dtype), inference)
    with _lock:
        if (found := _kept.get(key)) is not None:
            _kept.move_to_end(key)
            return found
    made = asarray_like(make(*arguments), like, dtype)
    with _lock:
        return _kept.setdefault(key, made) if _has_room(made.nbytes) else made


def _has_room(size: int) -> bool:
    """Whether so many bytes can be kept beside the others. Constants on the host go for it."""
    free = MAX_KEPT - size - sum(array.nbytes for array in _kept.values())
    for key in [key for key, array in _kept.items() if on_host(array)] if size <= MAX_KEPT else ():
        if free >= 0:
            break
        free += _kept.pop(key).nbytes
    return free >= 0


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


def fetched(arrays: Sequence[Array]) -> list[Any]:
    """Return arrays of float32 and complex64, of any shapes, in the host's memory. A device is asked once for all.

    NumPy's stay as they are."""
    if all(is_numpy_array(x) for x in arrays):
        return list(arrays)
    xp = array_namespace(*arrays)
    flat = to_numpy(xp.concat([xp.reshape(x, (-1,)).view(xp.float32) for x in arrays]))
    kinds = [np.complex64 if xp.isdtype(x.dtype, "complex floating") else np.float32 for x in arrays]
    sizes = [math.prod(x.shape) * np.dtype(kind).itemsize // 4 for x, kind in zip(arrays, kinds, strict=True)]
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    return [part.view(kind).reshape(x.shape) for part, kind, x in zip(parts, kinds, arrays, strict=True)]
