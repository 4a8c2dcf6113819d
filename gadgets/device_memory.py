"""Memory of a CUDA device that torch and CuPy share: each keeps what it took for its own next arrays."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["share"]


def share(cupy: Any) -> None:
    """Give CuPy the memory that torch keeps, where the device has no other. An allocator of somebody else stays.

    The networks of scans that are done keep most of a device in a server. Lines of the next scan found no room there.
    """
    pool = cupy.get_default_memory_pool()
    if cupy.cuda.get_allocator() != pool.malloc:
        return

    def malloc(size: int) -> Any:
        try:
            return pool.malloc(size)
        except cupy.cuda.memory.OutOfMemoryError:
            torch = sys.modules.get("torch")
            if torch is None or not torch.cuda.is_initialized():
                raise
            torch.cuda.empty_cache()
            return pool.malloc(size)

    cupy.cuda.set_allocator(malloc)
