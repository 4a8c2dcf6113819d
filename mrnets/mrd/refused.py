"""Lines that are left out of an image, since their headers cannot be right; the sentences are in `left_out`."""

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
    """A sentence that names the acquisition; empty: none was left out, or the sentence needs all of them."""
    first: int = 0
    """The scan counter of that acquisition, the smallest of all that were left out."""

    @classmethod
    def together(cls, several: Iterable[Refused]) -> Refused:
        """Return those of several parts of an image as one."""
        one = cls()
        for some in several:
            one.add(some.count, some.reason, some.first)
        return one

    def add(self, count: int, reason: str, first: int) -> None:
        """Account for some more lines, of which the one with the scan counter `first` came first."""
        if count and (not self.count or first < self.first):
            self.reason, self.first = reason, first
        self.count += count

    def note(self, lines: int, outside: int = 0) -> str:
        """Return a sentence for the comment of an image of which `lines` came, those left out included; or nothing.

        outside: lines that were left out for another reason. Raises InputError with the reason where both together are
        so many that the scan's header must be wrong."""
        if self.count and (self.count + outside) * MAX_OUTSIDE > lines:
            raise InputError(self.reason)
        return f"{self.count} of {lines} lines were left out; the first: {self.reason}" if self.count else ""
