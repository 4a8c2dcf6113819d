"""Slices that lie side by side, for networks that look at several of them together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ismrmrd.xsd import ismrmrdHeader

from gadgets.frame import Frame
from gadgets.limits import usual_memory
from mrnets.errors import InputError
from mrnets.mrd.limits import announced
from mrnets.mrd.lines import Item

__all__ = ["with_neighbours"]

SHARE = 0.5
"""The part of the machine's memory in which slices may wait."""


def with_neighbours(
    stream: Iterable[Item], header: ismrmrdHeader, complete: Callable[[list[Frame]], list[Frame]]
) -> Iterator[Item]:
    """Yield `complete` of all slices of each image together, in the order of space. A volume is completed by itself.

    Slices wait until all that the header announces have come, or for the end. Other items pass at once.
    Raises InputError if too much waits."""
    waiting: dict[tuple[Any, ...], list[Frame]] = {}
    most = usual_memory(SHARE) * 2**30
    for item in stream:
        if not isinstance(item, Frame):
            yield item
            continue
        key = _image_of(item)
        waiting.setdefault(key, []).append(item)
        if sum(frame.nbytes for frames in waiting.values() for frame in frames) > most:
            raise InputError(f"more than {most / 2**30:.3g} GiB of slices wait for their neighbours")
        if item.volume or len(waiting[key]) == _announced_slices(header, item.encoding):
            yield from complete(_in_space(waiting.pop(key)))
    for frames in waiting.values():
        yield from complete(_in_space(frames))


def _image_of(frame: Frame) -> tuple[Any, ...]:
    """Return what slices of one image have in common."""
    idx = frame.headers[0, 0]["idx"]
    counters = tuple(int(idx[name]) for name in ("repetition", "set", "phase", "contrast"))
    return (frame.encoding, counters, tuple(frame.raw.kspace.shape[1:2]), tuple(frame.raw.kspace.shape[-2:]))


def _announced_slices(header: ismrmrdHeader, encoding: int) -> int | None:
    """Return the number of slices, or None where the header announces one or none: then the end tells."""
    end = announced(header.encoding[encoding].encodingLimits, "slice").stop
    return end if end > 1 else None


def _in_space(frames: list[Frame]) -> list[Frame]:
    """Return frames in the order of their positions along the slice direction, or else of the slice counter."""

    def place(frame: Frame) -> tuple[float, int]:
        head = frame.headers[0, 0]
        along = sum(float(p) * float(d) for p, d in zip(head["position"], head["slice_dir"], strict=True))
        return round(along, 3), int(head["idx"]["slice"])

    return sorted(frames, key=place)
