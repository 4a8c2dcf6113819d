"""Frames that are computed together: those that have come, and no others are waited for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from typing import Any

from gadgets.frame import Frame
from mrnets.contract import Raw
from mrnets.mrd.lines import Item
from mrnets.physics.arrays import array_namespace, on_host

__all__ = ["TOGETHER", "as_one", "in_batches"]

TOGETHER = 16
"""Frames that a CUDA device computes together, unless told otherwise. A processor gains nothing from several."""


def in_batches(stream: Iterable[Item], most: int) -> Iterator[list[Item]]:
    """Yield the items in order: lists of at most `most` frames that fit each other, and any other item by itself.

    most: 0: `TOGETHER` where the frames lie on a device, else 1.
    Frames are waited for no longer than each says that others have come behind it (`Frame.behind`). A list has `most`
    frames or a power of two: a device makes plans and graphs for each size."""
    batch: list[Item] = []
    size = 1
    for item in stream:
        if batch and not (isinstance(item, Frame) and _alike(batch[0], item)):
            yield batch
            batch = []
        if not batch:
            size = _size(item, most) if isinstance(item, Frame) and not item.volume else 1
        batch.append(item)
        if len(batch) >= size or not (isinstance(item, Frame) and item.behind):
            yield batch
            batch = []
    if batch:
        yield batch


def _size(first: Frame, most: int) -> int:
    """Return the size of the list that begins with this frame."""
    most, there = most or (1 if on_host(first.raw.kspace) else TOGETHER), first.behind + 1
    return most if there >= most else 1 << there.bit_length() - 1


def as_one(frames: list[Frame], *, maps: bool = True) -> Raw | None:
    """Return the data of frames of one form as one batch, whitened and, with `maps`, with their sensitivities.

    None where the scans are not yet that far, or differ in a number that a batch has once, as its noise level."""
    raws = [frame.raw for frame in frames]
    first = raws[0]
    if not first.whitened or (maps and first.sens is None):
        return None
    arrays = ("kspace", "mask", "calibration", "sens")
    others = [field.name for field in fields(Raw) if field.name not in (*arrays, "echo_times")]
    if any(getattr(raw, name) != getattr(first, name) for raw in raws for name in others):
        return None
    values = {name: [getattr(raw, name) for raw in raws] for name in arrays}
    xp = array_namespace(first.kspace)
    together: dict[str, Any] = {name: None if x[0] is None else xp.concat(x) for name, x in values.items()}
    return replace(first, **together)


def _alike(first: Frame, other: Frame) -> bool:
    """Whether the arrays of two frames can lie in one, and the same was done to them so far."""
    return not (first.failed or other.failed or other.volume) and _form(first) == _form(other)


def _form(frame: Frame) -> tuple[Any, ...]:
    raw, estimate = frame.raw, frame.estimate
    arrays = (raw.kspace, raw.mask, raw.calibration, raw.sens, None if estimate is None else estimate.image)
    shapes = tuple(None if array is None else tuple(array.shape) for array in arrays)
    times = None if raw.echo_times is None else tuple(float(time) for time in raw.echo_times)
    return (*shapes, times, raw.readout, raw.calibration_images, raw.compressed, raw.sens_method)
