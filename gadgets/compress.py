"""Coil compression: fewer, virtual coils that hold the signal of all."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Literal

from ismrmrd.xsd import ismrmrdHeader

from gadgets.batches import as_one, in_batches
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
    for items in in_batches(stream, 0):
        frames = [item for item in items if isinstance(item, Frame)]
        yield from _all_compressed(frames, coils, method, options) if frames else items


def _all_compressed(frames: list[Frame], coils: int | None, method: Compression, options: Gdcc) -> Iterator[Frame]:
    """Yield frames of one form with fewer coils. Where that fails for one of several, each is compressed alone."""
    if frames[0].raw.kspace.shape[-3] <= (coils or 1):
        yield from frames
        return
    made: list[Raw] | str | None
    if len(frames) == 1:
        made = attempted(partial(_compressed, frames[0].raw, 1, coils, method, options))
    else:
        made = _together(frames, coils, method, options)
    if isinstance(made, str):
        note = f"coil compression failed ({made}); all coils were kept"
        _logger.warning("%s", note)
        yield replace(frames[0], notes=(*frames[0].notes, note))
    elif made is not None:
        yield from (_noted(frame, raw) for frame, raw in zip(frames, made, strict=True))
    else:
        for frame in frames:
            yield from _all_compressed([frame], coils, method, options)


def _together(frames: list[Frame], coils: int | None, method: Compression, options: Gdcc) -> list[Raw] | None:
    """Return the data of several slices with fewer coils. None where one of them fails: they are tried alone."""

    def compressed() -> list[Raw] | None:
        raw = as_one(frames, maps=False)  # a copy of all, for which the memory may not do
        return None if raw is None else _compressed(raw, len(frames), coils, method, options)

    try:
        made = attempted(compressed)
    except InputError:
        return None
    return None if isinstance(made, str) else made


def _noted(frame: Frame, raw: Raw) -> Frame:
    if raw.kspace.shape == frame.raw.kspace.shape:
        return frame
    made = f"{raw.kspace.shape[-3]} virtual coils ({raw.compressed})"
    return replace(frame, raw=raw, history=(*frame.history, made))


def _compressed(raw: Raw, slices: int, coils: int | None, method: Compression, options: Gdcc) -> list[Raw]:
    """Return the data of each of the slices that lie in `raw`. A volume counts as one slice."""
    needed = coils_needed(raw, SHARE, method, options) if coils is None else [coils] * slices
    counts = [min(count, MAX_COILS) if coils is None else count for count in needed]
    if slices == 1:
        return [compress_raw(raw, counts[0], method, options)]
    from mrnets.tensors import part  # several come on a device alone, and are torch's

    places = [slice(n, n + 1) for n in range(slices)]
    if len(set(counts)) == 1:
        whole = compress_raw(raw, counts[0], method, options)
        return [part(whole, place) for place in places]
    return [compress_raw(part(raw, place), n, method, options) for place, n in zip(places, counts, strict=True)]
