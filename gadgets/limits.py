"""Limits on what one client of a server may take. Only the operator of the server sets them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PATIENT", "USUAL", "Limits", "machine_memory", "usual_memory"]


@dataclass(frozen=True)
class Limits:
    """Limits of one connection."""

    start: float = 60.0
    """s: configuration and header must have come this long after the connection."""
    silence: float = 1800.0
    """s without a byte, after the header. A scanner may take its time between lines."""
    unread: float = 60.0
    """s in which a client takes none of the bytes that wait for it."""
    queue: int = 256 << 20
    """Bytes that wait for a client. A client may send a whole scan before it reads the first image."""
    message: float = math.inf
    """Bytes of one message."""


USUAL = Limits()
PATIENT = Limits(start=math.inf, silence=math.inf, unread=math.inf)
"""No limits of time."""

_CONTAINER = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def usual_memory(share: float = 0.8) -> float:
    """Return the GiB that one scan may take on this machine, unless somebody says otherwise."""
    return share * machine_memory() / 2**30


def machine_memory(container: tuple[Path, ...] = _CONTAINER) -> int:
    """Return the memory of this machine in bytes, or that of the container, whose limit stands in one of the files."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in container:
        try:
            total = min(total, int(path.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return total
