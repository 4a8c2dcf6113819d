"""Coil sensitivities, from calibration lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Literal

from ismrmrd.xsd import ismrmrdHeader

from gadgets.failures import attempted
from gadgets.frame import Frame, naming_shortfalls
from gadgets.gadget import gadget
from mrnets.errors import InputError
from mrnets.mrd.lines import Item
from mrnets.physics.espirit import DEFAULT, Espirit
from mrnets.stages import sense_raw

__all__ = ["coils"]

MAX_CALIBRATION = 96
"""Samples along each axis. The calibration matrix grows with the square of it: by then it has gigabytes."""


@gadget(takes=("kspace",), gives="coil maps")
def coils(
    stream: Iterable[Item],
    header: ismrmrdHeader,
    *,
    method: Literal["espirit", "rss", "unitary"] = "espirit",
    options: Espirit = DEFAULT,
) -> Iterator[Item]:
    """Give frames their coil sensitivities; everything else passes.

    method: "espirit": by eigenvalues (Uecker 2014). "rss": low-resolution coil images over the root of their sum of
    squares. "unitary": every coil alike.
    calibration: samples along each axis that are taken from the calibration lines at most.
    kernel: width of ESPIRiT's patches, samples. threshold: singular values that count half, relative to the largest.
    crop: maps are zero where the eigenvalue is less.

    A frame on which they fail goes on without them, and is reconstructed by a simpler method.
    Raises InputError for a scan without calibration lines, and for options out of their range.
    """
    if options.calibration > MAX_CALIBRATION:
        raise InputError(f"calibration must be at most {MAX_CALIBRATION}, got {options.calibration}")
    for item in stream:
        if not isinstance(item, Frame):
            yield item
            continue
        with naming_shortfalls(item):
            raw = attempted(partial(sense_raw, item.raw, method, options))
        if isinstance(raw, str):
            yield replace(item, failed=f"coil sensitivities failed ({raw})")
            continue
        yield replace(item, raw=raw, history=(*item.history, f"{method} sensitivities"))
