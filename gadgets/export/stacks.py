"""Images in order: slices along their direction, then echoes and repetitions.

A stack is a set of parallel, evenly spaced slices, or one volume, in every echo and repetition. Images that lie
otherwise (the three planes of a localiser) make stacks of their own, so that no image is lost.
Axes: pixels of a stack (frame, z, y, x).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gadgets.export.contents import Contents, Picture, Series
from gadgets.export.places import Affine, affine_of
from gadgets.geometry import axes_reversed
from mrnets.errors import InputError

__all__ = ["Stack", "stacks_of"]

COUNTERS = ("average", "set", "phase", "repetition", "contrast")
"""Counters that distinguish the frames of a stack. The last one changes fastest."""
UNEVEN = 0.01
"""Distance in mm. A slice that is farther from its position in a row of even steps is not in that row."""
NEAR = 1e-3
"""Distance in mm. Positions that differ by less are the same."""


@dataclass(frozen=True)
class Stack:
    """Slices or one volume, in every echo and repetition."""

    name: str
    """Part of a file name: the role of the images, and a number where there are several stacks of that role."""
    series: Series
    affine: Affine
    """(x, y, z) to LPS, mm. Its third column leads from slice to slice, gaps included."""
    frames: tuple[tuple[Picture, ...], ...]
    """(frame, slice)."""

    @property
    def pixels(self) -> NDArray[Any]:
        """(frame, z, y, x)."""
        return np.stack([np.concatenate([one.pixels[0] for one in frame]) for frame in self.frames])

    @property
    def is_volume(self) -> bool:
        """Whether it is one 3-D image in each frame."""
        return self.frames[0][0].pixels.shape[1] > 1

    def thickness(self) -> float:
        """Return the thickness of a slice or partition, mm."""
        one = self.frames[0][0]
        return float(np.linalg.norm(_affine(one, self.series)[:3, 2]))


def stacks_of(contents: Contents) -> tuple[Stack, ...]:
    """Return the images of a file in order. Raises InputError for images with channels, or without a place."""
    found = [(series, frames) for series in contents.series for frames in _sorted(contents, series)]
    roles = [series.role.replace("*", "star") for series, _ in found]  # R2star, as BIDS has it
    stacks = []
    for n, (series, frames) in enumerate(found):
        role = "".join(c if c.isalnum() else "-" for c in roles[n])[:40] or "Image"
        name = f"{role}_{roles[: n + 1].count(roles[n])}" if roles.count(roles[n]) > 1 else role
        stacks.append(Stack(name, series, _spaced(frames[0], series), frames))
    return tuple(stacks)


def _affine(picture: Picture, series: Series) -> Affine:
    z, y, x = picture.pixels.shape[1:]
    what = f"an image of {series.name}"
    return affine_of(picture.head, (z, y, x), what, reversed_axes=axes_reversed(picture.meta))


def _sorted(contents: Contents, series: Series) -> Iterator[tuple[tuple[Picture, ...], ...]]:
    """Yield the frames (frame, slice) of each stack of a series."""
    if (channels := series.pictures[0].pixels.shape[0]) > 1:
        raise InputError(
            f"{contents.path}: {series.name} has images of {channels} channels; images of combined coils were expected."
        )
    for planes in _parallel(series):
        frames: dict[tuple[int, ...], list[Picture]] = defaultdict(list)
        for picture in planes:
            frames[tuple(int(getattr(picture.head, name)) for name in COUNTERS)].append(picture)
        alike: dict[tuple[tuple[int, ...], ...], list[tuple[Picture, ...]]] = defaultdict(list)
        for key in sorted(frames):
            for run in _runs(frames[key], series):
                alike[tuple(_place(picture) for picture in run)].append(run)
        yield from (tuple(runs) for runs in alike.values())


def _parallel(series: Series) -> Iterator[list[Picture]]:
    """Yield the images of each orientation and field of view."""
    found: dict[tuple[float, ...], list[Picture]] = defaultdict(list)
    for picture in series.pictures:
        head = picture.head
        values = (*head.read_dir, *head.phase_dir, *head.slice_dir, *head.field_of_view)
        found[tuple(round(float(value), 4) + 0.0 for value in values)].append(picture)
    yield from found.values()


def _place(picture: Picture) -> tuple[int, ...]:
    return tuple(round(float(value) / NEAR) for value in picture.head.position)


def _runs(pictures: Sequence[Picture], series: Series) -> Iterator[tuple[Picture, ...]]:
    """Yield the images of one frame, in order along the slice direction, as evenly spaced slices."""
    for picture in pictures:
        _affine(picture, series)  # raises an error where an image has no place
    normal = np.array(pictures[0].head.slice_dir, np.float64)
    ordered = sorted(pictures, key=lambda picture: float(normal @ np.array(picture.head.position)))
    if pictures[0].pixels.shape[1] == 1 and _even(ordered):
        yield tuple(ordered)
    else:
        yield from ((picture,) for picture in ordered)


def _even(ordered: Sequence[Picture]) -> bool:
    """Whether slices follow each other in equal steps, and not at the same place."""
    places = np.array([picture.head.position for picture in ordered], np.float64)
    step = (places[-1] - places[0]) / max(len(places) - 1, 1)
    even = places[0] + np.arange(len(places))[:, None] * step
    return len(places) == 1 or bool(np.linalg.norm(step) > NEAR and np.abs(places - even).max() < UNEVEN)


def _spaced(slices: tuple[Picture, ...], series: Series) -> Affine:
    """Return the affine matrix of slices in order."""
    affine = _affine(slices[0], series)
    if len(slices) > 1:
        first, last = (np.array(slices[n].head.position, np.float64) for n in (0, -1))
        affine[:3, 2] = (last - first) / (len(slices) - 1)
    return affine
