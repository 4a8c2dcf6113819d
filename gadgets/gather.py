"""Lines gathered into images: one group of echoes for each image that waits for more lines.

Axes: line, coil, sample for blocks of lines; k-space as in `mrnets.mrd.kspace`.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from weakref import WeakSet

import numpy as np

from gadgets.limits import usual_memory
from mrnets.errors import InputError
from mrnets.mrd.encoding import Encoding
from mrnets.mrd.epi import PhaseDifference, require_even, united
from mrnets.mrd.flags import Flag, has_flag
from mrnets.mrd.images import Key, by_image
from mrnets.mrd.kspace import Echo, add_lines, belong, outvoted, restarted
from mrnets.mrd.lines import Lines, counter, take
from mrnets.mrd.plausible import Facts
from mrnets.mrd.refused import Refused
from mrnets.mrd.spare import Spare

__all__ = ["DROPPED", "TAKEN", "BusyError", "Closed", "Group", "Memory", "gather", "settle", "taken", "unite"]

TAKEN = "lines flagged as surface coil correction (29) are lines of the image: no other lines have their places"
DROPPED = "lines flagged as surface coil correction (29) were left out: other lines have their places"


@dataclass
class Group:
    """The echoes of one image, and what is known of all their lines."""

    echoes: dict[int, Echo] = field(default_factory=dict)
    """By contrast: of lines that run forwards, or all of one direction."""
    backwards: dict[int, Echo] = field(default_factory=dict)
    """By contrast: of reversed lines, until they are united with the others."""
    aligned: PhaseDifference | None = None
    """The difference between the two directions that was taken away."""
    whitened: bool = True
    dwell: float = 0.0
    """µs, of the first line; 0: the header does not say."""
    notes: tuple[str, ...] = ()
    """Notes on its lines, for the comments of its images."""
    facts: Facts = field(default_factory=Facts)


@dataclass
class Closed:
    """Images that are finished, and lines that came for them all the same: few are left out, many refuse the scan."""

    lines: dict[Key, int] = field(default_factory=dict)
    """How many each image had."""
    _late: dict[Key, Refused] = field(default_factory=dict)

    def add(self, key: Key, group: Group) -> None:
        """Take an image that was finished."""
        self.lines[key] = sum(echo.lines for echo in group.echoes.values())

    def leave_out(self, key: Key, lines: Lines) -> None:
        """Count lines of a finished image. Raises InputError where they are many of it."""
        late, first = self._late.setdefault(key, Refused()), counter(lines)
        reason = (
            f"acquisition {first} belongs to {key}, which was finished by a flag (last in slice or repetition) or by a "
            f"later repetition; set sort.trigger to repetition or measurement"
        )
        late.add(len(lines), reason, first)
        late.note(self.lines[key] + late.count)

    def lacks(self) -> str:
        """Return a sentence on lines that came too late, or nothing."""
        late = Refused.together(self._late.values())
        return f"{late.count} lines came too late and were left out; the first: {late.reason}" if late.count else ""


PREPARING = 5
"""Memory that preparing, a network and its output take, in units of the k-space of the image."""
PIXEL_BYTES = 24
"""Memory for a pixel of an image while it is brought onto the grid that the header asks for: three complex copies."""


class BusyError(InputError):
    """Other scans take the memory. When they are done, there may be enough."""


_scans: WeakSet[Memory] = WeakSet()
"""The scans of this process. Those that are over are in it no longer."""
_lock = threading.Lock()


@dataclass(eq=False)
class Memory:
    """The bytes of k-space in work, and how many a scan may take, its reconstruction included."""

    limit: float
    together: float = field(default_factory=lambda: usual_memory() * 2**30)
    """How many all scans of this process may take."""
    used: int = 0
    image: int = 0
    """Bytes that the reconstruction of one image takes, at most."""
    spare: Spare = field(default_factory=Spare)
    """Memory of k-space of images that are done."""

    def __post_init__(self) -> None:
        with _lock:
            _scans.add(self)

    def take(self, lines: Lines, encoding: Encoding, echoes: int) -> None:
        """Account for one more echo, the last of `echoes` of an image. Raises InputError where that is too much."""
        x, y, z = encoding.reduced.matrix
        coils = lines.data.shape[1]
        self.used += x * y * z * coils * 8
        image = echoes * (PREPARING * x * y * z * coils * 8 + PIXEL_BYTES * encoding.pixels)
        self.image = max(self.image, math.ceil(image))
        if self.used + image > self.limit:
            raise InputError(
                f"with acquisition {counter(lines)} k-space in work takes {self.used / 2**30:.1f} GiB and one image "
                f"{image / 2**30:.1f} GiB more ({x} x {y} x {z} samples of {coils} coils, {echoes} echoes); "
                f"sort.memory allows {self.limit / 2**30:.3g} GiB"
            )
        self._require_room(lines)

    def hold(self, lines: Lines) -> None:
        """Account for lines that may have to wait. Raises InputError where they are too many."""
        self.used += lines.data.nbytes
        if self.used > self.limit:
            raise InputError(
                f"with acquisition {counter(lines)} lines that wait for others, and k-space in work, take "
                f"{self.used / 2**30:.1f} GiB; sort.memory allows {self.limit / 2**30:.3g} GiB"
            )
        self._require_room(lines)

    def _require_room(self, lines: Lines) -> None:
        """Raise BusyError where all scans of this process together take too much."""
        if taken() > self.together:
            raise BusyError(
                f"with acquisition {counter(lines)} the scans in work here, this one and others, take "
                f"{taken() / 2**30:.1f} GiB; this machine allows {self.together / 2**30:.3g} GiB; send the scan again "
                "when others are done"
            )

    def drop(self, lines: Lines) -> None:
        """Give back what lines took that waited."""
        self.used -= lines.data.nbytes

    def free(self, group: Group) -> None:
        """Give back what the echoes of a group took."""
        self.used -= sum(echo.kspace.nbytes for echo in (*group.echoes.values(), *group.backwards.values()))


def taken() -> int:
    """Return the bytes that the scans in work in this process take, one image of each in reconstruction."""
    with _lock:
        return sum(scan.used + scan.image for scan in _scans)


def gather(
    groups: dict[Key, Group], lines: Lines, encoding: Encoding, memory: Memory, closed: Closed | None = None
) -> list[Key]:
    """The images that got some of these lines of one encoding space; groups are made as they are needed.

    Raises InputError for many lines of an image that is `closed`, and if memory is not enough."""
    closed = closed or Closed()
    keys = []
    for key, contrast, which in by_image(lines.headers, encoding.index):
        part = take(lines, which)
        if key in closed.lines:
            closed.leave_out(key, part)
            continue
        group = groups.setdefault(key, Group())
        part = group.facts.measured(part, contrast)
        if not len(part):
            continue
        group.whitened &= part.whitened
        group.dwell = group.dwell or float(part.headers["sample_time_us"][0])
        reverse = has_flag(part.headers, Flag.IS_REVERSE)
        for echoes, direction in ((group.echoes, ~reverse), (group.backwards, reverse)):
            if direction.any():
                _add(echoes, contrast, take(part, np.flatnonzero(direction)), encoding, memory)
        keys.append(key)
    return keys


def _add(echoes: dict[int, Echo], contrast: int, lines: Lines, encoding: Encoding, memory: Memory) -> None:
    """Put lines of one direction where they belong."""
    if encoding.epi:
        require_even(lines)
    if contrast not in echoes:
        memory.take(lines, encoding, len(echoes) + 1)
        echoes[contrast] = Echo.empty(encoding, lines, spare=memory.spare)
    elif outvoted(echoes[contrast], lines, encoding):
        echoes[contrast] = restarted(echoes[contrast], lines, encoding, memory.spare)
    add_lines(echoes[contrast], lines, encoding)


def unite(group: Group, difference: PhaseDifference | None, encoding: Encoding, memory: Memory) -> None:
    """Make one echo of the lines of both directions of each contrast.

    difference: between the two, from phase-correction lines, if there are any."""
    for contrast, backwards in group.backwards.items():
        both = [*([group.echoes[contrast]] if contrast in group.echoes else []), backwards]
        if len(both) > 1:
            group.aligned = difference
            memory.used -= backwards.kspace.nbytes
        group.echoes[contrast] = united(both, difference, encoding)
    group.backwards.clear()


def settle(group: Group, doubtful: list[Lines], encoding: Encoding) -> bool:
    """Whether doubtful lines of an image are its lines: all of them or none. The decision is noted in its group."""
    headers = np.concatenate([lines.headers for lines in doubtful])
    taken = all(lines.whitened == group.whitened for lines in doubtful)
    for _, contrast, which in by_image(headers, encoding.index):
        own = [echoes[contrast] for echoes in (group.echoes, group.backwards) if contrast in echoes]
        line = next(iter([*own, *group.echoes.values(), *group.backwards.values()])).header
        counts = sum((echo.counts for echo in own), np.zeros(encoding.reduced.matrix[:0:-1], np.int32))
        taken &= belong(headers[which], line, counts, encoding)
    group.notes += (TAKEN if taken else DROPPED,)
    return taken
