"""Sharper images."""

from collections.abc import Iterable, Iterator

import ismrmrd
import numpy as np
from ismrmrd.xsd import ismrmrdHeader

from gadgets.gadget import gadget
from gadgets.geometry import changed
from mrnets.mrd.lines import Item

__all__ = ["sharpen"]


@gadget(takes=("images",), gives="images")
def sharpen(stream: Iterable[Item], header: ismrmrdHeader, *, amount: float = 0.5) -> Iterator[Item]:
    """Sharpen images along the readout by unsharp masking. Everything else passes.

    amount: weight of the difference between an image and its smooth version.
    """
    for item in stream:
        if isinstance(item, ismrmrd.Image):
            smooth = (np.roll(item.data, 1, -1) + np.roll(item.data, -1, -1)) / 2
            item = changed(item, item.data + amount * (item.data - smooth), "sharpened")
        yield item
