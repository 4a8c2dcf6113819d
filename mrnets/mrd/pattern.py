"""Regular patterns of lines: every n-th one and a full block around the k-space centre, or all lines.

Axes: z, y for the lines of an image; y for those of one plane. The k-space centre is at n // 2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["misfits"]

MAX_MISFITS = 2
"""Lines of a plane that differ from a pattern. Where more do, the lines are sampled in another way."""
FOLLOW, FOLLOW_EACH, FOLLOW_HOLE = 6, 10, 40
"""The least numbers of lines outside of the block that follow a pattern. The first counts where the header announces
it, the others for each misfit and for each hole. Random sampling leaves out a few of few lines."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class _Pattern:
    """Every `step`-th line, and a full block around the centre."""

    step: int
    differ: tuple[int, ...]
    """The lines that differ from it."""
    follow: int
    """How many follow it outside of the block."""
    even: bool
    """Whether the distances outside of the block are equal but for rounding."""

    def holds(self, announced: int) -> bool:
        """Return whether the lines follow it but for a few, which are no other way to sample."""
        if self.step == announced != 1 or not self.differ:
            return self.follow >= FOLLOW
        if self.step == 1:
            return self.follow >= FOLLOW_HOLE * len(self.differ)
        return self.follow >= FOLLOW_EACH * len(self.differ) and not self.even


def misfits(came: Mask, announced: int) -> Iterator[tuple[int, int, int]]:
    """Yield place (z, y) of each line that differs from a regular pattern, and the distance between lines of that.

    came: (z, y). Nothing is yielded where there is no such pattern. A volume has one if most planes follow it wholly.
    announced: the header's acceleration. Distances that differ by 1 may be one that is no whole number. So they are
    regular, unless that acceleration is one of them."""
    found = [(z, pattern) for z, plane in enumerate(came) if plane.any() for pattern in [_pattern(plane, announced)]]
    whole = Counter(pattern.step for _, pattern in found if pattern is not None and not pattern.differ)
    for z, pattern in found:
        if pattern is not None and (len(found) == 1 or 2 * whole[pattern.step] > len(found)):
            yield from ((z, y, pattern.step) for y in pattern.differ)


def _pattern(came: Mask, announced: int) -> _Pattern | None:
    """Return the regular pattern of a plane (y,), or None."""
    lines = np.flatnonzero(came)
    gaps = np.diff(lines)
    steps = {1, *([int(np.bincount(gaps[gaps > 1]).argmax())] if (gaps > 1).any() else [])}
    patterns = [_fitted(came, step, int(np.bincount(lines % step).argmax())) for step in sorted(steps)]
    best = min(patterns, key=lambda pattern: len(pattern.differ))
    return best if len(best.differ) <= MAX_MISFITS and best.holds(announced) else None


def _fitted(came: Mask, step: int, remainder: int) -> _Pattern:
    """Return the pattern with the block around the centre that agrees best with the lines that came."""
    lines = np.flatnonzero(came)
    first, end = int(lines[0]), int(lines[-1]) + 1
    pattern = np.zeros(len(came), np.bool_)
    pattern[first + (remainder - first) % step : end : step] = True
    costs = ~came * 1 - (came != pattern)  # of a line in the block, relative to one outside
    centre = min(max(len(came) // 2, first), end)
    low = centre - _shortest(np.cumsum(costs[first:centre][::-1]))
    high = centre + _shortest(np.cumsum(costs[centre:end]))
    follow = int(np.count_nonzero((came & pattern)[:low]) + np.count_nonzero((came & pattern)[high:]))
    pattern[low:high] = True
    gaps = np.concatenate([np.diff(lines[lines < low]), np.diff(lines[lines >= high])])
    even = bool(len(gaps) and gaps.max() - gaps.min() <= 1)
    return _Pattern(step, tuple(np.flatnonzero(pattern != came).tolist()), follow, even)


def _shortest(sums: NDArray[np.int64]) -> int:
    """Return how many numbers have the smallest sum, 0 for none of them; the fewest, where several have it."""
    return int(np.argmin(np.concatenate([[0], sums])))
