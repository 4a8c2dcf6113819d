"""Coil compression: fewer, virtual coils that hold the signal of all."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Literal

from ismrmrd.xsd import ismrmrdHeader

from gadgets.failures import attempted
from gadgets.frame import Frame
from gadgets.gadget import gadget
from mrnets.errors import InputError
from mrnets.mrd.lines import Item
from mrnets.physics.compress import DEFAULT, Gdcc
from mrnets.stages import compress_raw

__all__ = ["compress"]

_logger = logging.getLogger(__name__)

COILS = 32
"""Virtual coils unless told otherwise. Fewer cost signal where there is little noise: 12 of 16 coils 2.5 dB in a head
at SNR 135. Where there is more noise, matrices from 24 calibration lines lose signal worth 15 % of the noise energy."""


@gadget(takes=("kspace",), gives="kspace")
def compress(
    stream: Iterable[Item],
    header: ismrmrdHeader,
    *,
    coils: int = COILS,
    method: Literal["auto", "gdcc", "svd"] = "auto",
    options: Gdcc = DEFAULT,
) -> Iterator[Item]:
    """Compress the coils of frames to `coils`; a frame that has no more passes unchanged, as does everything else.

    `method`: "gdcc": geometric decomposition (Zhang 2013). Each position along the readout has its own matrix, from
    calibration smoothed over `window` positions. "svd": one matrix. "auto": "gdcc" where there is a readout, else
    "svd".
    `align`: the matrices change smoothly from position to position, so that virtual coils keep their identity.
    `lines`: number of middle calibration lines that the matrices come from; none: all.
    Raises InputError as `mrnets.stages.compress_raw` does, and for coils, window or lines below 1.
    """
    window, lines = options.window, options.lines
    if coils < 1 or window < 1 or (lines is not None and lines < 1):
        raise InputError(f"coils, window and lines must be at least 1, got {coils}, {window} and {lines}")
    for item in stream:
        if not isinstance(item, Frame) or item.raw.kspace.shape[-3] <= coils:
            yield item
            continue
        raw = attempted(partial(compress_raw, item.raw, coils, method, options))
        if isinstance(raw, str):
            note = f"coil compression failed ({raw}); all coils were kept"
            _logger.warning("%s", note)
            yield replace(item, notes=(*item.notes, note))
            continue
        yield replace(item, raw=raw, history=(*item.history, f"{coils} virtual coils ({raw.compressed})"))
