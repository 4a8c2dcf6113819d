"""Lines that are kept aside until the image that they may belong to is complete: doubtful ones, and navigators.

Lines that cannot be used are only counted."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from ismrmrd.xsd import ismrmrdHeader

from gadgets.gather import Group, Memory, gather, settle, unite
from mrnets.errors import InputError
from mrnets.mrd.calibration import nearest
from mrnets.mrd.encoding import Encoding, found
from mrnets.mrd.epi import PhaseDifference, phase_difference
from mrnets.mrd.flags import DOUBTFUL, LEFT_OUT, Flag, has_flag, is_doubtful
from mrnets.mrd.images import Key, by_image
from mrnets.mrd.lines import Lines, require_samples, take
from mrnets.mrd.refused import Refused

__all__ = ["UNUSED", "Aside", "Strays"]

UNUSED = "phase-correction lines came and nothing was corrected by them"


@dataclass
class Aside:
    """Lines by the image that they were sent for."""

    memory: Memory
    doubtful: dict[Key, list[Lines]] = field(default_factory=dict)
    """See `mrnets.mrd.flags.is_doubtful`."""
    navigators: dict[Key, list[Lines]] = field(default_factory=dict)
    """Phase-correction lines."""
    _differences: dict[Key, PhaseDifference] = field(default_factory=dict)
    """Between the two directions of the readout, of images that are complete."""

    def sift(self, lines: Lines) -> Lines:
        """Keep doubtful lines and navigators; the lines of images and of calibrations come back."""
        if not has_flag(lines.headers, DOUBTFUL, *LEFT_OUT).any():
            return lines
        doubtful, navigators = is_doubtful(lines.headers), has_flag(lines.headers, Flag.IS_PHASECORR_DATA)
        for kept, which in ((self.doubtful, doubtful), (self.navigators, navigators)):
            if which.any():
                self._keep(kept, take(lines, np.flatnonzero(which)))
        return take(lines, np.flatnonzero(~doubtful & ~has_flag(lines.headers, *LEFT_OUT)))

    def complete(self, key: Key, group: Group, encoding: Encoding) -> None:
        """Give an image its doubtful lines, and unite its lines of both directions of the readout."""
        doubtful = self._taken(self.doubtful, key)
        if doubtful and (group.echoes or group.backwards) and settle(group, doubtful, encoding):
            for lines in doubtful:
                gather({key: group}, lines, encoding, self.memory)
        navigators = self._taken(self.navigators, key)
        difference = phase_difference(navigators, encoding)
        if difference is not None:
            self._differences[key] = difference
        known = nearest(self._differences, key)
        unite(group, None if known is None else self._differences[known], encoding, self.memory)
        if navigators and group.aligned is None:
            group.notes += (UNUSED,)

    def all_doubtful(self) -> list[Lines]:
        """All doubtful lines, which are kept no longer."""
        return [lines for key in list(self.doubtful) for lines in self._taken(self.doubtful, key)]

    def _keep(self, kept: dict[Key, list[Lines]], lines: Lines) -> None:
        self.memory.hold(lines)
        for key, _, which in by_image(lines.headers, int(lines.headers["encoding_space_ref"][0])):
            kept.setdefault(key, []).append(take(lines, which))

    def _taken(self, kept: dict[Key, list[Lines]], key: Key) -> list[Lines]:
        taken = kept.pop(key, [])
        for lines in taken:
            self.memory.drop(lines)
        return taken


@dataclass
class Strays:
    """Lines that cannot be used. They are left out, and counted.

    They have samples that are not finite, are of encoding spaces that the header does not have, or have another number
    of coils than the lines before them."""

    header: ismrmrdHeader
    coils: int | None = None
    """The number of coils of the scan's lines; None before the first."""
    _lines: int = 0
    """All lines of images and calibrations that came, of any space."""
    _all: Refused = field(default_factory=Refused)
    _of: dict[tuple[int, ...], Refused] = field(default_factory=dict)
    """By the image, without its space; until it is complete."""

    def finite(self, lines: Lines) -> Lines:
        """Return the lines without NaN and infinite samples. Those of no use for images are not counted."""
        there = lines.finite
        if there.all():
            return lines
        unused = has_flag(lines.headers, *LEFT_OUT) & ~has_flag(lines.headers, Flag.IS_PHASECORR_DATA)
        damaged = take(lines, np.flatnonzero(~there & ~unused))
        self._lines += len(damaged)
        self._leave_out(damaged, " has NaN or infinite samples")
        return take(lines, np.flatnonzero(there))

    def sift(self, lines: Lines) -> Lines:
        """Return lines of images, which are of one encoding space, or none of them if they cannot be used.

        Raises InputError for lines without coils or samples."""
        if not len(lines):
            return lines
        require_samples(lines)
        self._lines += len(lines)
        coils = lines.data.shape[1]
        try:
            found(self.header, int(lines.headers["encoding_space_ref"][0]))
        except InputError as error:
            return self._leave_out(lines, f": {error}")
        self.coils = self.coils or coils
        return lines if coils == self.coils else self._leave_out(lines, f" has {coils} coils, others {self.coils}")

    def _leave_out(self, lines: Lines, reason: str) -> Lines:
        """Count lines by their image; none of them come back."""
        for key, _, which in by_image(lines.headers, 0):
            first = int(lines.headers["scan_counter"][which[0]])
            for left_out in (self._all, self._of.setdefault(key[:4], Refused())):
                left_out.add(len(which), f"acquisition {first}{reason}", first)
        return take(lines, np.arange(0))

    def of(self, key: Key, lines: int) -> list[str]:
        """Return a sentence on those of an image that got `lines` others. Raises InputError where they are many."""
        strays = self._of.pop(key[:4], Refused())
        return [note] if (note := strays.note(lines + strays.count)) else []

    def rest(self) -> str:
        """Return a sentence on those whose image is not known; no more come. Raises InputError where they are many."""
        note = self._all.note(self._lines)
        return note if self._of else ""
