"""Failures of computations that cost one frame, and not the scan; and failures in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import numpy as np

from gadgets.speaker import GadgetError
from mrnets.errors import InputError, NotFiniteError
from mrnets.extras import missing

__all__ = ["FAILURES", "attempted", "ends_scan", "told", "why"]

T = TypeVar("T")

FAILURES = (np.linalg.LinAlgError, ArithmeticError, MemoryError, RuntimeError)
"""NumPy, CuPy and torch raise these where a decomposition, a memory or a device fails."""


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
    """Return whether an error is of the scan or the chain, and not of the computation of one slice."""
    return isinstance(error, InputError) and not isinstance(error, NotFiniteError)


def told(error: BaseException) -> str:
    """Return an error in one sentence. Those that are no fault of the input have their type in front."""
    if isinstance(error, ModuleNotFoundError):
        with suppress(ModuleNotFoundError):  # one of our own modules is missing
            return missing(error, "networks")
    if isinstance(error, OSError) and error.strerror:
        return ": ".join(filter(None, [str(error.filename or ""), error.strerror]))
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError | GadgetError) else f"{type(error).__name__}: {text or 'no message'}"
