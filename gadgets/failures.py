"""Failures of computations that cost one frame, and not the scan."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mrnets.contract import Raw
from mrnets.errors import InputError

__all__ = ["FAILURES", "attempted", "why"]

FAILURES = (np.linalg.LinAlgError, ArithmeticError, MemoryError, RuntimeError)
"""NumPy, CuPy and torch raise these where a decomposition, a memory or a device fails."""


def why(error: Exception) -> str:
    """Return the reason of a failure in a few words, for a note."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def attempted(work: Callable[[], Raw]) -> Raw | str:
    """Return what `work` gives, or why it failed. Raises InputError, which is no failure of the computation.

    Values that overflow are found by what is made of them: they are not warned of."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return work()
    except InputError:
        raise
    except FAILURES as error:
        return why(error)
