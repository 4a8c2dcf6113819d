"""The extent of k-space where the header announces no lines: then the lines that came tell it.

Sequences in Pulseq run under an interpreter whose protocol knows nothing of them. Siemens' one announces line 0 alone,
and a matrix that is not the sequence's.

Axes: line, coil, sample.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ismrmrd.xsd import ismrmrdHeader, limitType

from mrnets.errors import InputError
from mrnets.mrd.centre import Energies, least_reach
from mrnets.mrd.encoding import found, limit_of
from mrnets.mrd.flags import Flag, has_flag
from mrnets.mrd.lines import Lines

__all__ = ["Extent", "is_silent"]

ALIKE = 0.1
"""Median energy of the lines, relative to the strongest, above which they are no Cartesian k-space. Scans had 0.04 at
most, a radial one 0.66."""
DAMAGED = 10
"""One counter in so many, at most, may be damaged."""
_LAST = (Flag.LAST_IN_SLICE, Flag.LAST_IN_REPETITION, Flag.LAST_IN_MEASUREMENT)


def is_silent(header: ismrmrdHeader, index: int) -> bool:
    """Return whether the header announces one line for an encoding space with several. Raises InputError where there
    is no such space."""
    limit = limit_of(found(header, index), 1)
    return limit is not None and limit.maximum <= limit.minimum and found(header, index).encodedSpace.matrixSize.y > 1


@dataclass
class Extent:
    """The matrix of one encoding space, as its lines show it."""

    index: int
    """The encoding space."""
    complete: bool = False
    """A flag said that an image is over."""
    _samples: int = 0
    _energies: Energies = field(default_factory=lambda: Energies(1))

    def add(self, lines: Lines) -> None:
        """Take lines of images or of calibrations."""
        self._samples = max(self._samples, lines.data.shape[-1])
        self._energies.add(lines)
        of_image = ~has_flag(lines.headers, Flag.IS_PARALLEL_CALIBRATION)
        self.complete |= bool((has_flag(lines.headers, *_LAST) & of_image).any())

    def header(self, header: ismrmrdHeader) -> tuple[ismrmrdHeader, str]:
        """Return the header with the matrix that the lines show, and a sentence; as it is where they fit its matrix.

        They fill k-space from line 0 to the last one, and their samples do along the readout. Lines with damaged
        counters do not count. The field of view is that of the header's images. Raises InputError where no line in the
        middle stands out."""
        matrix = found(header, self.index).encodedSpace.matrixSize
        means = _without_damaged(self._energies.means())
        lines = max(means, default=0) + 1
        if lines <= matrix.y:
            return header, ""
        told = (
            f"encoding space {self.index}: the header announces no line but 0 and a matrix of {matrix.x} x {matrix.y}"
        )
        came = f"lines 0 to {lines - 1} of {self._samples} samples came"
        strongest = max(means, key=lambda line: means[line])
        alike = float(np.median(list(means.values()))) > ALIKE * means[strongest]
        if alike or abs(strongest - lines // 2) > least_reach(lines):
            raise InputError(
                f"{told}, and {came}; line {lines // 2} in the middle does not stand out as the strongest, so they are "
                "not one Cartesian k-space from its first to its last line"
            )
        mended = copy.deepcopy(header)
        sizes = {"y": lines} | ({"x": self._samples} if self._samples > matrix.x else {})
        _resize(mended.encoding[self.index], sizes)
        whole = mended.encoding[self.index].encodedSpace.matrixSize
        return (
            mended,
            f"{told}, and {came}; a matrix of {whole.x} x {whole.y} over the field of view of the images was taken",
        )


def _without_damaged(means: dict[int, float]) -> dict[int, float]:
    """Return the energies by counter without counters that lie apart, behind the largest gap between two counters.

    A few may be left out, and only where the strongest line then lies nearer to the middle. The last line of irregular
    sampling stays, because the middle is right with it."""
    counters = sorted(means)
    most = len(counters) // DAMAGED
    while len(counters) > 1:
        fewer = counters[: int(np.argmax(np.diff(counters))) + 1]
        if len(means) - len(fewer) > most or _off_middle(fewer, means) >= _off_middle(counters, means):
            break
        counters = fewer
    return {counter: means[counter] for counter in counters}


def _off_middle(counters: list[int], means: dict[int, float]) -> int:
    """Return how far the strongest of these lines is from the middle of a matrix that ends with the last one."""
    strongest = max(counters, key=lambda counter: means[counter])
    return abs(strongest - (counters[-1] + 1) // 2)


def _resize(encoding: Any, sizes: dict[str, int]) -> None:
    """Give an encoding matrices of these sizes, and the field of view of its images along these axes."""
    for space in (encoding.encodedSpace, encoding.reconSpace):
        for axis, size in sizes.items():
            setattr(space.matrixSize, axis, size)
            setattr(space.fieldOfView_mm, axis, getattr(encoding.reconSpace.fieldOfView_mm, axis))
    limit = limitType(minimum=0, maximum=sizes["y"] - 1, center=sizes["y"] // 2)
    encoding.encodingLimits.kspace_encoding_step_1 = limit
