"""Memory that a process frees is kept for its next arrays.

A network makes and frees arrays of a few MiB in every operation. By default the C library returns much of that to the
system, which has to clear it before it lends it again. That took a tenth to a fifth of the time of a slice.
Source: GNU C library, mallopt(3).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

__all__ = ["settle"]

MIB = 2**20
SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": (-3, 32 * MIB),
    "MALLOC_TRIM_THRESHOLD_": (-1, 256 * MIB),
    "MALLOC_ARENA_MAX": (-8, 1),
}
"""By the variable with which a user sets the same: the number of the parameter, and its value.

Arrays above the first, such as k-space of a volume, go back to the system as soon as they are freed. At the end of
the heap, at most the second is kept. Free memory below arrays in use is kept, too, however much it is. All threads
share one heap: several heaps kept more memory, and gained no time."""


def settle(environment: Mapping[str, str] = os.environ) -> None:
    """Set how the GNU C library keeps freed memory, but for what the user has set in `environment`.

    Other C libraries are left as they are."""
    set_parameter = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_parameter is None or "GLIBC_TUNABLES" in environment:
        return
    for name, (parameter, value) in SETTINGS.items():
        if name not in environment:
            set_parameter(parameter, value)
