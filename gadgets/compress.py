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
from mrnets.contract import Raw
from mrnets.errors import InputError
from mrnets.mrd.lines import Item
from mrnets.physics.compress import DEFAULT, Gdcc
from mrnets.preparation import Compression
from mrnets.stages import coils_needed, compress_raw

__all__ = ["compress"]

_logger = logging.getLogger(__name__)

MAX_COILS = 32
"""Virtual coils, at most, unless told otherwise."""
SHARE = 0.1
"""Signal that compression may lose, over the noise, in energy. Heads of 32 coils at SNR 15 and 50 need 12, and lose
0.03 dB at most. A head of 16 coils at SNR 135 needs all of them: 12 by one matrix, as in volumes, lose 3 dB."""


@gadget(takes=("kspace",), gives="kspace")
def compress(
    stream: Iterable[Item],
    header: ismrmrdHeader,
    *,
    coils: int | None = None,
    method: Literal["auto", "gdcc", "svd"] = "auto",
    options: Gdcc = DEFAULT,
) -> Iterator[Item]:
    """Compress the coils of frames to `coils`; a frame that has no more passes unchanged, as does everything else.

    `coils`: none: as many as the noise asks for, at most 32. Then what is lost stays below a tenth of the noise.
    `method`: "gdcc": geometric decomposition (Zhang 2013). Each position along the readout has its own matrix, from
    calibration smoothed over `window` positions. "svd": one matrix. "auto": "gdcc" where there is a readout, else
    "svd".
    `align`: the matrices change smoothly from position to position, so that virtual coils keep their identity.
    `lines`: number of middle calibration lines that the matrices come from; none: all.
    Raises InputError as `mrnets.stages.compress_raw` does, and for coils, window or lines below 1.
    """
    window, lines = options.window, options.lines
    if (coils is not None and coils < 1) or window < 1 or (lines is not None and lines < 1):
        raise InputError(f"coils, window and lines must be at least 1, got {coils}, {window} and {lines}")
    for item in stream:
        if not isinstance(item, Frame) or item.raw.kspace.shape[-3] <= (coils or 1):
            yield item
            continue
        raw = attempted(partial(_compressed, item.raw, coils, method, options))
        if isinstance(raw, str):
            note = f"coil compression failed ({raw}); all coils were kept"
            _logger.warning("%s", note)
            yield replace(item, notes=(*item.notes, note))
            continue
        if raw is item.raw:
            yield item
            continue
        made = f"{raw.kspace.shape[-3]} virtual coils ({raw.compressed})"
        yield replace(item, raw=raw, history=(*item.history, made))


def _compressed(raw: Raw, coils: int | None, method: Compression, options: Gdcc) -> Raw:
    if coils is None:
        coils = min(coils_needed(raw, SHARE, method, options), MAX_COILS)
    return compress_raw(raw, coils, method, options)
