"""Counters of acquisitions, as the limits in a header announce them."""

from __future__ import annotations

from typing import Any

__all__ = ["announced"]


def announced(limits: Any, counter: str) -> range:
    """Return the values of a counter ("slice", "average") that a header announces; none where it does not tell.

    limits: `encodingLimits` of the header, or None.
    """
    limit = getattr(limits, counter, None)
    return range(0) if limit is None else range(int(limit.minimum), int(limit.maximum) + 1)
