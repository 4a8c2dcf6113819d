"""The encoding spaces of a scan while its lines come: lines wait where only later ones tell whether images are 3-D."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from ismrmrd.xsd import ismrmrdHeader
from numpy.typing import NDArray

from mrnets.mrd.dimensions import dimensions_of_header, dimensions_of_lines
from mrnets.mrd.encoding import ByHand, Dimensions, Encoding, encoding_of
from mrnets.mrd.epi import require_no_ramps
from mrnets.mrd.images import by_image
from mrnets.mrd.lines import Lines

__all__ = ["Spaces"]


@dataclass
class _Waiting:
    """Lines of one encoding space whose dimensions are not known yet."""

    lines: list[Lines] = field(default_factory=list)
    firsts: list[NDArray[np.void]] = field(default_factory=list)
    """(line,) headers: the first line of each image in each block."""


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

    def embedded(self, index: int) -> bool:
        """Whether calibration lines of space `index` are lines of the image. Raises InputError as `encoding_of`."""
        if index not in self._plain:
            self._plain[index] = encoding_of(self.header, index, gridded=self.gridded)
            if not self.gridded:
                require_no_ramps(self.header, index)
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
            self._made[index, calibration] = encoding_of(
                self.header,
                index,
                first,
                dimensions=self._dimensions[index],
                by_hand=self.by_hand,
                gridded=self.gridded,
            )
        return self._made[index, calibration]

    def ready(self, lines: Lines) -> list[Lines]:
        """Lines whose place is known now that `lines`, of one space, came: these and earlier ones, or none."""
        index = int(lines.headers["encoding_space_ref"][0])
        if index in self._dimensions:
            return [lines]
        waiting = self._waiting.setdefault(index, _Waiting())
        waiting.lines.append(lines)
        firsts = [which[0] for _, _, which in by_image(lines.headers, index)]
        known = np.concatenate([*waiting.firsts, lines.headers])
        waiting.firsts.append(lines.headers[firsts])
        return self._released(index, dimensions_of_lines(self.header, index, known, whole=False))

    def rest(self) -> list[Lines]:
        """All lines that still wait; no more come. Raises InputError for a scan that was cut short."""
        found: list[Lines] = []
        for index in list(self._waiting):
            known = np.concatenate(self._waiting[index].firsts)
            found += self._released(index, dimensions_of_lines(self.header, index, known, whole=True))
        return found

    def _released(self, index: int, dimensions: Dimensions | None) -> list[Lines]:
        if dimensions is None:
            return []
        self._dimensions[index] = dimensions
        return self._waiting.pop(index).lines
