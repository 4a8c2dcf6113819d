"""Frames that are computed together: those that have come, and no others are waited for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from gadgets.frame import Frame
from mrnets.mrd.lines import Item

__all__ = ["in_batches"]


def in_batches(stream: Iterable[Item], most: int) -> Iterator[list[Item]]:
    """Yield the items in order: lists of at most `most` frames that fit each other, and any other item by itself.

    Frames are waited for no longer than each says that others have come behind it (`Frame.behind`)."""
    batch: list[Item] = []
    for item in stream:
        if batch and not (isinstance(item, Frame) and _alike(batch[0], item)):
            yield batch
            batch = []
        batch.append(item)
        if not isinstance(item, Frame) or item.volume or not item.behind or len(batch) >= most:
            yield batch
            batch = []
    if batch:
        yield batch


def _alike(first: Frame, other: Frame) -> bool:
    """Whether the arrays of two frames can lie in one, and the same was done to them so far."""
    return not (first.failed or other.failed or other.volume) and _form(first) == _form(other)


def _form(frame: Frame) -> tuple[Any, ...]:
    raw, estimate = frame.raw, frame.estimate
    arrays = (raw.kspace, raw.mask, raw.calibration, raw.sens, None if estimate is None else estimate.image)
    shapes = tuple(None if array is None else tuple(array.shape) for array in arrays)
    times = None if raw.echo_times is None else tuple(float(time) for time in raw.echo_times)
    return (*shapes, times, raw.readout, raw.calibration_images, raw.compressed, raw.sens_method)
