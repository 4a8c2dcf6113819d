"""Sums over all scans of a process, for those who watch a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["TOTALS", "Totals"]


@dataclass
class Totals:
    """Sums over all scans of this process."""

    begun: int = 0
    ended: int = 0
    failed: int = 0
    lines: int = 0
    images: int = 0
    seconds: float = 0.0
    warnings: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, **more: float) -> None:
        """Add to some of them."""
        with self._lock:
            for name, value in more.items():
                setattr(self, name, getattr(self, name) + value)

    def told(self) -> Iterator[tuple[str, float, str]]:
        """Yield name, value and meaning of each."""
        yield "scans_begun", self.begun, "Scans that began"
        yield "scans_ended", self.ended, "Scans that ended well"
        yield "scans_failed", self.failed, "Scans that failed"
        yield "lines", self.lines, "Lines that came"
        yield "images", self.images, "Images that were made"
        yield "seconds", self.seconds, "Seconds from the begin of scans to their end"
        yield "warnings", self.warnings, "Warnings of scans"


TOTALS = Totals()
"""Those of this process."""
