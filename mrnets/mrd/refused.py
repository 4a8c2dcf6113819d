"""Lines that are left out of an image, since their headers cannot be right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mrnets.errors import InputError

__all__ = ["MAX_OUTSIDE", "Refused"]

MAX_OUTSIDE = 4
"""An image of which more than one line in so many has no place on the grid, or was refused, is refused."""


@dataclass
class Refused:
    """How many lines were left out, and why the first of them was."""

    count: int = 0
    reason: str = ""
    """A sentence that names the acquisition; empty: none was left out."""

    @classmethod
    def together(cls, several: Iterable[Refused]) -> Refused:
        """Return those of several parts of an image as one."""
        one = cls()
        for some in several:
            one.add(some.count, some.reason)
        return one

    def add(self, count: int, reason: str) -> None:
        """Account for some more lines."""
        self.reason = self.reason or reason
        self.count += count

    def note(self, lines: int) -> str:
        """Return a sentence for the comment of an image of which `lines` came, those left out included; or nothing.

        Raises InputError with the reason where they are so many that the scan's header must be wrong."""
        if self.count * MAX_OUTSIDE > lines:
            raise InputError(self.reason)
        return f"{self.count} of {lines} lines were left out; the first: {self.reason}" if self.count else ""
