"""The numbers of the images of a series, as Gadgetron's own chains give them."""

from __future__ import annotations

from dataclasses import dataclass, field

import ismrmrd
from ismrmrd.xsd import ismrmrdHeader

from mrnets.mrd.limits import announced

__all__ = ["Numbers"]

MAX_NUMBER = 65535
_COUNTERS = ("average", "repetition", "set", "phase", "contrast", "slice")
"""From the slowest to the fastest."""


@dataclass
class Numbers:
    """The numbers of one series that are taken."""

    taken: set[int] = field(default_factory=set)
    highest: int = 0

    def of(self, image: ismrmrd.ImageHeader, header: ismrmrdHeader, encoding: int, partitions: int) -> int:
        """Return the number of an image, from 1. Slices 0 to 3 get 1 to 4, in whatever order they come.

        It follows from the image's counters and from how many of each the header's limits announce. Where these are
        missing or wrong, it is the next free number.
        encoding: the encoding space. partitions: how many a volume has; 1 for a slice.
        """
        limits = header.encoding[encoding].encodingLimits
        number, told = 0, True
        for name in _COUNTERS:
            end, counter = max(announced(limits, name).stop, 1), int(getattr(image, name))
            number, told = number * end + counter, told and counter < end
        number = number * partitions + 1
        if not told or number in self.taken or number > MAX_NUMBER:
            number = self.highest % MAX_NUMBER + 1
        self.taken.add(number)
        self.highest = max(self.highest, number)
        return number
