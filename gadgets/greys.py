"""16-bit pixels with one scale for a whole series, so that its images can be compared."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import ismrmrd
import numpy as np
from ismrmrd.meta import Meta

from gadgets.meta import with_comment
from mrnets.errors import InputError, counted

__all__ = ["SCALE_OFFSET", "SCALE_RATIO", "Greys", "Scaling"]

Scaling = Literal["series", "first"]

SCALE_RATIO, SCALE_OFFSET = "GADGETRON_ScaleRatio", "GADGETRON_ScaleOffset"
"""Gadgetron's names of meta data: a pixel is the value times the ratio, plus the offset."""
BRIGHTEST = 4095
"""The brightest pixel becomes this: viewers and archives expect 12 bits."""
MAX_GREY = 65535
MAX_HELD = 4 << 30
"""Bytes of images that are held back."""

_logger = logging.getLogger(__name__)


@dataclass
class Greys:
    """The conversion of one series.

    A given scale is used from the first image on. Otherwise "series" holds images back to the end of the series and
    makes its brightest pixel 4095. It is the default because the first slice is often at the edge of the head. A scale
    from that slice alone can be wrong for the others. "first" is for images that cannot wait. The brightest pixel of
    the first image becomes 4095, and pixels that are 16 times brighter still fit. Brighter ones are clipped, and the
    image says so.
    """

    hold: bool
    scale: float | None
    offset: float = 0.0
    held: list[ismrmrd.Image] = field(default_factory=list)
    bytes: int = 0
    """Bytes of `held`."""
    clipped: int = 0

    @classmethod
    def of(cls, output: str, scaling: Scaling, scale: float | None) -> Greys:
        """Return the conversion of magnitude, or of phase: -pi .. pi rad become 0 .. 4095."""
        if output == "phase":
            return cls(False, scale or BRIGHTEST / (2 * math.pi), math.pi)
        return cls(scaling == "series" and scale is None, scale)

    def take(self, image: ismrmrd.Image) -> Iterator[ismrmrd.Image]:
        """Yield what can be converted now. Raises InputError if too much is held back."""
        if self.hold:
            self.held.append(image)
            self.bytes += image.data.nbytes
            if self.bytes > MAX_HELD:
                raise InputError(
                    f"more than {MAX_HELD >> 30} GiB of images wait for the scale of their series; set scaling to first"
                )
            return
        self.scale = self.scale or _fitting([image])
        yield self._converted(image, self.scale)

    def rest(self) -> Iterator[ismrmrd.Image]:
        """Yield what was held back, at the end of the series."""
        scale = self.scale or _fitting(self.held)
        for image in self.held:
            yield self._converted(image, scale)
        self.held.clear()
        if self.clipped:
            _logger.warning("%s too bright for 16 bits, clipped", counted(self.clipped, "pixel"))

    def _converted(self, image: ismrmrd.Image, scale: float) -> ismrmrd.Image:
        scaled = np.rint((image.data + np.float32(self.offset)) * np.float32(scale))
        clipped = int(np.count_nonzero(scaled > MAX_GREY))
        ratio = {SCALE_RATIO: repr(scale), **({SCALE_OFFSET: repr(self.offset * scale)} if self.offset else {})}
        meta = Meta({**image.meta, **ratio})
        if clipped:
            self.clipped += clipped
            meta = with_comment(meta, f"{counted(clipped, 'pixel')} too bright for 16 bits, clipped")
        return ismrmrd.Image(head=image.getHead(), data=np.clip(scaled, 0, MAX_GREY).astype(np.uint16), meta=meta)


def _fitting(images: list[ismrmrd.Image]) -> float:
    brightest = max((float(image.data.max()) for image in images), default=0.0)
    return BRIGHTEST / brightest if brightest > 0 else 1.0
