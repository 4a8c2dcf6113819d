"""Slices that lie side by side, for networks that look at several of them together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ismrmrd.xsd import ismrmrdHeader

from gadgets.frame import Frame
from mrnets.mrd.lines import Item

__all__ = ["with_neighbours"]


def with_neighbours(
    stream: Iterable[Item], header: ismrmrdHeader, complete: Callable[[list[Frame]], list[Frame]]
) -> Iterator[Item]:
    """`complete` of all slices of each image together, ordered in space; volumes have their neighbours with them.

    Slices wait until all that the header announces have come, or for the end; other items pass at once."""
    waiting: dict[tuple[Any, ...], list[Frame]] = {}
    for item in stream:
        if not isinstance(item, Frame):
            yield item
            continue
        key = _image_of(item)
        waiting.setdefault(key, []).append(item)
        if item.volume or len(waiting[key]) == _announced_slices(header, item.encoding):
            yield from complete(_in_space(waiting.pop(key)))
    for frames in waiting.values():
        yield from complete(_in_space(frames))


def _image_of(frame: Frame) -> tuple[Any, ...]:
    """What slices of one image have in common."""
    idx = frame.headers[0, 0]["idx"]
    counters = tuple(int(idx[name]) for name in ("repetition", "set", "phase", "contrast"))
    return (frame.encoding, counters, tuple(frame.raw.kspace.shape[1:2]), tuple(frame.raw.kspace.shape[-2:]))


def _announced_slices(header: ismrmrdHeader, encoding: int) -> int | None:
    """None where the header does not say, or says there is but one: then the end tells."""
    limits = header.encoding[encoding].encodingLimits
    last = 0 if limits is None or limits.slice is None else int(limits.slice.maximum)
    return last + 1 if last > 0 else None


def _in_space(frames: list[Frame]) -> list[Frame]:
    """By position along the slice direction; by the slice counter where headers have no positions."""

    def place(frame: Frame) -> tuple[float, int]:
        head = frame.headers[0, 0]
        along = sum(float(p) * float(d) for p, d in zip(head["position"], head["slice_dir"], strict=True))
        return round(along, 3), int(head["idx"]["slice"])

    return sorted(frames, key=place)
