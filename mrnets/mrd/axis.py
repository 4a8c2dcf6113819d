"""Axes of phase encoding: the place of their counters on the grid, the k-space centre, and the length of the grid.

On every grid the k-space centre is at n // 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Axis", "Limit", "Seen", "full_centres", "placed"]


@dataclass(frozen=True)
class Limit:
    """The first and last position along one axis of the encoded grid that was to be sampled, and the centre's."""

    minimum: int
    centre: int
    maximum: int


@dataclass(frozen=True)
class Seen:
    """A k-space centre that the data show, and that contradicts the header's."""

    centre: int
    """The counter of the centre."""
    reason: str
    """A sentence without the name of the axis."""


@dataclass(frozen=True)
class Axis:
    """The places of the counters of one axis on its grid."""

    size: int
    """Positions on the grid."""
    offset: int
    """The position of counter 0."""
    limit: Limit
    guess: str = ""
    """A sentence on what was taken instead of the header's; empty: nothing."""


def placed(
    name: str, sizes: tuple[int, int], limit: Any, *, user: int = 0, hand: int | None = None, seen: Seen | None = None
) -> Axis:
    """Return the place of one axis: around the centre by hand, or of the data, or of the lines, or of the header.

    name: for sentences.
    sizes: of the encoded grid, and of the grid that images need with the same distance of lines. The second one is
    taken if the announced lines fit only that one.
    limit: the header's; None: counters are positions.
    user: the centre in the lines' user counters; 0: none.
    """
    size, whole = sizes
    if size == 1:
        return Axis(1, 0, Limit(0, 0, 0))
    centre, guess = _centre_of_header(size, limit)
    if user and user != centre and _fits(max(sizes), limit, user):
        guess = f"the header's centre {limit.center} contradicts {user}, which the lines carry; taking {user}"
        centre = user
    if seen is not None:
        centre, guess = seen.centre, seen.reason
    if hand is not None:
        centre, guess = hand, f"centre {hand} was set by hand"
    if whole > size and not _fits(size, limit, centre) and _fits(whole, limit, centre):
        lines = f"lines {limit.minimum} to {limit.maximum} around the centre {centre}"
        longer = f"{lines} do not fit the matrix of {size}; taking {whole}"
        guess, size = "; ".join(filter(None, (guess, longer))), whole
    offset = size // 2 - centre
    first, last = (0, size - 1) if limit is None else (int(limit.minimum) + offset, int(limit.maximum) + offset)
    limits = Limit(max(first, 0), size // 2, min(last, size - 1))
    return Axis(size, offset, limits, f"{name}: {guess}" if guess else "")


def full_centres(size: int, limit: Any) -> tuple[int, ...]:
    """Return the counters at which the centre lies if one half of k-space is full: the first or the last half.

    Partial Fourier leaves out a part of the other half. Empty where the announced lines fill the grid."""
    if limit is None or size == 1 or limit.maximum - limit.minimum + 1 >= size:
        return ()
    both = (int(limit.maximum) - (size - 1 - size // 2), int(limit.minimum) + size // 2)
    return tuple(centre for centre in both if limit.minimum <= centre <= limit.maximum)


def _centre_of_header(size: int, limit: Any) -> tuple[int, str]:
    """The counter of the k-space centre, and what was guessed. Without limits counters are positions."""
    middle = size // 2
    if limit is None:
        return middle, ""
    if limit.minimum <= limit.center <= limit.maximum and (limit.center or limit.maximum + middle < size):
        return int(limit.center), ""
    if limit.maximum <= limit.minimum:
        return middle, f"the header announces no line but {limit.minimum}; taking the centre {middle}"
    return middle, f"the header's centre {limit.center} does not fit its matrix of {size}; taking {middle}"


def _fits(size: int, limit: Any, centre: int) -> bool:
    """Whether all lines that the header announces have a place on the grid around this centre."""
    if limit is None or not limit.minimum <= centre <= limit.maximum:
        return False
    offset = size // 2 - centre
    return bool(limit.minimum + offset >= 0 and limit.maximum + offset < size)
