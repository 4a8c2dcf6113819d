"""Lines gathered into images: one group of echoes for each image that waits for more lines.

Axes: line, coil, sample for blocks of lines; k-space as in `mrnets.mrd.kspace`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from mrnets.errors import InputError
from mrnets.mrd.encoding import Encoding
from mrnets.mrd.images import Key, by_image
from mrnets.mrd.kspace import Echo, add_lines, belong
from mrnets.mrd.lines import Lines, counter, take
from mrnets.mrd.plausible import Facts

__all__ = ["DROPPED", "TAKEN", "Group", "Memory", "gather", "settle"]

TAKEN = "lines flagged as surface coil correction (29) are lines of the image: no other lines have their places"
DROPPED = "lines flagged as surface coil correction (29) were left out: other lines have their places"


@dataclass
class Group:
    """The echoes of one image, and what is known of all their lines."""

    echoes: dict[int, Echo] = field(default_factory=dict)
    """By contrast."""
    whitened: bool = True
    dwell: float = 0.0
    """µs, of the first line; 0: the header does not say."""
    notes: tuple[str, ...] = ()
    """What is to be said of its lines."""
    facts: Facts = field(default_factory=Facts)


PREPARING = 5
"""Memory that preparing, a network and its output take, in units of the k-space of the image."""
PIXEL_BYTES = 24
"""Memory for a pixel of an image while it is brought onto the grid that the header asks for: three complex copies."""


@dataclass
class Memory:
    """The bytes of k-space in work, and how many a scan may take, its reconstruction included."""

    limit: float
    used: int = 0

    def take(self, lines: Lines, encoding: Encoding, echoes: int) -> None:
        """Account for one more echo, the last of `echoes` of an image. Raises InputError where that is too much."""
        x, y, z = encoding.reduced.matrix
        coils = lines.data.shape[1]
        self.used += x * y * z * coils * 8
        image = echoes * (PREPARING * x * y * z * coils * 8 + PIXEL_BYTES * encoding.pixels)
        if self.used + image > self.limit:
            raise InputError(
                f"with acquisition {counter(lines)} k-space in work takes {self.used / 2**30:.1f} GiB and one image "
                f"{image / 2**30:.1f} GiB more ({x} x {y} x {z} samples of {coils} coils, {echoes} echoes); "
                f"sort.memory allows {self.limit / 2**30:.3g} GiB"
            )

    def hold(self, lines: Lines) -> None:
        """Account for lines that may have to wait. Raises InputError where they are too many."""
        self.used += lines.data.nbytes
        if self.used > self.limit:
            raise InputError(
                f"with acquisition {counter(lines)} lines that wait for others, and k-space in work, take "
                f"{self.used / 2**30:.1f} GiB; sort.memory allows {self.limit / 2**30:.3g} GiB"
            )

    def drop(self, lines: Lines) -> None:
        """Give back what lines took that waited."""
        self.used -= lines.data.nbytes

    def free(self, group: Group) -> None:
        """Give back what the echoes of a group took."""
        self.used -= sum(echo.kspace.nbytes for echo in group.echoes.values())


def gather(
    groups: dict[Key, Group], lines: Lines, encoding: Encoding, memory: Memory, closed: Collection[Key] = ()
) -> list[Key]:
    """The images that got some of these lines of one encoding space; groups are made as they are needed.

    Raises InputError for lines of images that are `closed`, for lines that do not belong on the grid, and for want of
    memory."""
    keys = []
    for key, contrast, which in by_image(lines.headers, encoding.index):
        part = take(lines, which)
        if key in closed:
            raise InputError(
                f"acquisition {counter(part)} belongs to {key}, which was finished by a flag (last in slice or "
                f"repetition) or by a later repetition; set sort.trigger to repetition or measurement"
            )
        group = groups.setdefault(key, Group())
        part = group.facts.measured(part, contrast)
        if not len(part):
            continue
        group.whitened &= part.whitened
        group.dwell = group.dwell or float(part.headers["sample_time_us"][0])
        if contrast not in group.echoes:
            memory.take(part, encoding, len(group.echoes) + 1)
            group.echoes[contrast] = Echo.empty(encoding, part)
        add_lines(group.echoes[contrast], part, encoding)
        keys.append(key)
    return keys


def settle(group: Group, doubtful: list[Lines], encoding: Encoding) -> bool:
    """Whether doubtful lines of an image are its lines: all of them or none. A sentence is noted in its group."""
    first = next(iter(group.echoes.values()))
    headers = np.concatenate([lines.headers for lines in doubtful])
    taken = all(lines.whitened == group.whitened for lines in doubtful)
    for _, contrast, which in by_image(headers, encoding.index):
        echo = group.echoes.get(contrast, first)
        counts = echo.counts if contrast in group.echoes else np.zeros_like(echo.counts)
        taken &= belong(headers[which], echo.header, counts, encoding)
    group.notes += (TAKEN if taken else DROPPED,)
    return taken
