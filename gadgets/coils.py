"""Coil sensitivities, from calibration lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Literal

from ismrmrd.xsd import ismrmrdHeader

from gadgets.batches import in_batches
from gadgets.failures import attempted
from gadgets.frame import Frame, naming_shortfalls
from gadgets.gadget import gadget
from mrnets.contract import Raw
from mrnets.errors import InputError
from mrnets.mrd.lines import Item
from mrnets.noise import agreed_together
from mrnets.physics.arrays import Array, array_namespace, to_numpy
from mrnets.physics.espirit import DEFAULT, Espirit
from mrnets.preparation import Sensitivities
from mrnets.stages import sense_later, sense_raw

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
    batch: int = 0,
) -> Iterator[Item]:
    """Give frames their coil sensitivities; everything else passes.

    method: "espirit": by eigenvalues (Uecker 2014). "rss": low-resolution coil images over the root of their sum of
    squares. "unitary": every coil alike.
    calibration: samples along each axis that are taken from the calibration lines at most.
    kernel: width of ESPIRiT's patches, samples. threshold: singular values that count half, relative to the largest.
    crop: eigenvalue where the maps count about half; they fade to zero below it. sets: of ESPIRiT's maps, at most; 2
    adds a second set to slices whose object is larger than the field of view.
    batch: slices that are computed together; 0: 16 on a CUDA device, else 1. Slices that have not come are not awaited.

    A slice on which they fail goes on without them, and is reconstructed by a simpler method. Those of a volume are
    estimated part by part, when the network needs them.
    Raises InputError for a scan without calibration lines, and for options out of their range.
    """
    if options.calibration > MAX_CALIBRATION:
        raise InputError(f"calibration must be at most {MAX_CALIBRATION}, got {options.calibration}")
    if batch < 0:
        raise InputError(f"batch must be 0 or more, got {batch}")
    for items in in_batches(stream, batch):
        if not isinstance(items[0], Frame):
            yield from items
            continue
        frames = _agreed([item for item in items if isinstance(item, Frame)])
        if frames[0].volume:
            yield _later(frames[0], method, options)
            continue
        for frame, raw in zip(frames, _sensed(frames, method, options), strict=True):
            if isinstance(raw, str):
                yield replace(frame, failed=f"coil sensitivities failed ({raw})")
            else:
                two = raw.sens is not None and raw.sens.shape[1] > 1
                made = f"{method} sensitivities (2 sets)" if two else f"{method} sensitivities"
                yield replace(frame, raw=raw, history=(*frame.history, made))


def _agreed(frames: list[Frame]) -> list[Frame]:
    """Return frames of one form with the noise level that their calibration lines bear out: maps depend on it, too."""
    found = attempted(partial(agreed_together, [frame.raw for frame in frames]))
    if isinstance(found, str):
        return frames if len(frames) == 1 else [_agreed([frame])[0] for frame in frames]
    both = zip(frames, found, strict=True)
    return [replace(frame, raw=raw, notes=(*frame.notes, *notes)) for frame, (raw, notes) in both]


def _later(frame: Frame, method: Sensitivities, options: Espirit) -> Frame:
    """Return a volume whose maps are estimated part by part, with its image: all of them exceed its k-space."""
    with naming_shortfalls(frame):
        raw = sense_later(frame.raw, method, options)
    return replace(frame, raw=raw, history=(*frame.history, f"{method} sensitivities"))


def _sensed(frames: list[Frame], method: Sensitivities, options: Espirit) -> Iterator[Raw | str]:
    """Yield the data of frames of one form with sensitivities, or why there are none."""
    together = _sensed_together(frames, method, options) if len(frames) > 1 else None
    if together is not None and together.sens is not None:
        for frame, sens in zip(frames, _own(together.sens), strict=True):
            yield replace(frame.raw, sens=sens, sens_method=together.sens_method)
        return
    for frame in frames:
        with naming_shortfalls(frame):
            raw = attempted(partial(sense_raw, frame.raw, method, options))
        yield raw


def _own(sens: Array) -> list[Array]:
    """Return the maps (1, set, coil, y, x) of each slice of a batch, without a second set that only others have."""
    batch, sets = sens.shape[:2]
    used = [sets] * batch
    if sets > 1:
        used = [2 if second else 1 for second in to_numpy(array_namespace(sens).any(sens[:, 1] != 0, axis=(1, 2, 3)))]
    return [sens[n : n + 1, :count] for n, count in enumerate(used)]


def _sensed_together(frames: list[Frame], method: Sensitivities, options: Espirit) -> Raw | None:
    """Return the sensitivities of several slices in one batch.

    None where one of them fails, or has noise of its own: they are tried alone."""
    blocks = [frame.raw.calibration for frame in frames]
    levels = {(frame.raw.variance, frame.raw.averages) for frame in frames}
    if blocks[0] is None or len(levels) > 1:
        return None

    def sensed() -> Raw:
        together = array_namespace(blocks[0]).concat(blocks)  # for which the memory may not do
        return sense_raw(replace(frames[0].raw, calibration=together), method, options)

    try:
        found = attempted(sensed)
    except InputError:
        return None
    return None if isinstance(found, str) else found
