"""Coil compression: fewer, virtual coils that hold the signal of all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal

from ismrmrd.xsd import ismrmrdHeader

from gadgets.frame import Frame
from gadgets.lines import Item
from gadgets.stream import gadget
from mrnets.errors import InputError

__all__ = ["compress"]


@gadget
def compress(
    stream: Iterable[Item],
    header: ismrmrdHeader,
    *,
    coils: int = 8,
    method: Literal["auto", "gdcc", "svd"] = "auto",
    window: int = 5,
    align: bool = True,
) -> Iterator[Item]:
    """Compress the coils of frames to `coils`; a frame that has no more passes unchanged, as does everything else.

    "gdcc": geometric decomposition (Zhang 2013), matrices of their own for each position along the readout, from
    calibration smoothed over `window` positions and aligned; "svd": one matrix; "auto": the first where there is a
    readout. Raises InputError as `mrnets.prepare.compress_raw` does, and for coils or window below 1.
    """
    if coils < 1 or window < 1:
        raise InputError(f"compress: coils and window must be at least 1, got {coils} and {window}")
    for item in stream:
        if not isinstance(item, Frame) or item.raw.kspace.shape[-3] <= coils:
            yield item
            continue
        from mrnets.prepare import compress_raw  # brings torch, which a chain should not need in order to start

        options: dict[str, Any] = (
            {} if method == "svd" or item.raw.readout is None else {"window": window, "align": align}
        )
        raw = compress_raw(item.raw, coils, method, **options)
        yield replace(item, raw=raw, history=(*item.history, f"{coils} virtual coils ({raw.compressed})"))
