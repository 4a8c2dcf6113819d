"""Limits on what one client of a server may take. Only the operator of the server sets them."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["PATIENT", "USUAL", "Limits"]


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


USUAL = Limits()
PATIENT = Limits(start=math.inf, silence=math.inf, unread=math.inf)
"""No limits of time."""
