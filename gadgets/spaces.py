"""The encoding spaces of a scan while its lines come.

Lines wait where only later ones tell whether images are 3-D, where the k-space centre is, or how large the matrix is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from ismrmrd.xsd import ismrmrdHeader
from numpy.typing import NDArray

from mrnets.mrd.axis import Seen
from mrnets.mrd.centre import Evidence, doubtful_centres
from mrnets.mrd.dimensions import dimensions_of_header, dimensions_of_lines
from mrnets.mrd.encoding import ByHand, Dimensions, Encoding, encoding_of
from mrnets.mrd.extent import Extent, is_silent
from mrnets.mrd.images import by_image
from mrnets.mrd.lines import Lines

__all__ = ["Spaces"]


@dataclass
class _Waiting:
    """Lines of one encoding space whose dimensions, centre or matrix are not known yet."""

    evidence: list[Evidence]
    """For each axis whose centre is doubtful."""
    extent: Extent | None
    """Where the header announces no lines."""
    lines: list[Lines] = field(default_factory=list)
    firsts: list[NDArray[np.void]] = field(default_factory=list)
    """(line,) headers: the first line of each image in each block."""

    def add(self, lines: Lines) -> None:
        """Let some more lines wait."""
        self.lines.append(lines)
        for evidence in self.evidence:
            evidence.energies.add(lines)
        if self.extent is not None:
            self.extent.add(lines)

    @property
    def certain(self) -> bool:
        """Whether later lines tell nothing more of centres and matrix."""
        return all(evidence.complete for evidence in self.evidence) and (self.extent is None or self.extent.complete)

    def over(self, lines: Lines) -> bool:
        """Whether `lines` are of another repetition than the first ones: the lines before tell all that they can."""
        first = self.lines[0].headers["idx"]["repetition"][0]
        return bool((lines.headers["idx"]["repetition"] != first).any())


@dataclass
class Spaces:
    """Encoding spaces by their number, made complete by the first lines that came."""

    header: ismrmrdHeader
    by_hand: ByHand
    gridded: bool = False
    """The data were put on a grid before, whatever their trajectory was."""
    _plain: dict[int, Encoding] = field(default_factory=dict)
    _made: dict[tuple[int, bool], Encoding] = field(default_factory=dict)
    _dimensions: dict[int, Dimensions] = field(default_factory=dict)
    _waiting: dict[int, _Waiting] = field(default_factory=dict)
    _released: set[int] = field(default_factory=set)
    """Spaces whose lines wait no longer."""
    _seen: dict[int, tuple[Seen | None, Seen | None]] = field(default_factory=dict)
    _grown: dict[int, str] = field(default_factory=dict)
    """Sentences on matrices that are of the lines, and not of the header."""

    def embedded(self, index: int) -> bool:
        """Whether calibration lines of space `index` are lines of the image. Raises InputError as `encoding_of`."""
        if index not in self._plain:
            self._plain[index] = encoding_of(self.header, index, gridded=self.gridded)
            known = self.by_hand.known_dimensions or dimensions_of_header(self.header, index)
            if known:
                self._dimensions[index] = known
        return self._plain[index].embedded

    def encoding(self, index: int, *, calibration: bool = False) -> Encoding:
        """Space `index`, of whose lines some came: for lines of images, or for those of separate calibrations."""
        return self._made[index, calibration]

    def begin(self, lines: Lines, *, calibration: bool) -> Encoding:
        """The encoding space of some lines of one purpose. Raises InputError as `encoding_of`."""
        first = lines.headers[0]
        index = int(first["encoding_space_ref"])
        if (index, calibration) not in self._made:
            made = encoding_of(
                self.header,
                index,
                first,
                dimensions=self._dimensions[index],
                by_hand=self.by_hand,
                seen=self._seen.get(index, (None, None)),
                gridded=self.gridded,
            )
            guesses = tuple(filter(None, (self._grown.get(index), *made.guesses)))
            self._made[index, calibration] = replace(made, guesses=guesses)
        return self._made[index, calibration]

    def ready(self, lines: Lines) -> list[Lines]:
        """Lines whose place is known now that `lines`, of one space, came: these and earlier ones, or none."""
        index = int(lines.headers["encoding_space_ref"][0])
        if index in self._released:
            return [lines]
        if index not in self._waiting:
            extent = Extent(index) if not self.gridded and is_silent(self.header, index) else None
            self._waiting[index] = _Waiting(self._doubts(index, lines), extent)
        waiting = self._waiting[index]
        waiting.add(lines)
        if index not in self._dimensions:
            known = np.concatenate([*waiting.firsts, lines.headers])
            waiting.firsts.append(lines.headers[[which[0] for _, _, which in by_image(lines.headers, index)]])
            self._decide(index, dimensions_of_lines(self.header, index, known, whole=False))
        certain = waiting.certain or waiting.over(lines)
        return self._release(index) if certain and index in self._dimensions else []

    def rest(self) -> list[Lines]:
        """All lines that still wait; no more come. Raises InputError for a scan that was cut short."""
        found: list[Lines] = []
        for index, waiting in list(self._waiting.items()):
            if index not in self._dimensions:
                known = np.concatenate(waiting.firsts)
                self._decide(index, dimensions_of_lines(self.header, index, known, whole=True))
            found += self._release(index)
        return found

    def _doubts(self, index: int, lines: Lines) -> list[Evidence]:
        if self.gridded:
            return []
        encoding = encoding_of(
            self.header, index, lines.headers[0], dimensions=self._dimensions.get(index), by_hand=self.by_hand
        )
        return [evidence for evidence in doubtful_centres(encoding, self.header, self.by_hand) if evidence is not None]

    def _decide(self, index: int, dimensions: Dimensions | None) -> None:
        if dimensions is not None:
            self._dimensions[index] = dimensions
        if dimensions == 2:  # slices have one partition, whatever its counter
            waiting = self._waiting[index]
            waiting.evidence = [evidence for evidence in waiting.evidence if evidence.step == 1]

    def _release(self, index: int) -> list[Lines]:
        """The lines that waited, at the centres that they show."""
        waiting = self._waiting.pop(index)
        seen = {evidence.step: evidence.seen() for evidence in waiting.evidence}
        self._seen[index] = (seen.get(1), seen.get(2))
        if waiting.extent is not None:
            self.header, self._grown[index] = waiting.extent.header(self.header)
        self._released.add(index)
        return waiting.lines
