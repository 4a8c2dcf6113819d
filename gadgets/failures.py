"""Failures of computations that cost one frame, and not the scan; and failures in a sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import numpy as np

from gadgets.speaker import GadgetError
from mrnets.errors import InputError, NotFiniteError
from mrnets.extras import missing

__all__ = ["FAILURES", "attempted", "ends_scan", "lost_device", "told", "why"]

T = TypeVar("T")

FAILURES = (np.linalg.LinAlgError, ArithmeticError, MemoryError, RuntimeError)
"""NumPy, CuPy and torch raise these where a decomposition, a memory or a device fails."""


_PASSING = ("captur", "out of memory")
"""Words of errors after which a device computes on. Another thread may record a CUDA graph meanwhile."""


def why(error: Exception) -> str:
    """Return the reason of a failure in a few words, for a note."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def attempted(work: Callable[[], T]) -> T | str:
    """Return what `work` gives, or why it failed. Raises InputErrors that end the scan.

    Values that overflow are found by what is made of them: they are not warned of."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return work()
    except (InputError, *FAILURES) as error:
        if ends_scan(error):
            raise
        return why(error)


def ends_scan(error: Exception) -> bool:
    """Return whether an error is of the scan or the chain, and not of the computation of one slice.

    Without its device, none of the scan's slices can be computed."""
    if isinstance(error, InputError):
        return not isinstance(error, NotFiniteError)
    return bool(lost_device())


def lost_device() -> str:
    """Return why CUDA computes nothing more in this process; empty where it does, or where nothing is on a device.

    After an illegal access or a failed launch, each later call fails, too, until the process ends. CUDA's runtime API
    says so of its error types. After a lack of memory, a device can still be waited for."""
    torch, cupy = sys.modules.get("torch"), sys.modules.get("cupy")
    waits: list[Callable[[], object]] = []
    if torch is not None and torch.cuda.is_initialized():
        used = filter(torch.cuda.memory_reserved, range(torch.cuda.device_count()))
        waits += [partial(torch.cuda.synchronize, device) for device in used]
    if cupy is not None and cupy.get_default_memory_pool().total_bytes():
        waits.append(cupy.cuda.runtime.deviceSynchronize)
    for wait in waits:
        try:
            wait()
        except RuntimeError as error:
            if not any(word in str(error) for word in _PASSING):
                return why(error)
    return ""


def told(error: BaseException) -> str:
    """Return an error in one sentence. Those that are no fault of the input have their type in front."""
    if isinstance(error, ModuleNotFoundError):
        with suppress(ModuleNotFoundError):  # one of our own modules is missing
            return missing(error, "networks")
    if isinstance(error, OSError) and error.strerror:
        return ": ".join(filter(None, [str(error.filename or ""), error.strerror]))
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError | GadgetError) else f"{type(error).__name__}: {text or 'no message'}"
