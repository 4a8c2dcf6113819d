"""Counters of acquisitions, as the limits in a header announce them."""

from __future__ import annotations

from typing import Any

__all__ = ["announced"]

MAX_COUNTER = 65535


def announced(limits: Any, counter: str) -> range:
    """Return the values of a counter ("slice", "average") that a header announces; none where it does not tell.

    limits: `encodingLimits` of the header, or None. Values beyond 16 bits are left out: they cannot come.
    """
    limit = getattr(limits, counter, None)
    return range(0) if limit is None else range(int(limit.minimum), min(int(limit.maximum), MAX_COUNTER) + 1)
