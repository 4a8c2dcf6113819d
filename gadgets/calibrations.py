"""The calibration block of each image, as far as it is known when the image is complete.

Separate lines, the image's own centre, that of an earlier image, or the mean over repetitions, or phases of the heart,
that sample different lines (TGRAPPA, Breuer 2005). Axes as in `mrnets.contract.Raw`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from gadgets.gather import Group, Memory, gather
from gadgets.spaces import Spaces
from mrnets.mrd.calibration import (
    MAX_WINDOW,
    Mean,
    Middle,
    centre_block,
    for_later,
    has_centre_block,
    nearest,
    on_spacing_of,
    window_mean,
)
from mrnets.mrd.encoding import Encoding
from mrnets.mrd.epi import PhaseDifference, united
from mrnets.mrd.images import Key
from mrnets.mrd.kspace import Echo, kspace_and_mask
from mrnets.mrd.left_out import left_out_notes
from mrnets.mrd.lines import Lines
from mrnets.physics.arrays import Array, array_namespace

__all__ = ["Calibrations", "Means", "Source"]

Source = Literal["auto", "average"]
"""Source of calibrations: "auto", or "average", which always takes the mean over repetitions (or phases)."""

UNFIT = "separate lines do not serve; the centre of the image's own lines was taken"
"""They are too few, or of slices where the image is a volume."""

T = TypeVar("T")


@dataclass
class Calibrations:
    """Blocks of separate lines, and of lines of images themselves."""

    source: Source = "auto"
    references: dict[Key, Group] = field(default_factory=dict)
    """Separate calibration lines; kept to the end."""
    _kept: dict[tuple[int, int], Array] = field(default_factory=dict)
    """(slice, encoding): the newest block that was the centre of an image."""
    _blocks: dict[tuple[Key, int], Mean] = field(default_factory=dict)
    """Calibration blocks made from `references` for an encoding. They are valid until more lines come."""

    def add(self, lines: Lines, encoding: Encoding, memory: Memory) -> None:
        """Take separate calibration lines."""
        if gather(self.references, lines, encoding, memory):
            self._blocks.clear()

    def awaited(self, key: Key, encoding: Encoding) -> bool:
        """Whether separate calibration lines are announced for image `key` and have not come."""
        separate = encoding.calibration in ("separate", "external", "other")
        return separate and nearest(self.references, key) is None

    def averaged(self, key: Key, encoding: Encoding, mask: NDArray[np.bool_]) -> bool:
        """Whether the block of image `key` with this first echo is the mean over a series of images.

        It is where none else serves, if the header's mode is interleaved or it announces a series. Scans of the heart
        in real time have no mode and no calibration lines."""
        if self.source == "average":
            return True
        if nearest(self.references, key) is not None or has_centre_block(mask):
            return False
        return encoding.calibration == "interleaved" or (encoding.series is not None and not self._earlier(key))

    def lacking(self, key: Key, encoding: Encoding, group: Group) -> bool:
        """Whether image `key` with these lines has no calibration yet, and none comes from other images.

        Then a flag that it is complete came too early, as at the end of each segment. One coil needs none."""
        first = min((*group.echoes, *group.backwards), default=None)
        if encoding.series is not None or encoding.calibration == "interleaved" or first is None or self._earlier(key):
            return False
        own = [echoes[first] for echoes in (group.echoes, group.backwards) if first in echoes]
        if own[0].kspace.shape[2] == 1 or nearest(self.references, key) is not None:
            return False
        came = np.logical_or.reduce([echo.counts > 0 for echo in own])
        return not has_centre_block(came if encoding.volume else np.repeat(came.T, own[0].kspace.shape[-1], axis=1))

    def _earlier(self, key: Key) -> bool:
        """Whether an earlier image of the slice has a block."""
        return (key.slice, key.encoding) in self._kept

    def of(
        self,
        key: Key,
        spaces: Spaces,
        kspace: Array,
        mask: NDArray[np.bool_],
        difference: PhaseDifference | None = None,
    ) -> Mean:
        """The block for image `key` with this first echo, without one where no lines serve.

        difference: between lines of the two directions, from phase-correction lines. Raises InputError where many
        separate calibration lines are left out."""
        encoding = spaces.encoding(key.encoding)
        reference = nearest(self.references, key)
        own = centre_block(kspace, mask)
        if reference is not None:
            source = spaces.encoding(reference.encoding, calibration=True)
            if source.volume == encoding.volume or own is None:
                separate = self._separate(reference, source, encoding, difference)
                if separate.block is not None or own is None:
                    return separate
        if own is None:
            return Mean(self._kept.get((key.slice, key.encoding)))
        self._kept[key.slice, key.encoding] = for_later(own, volume=encoding.volume)
        return Mean(own, faults=() if reference is None else (UNFIT,))

    def _separate(self, reference: Key, source: Encoding, target: Encoding, difference: PhaseDifference | None) -> Mean:
        """The block of separate calibration lines on the spacing of `target`; made once."""
        if (reference, target.index) not in self._blocks:
            group = self.references[reference]
            contrast = min((*group.echoes, *group.backwards))
            own = [_copy(echoes[contrast]) for echoes in (group.echoes, group.backwards) if contrast in echoes]
            faults = tuple(left_out_notes(own, source, calibration=True))
            block = centre_block(*kspace_and_mask(united(own, difference, source), source))
            block = None if block is None else on_spacing_of(block, source, target)
            self._blocks[reference, target.index] = Mean(block, faults=faults)
        return self._blocks[reference, target.index]


def _copy(echo: Echo) -> Echo:
    return replace(echo, kspace=array_namespace(echo.kspace).asarray(echo.kspace, copy=True))


@dataclass
class _Series(Generic[T]):
    """Images that differ in their repetition, or in their phase, only."""

    of: str
    """The counter in which they differ."""
    middles: dict[int, Middle] = field(default_factory=dict)
    """By the number of the image in the series; the newest ones."""
    waiting: list[tuple[int, T]] = field(default_factory=list)


@dataclass
class Means(Generic[T]):
    """Images that wait until enough others of their series came for a calibration from their mean."""

    _series: dict[Key, _Series[T]] = field(default_factory=dict)

    def add(self, key: Key, of: Literal["repetition", "phase"], image: T, middle: Middle) -> Iterator[tuple[T, Mean]]:
        """Take an image with the middle of its k-space. Yields images whose calibration is known now, with it.

        of: the counter in which the images of a series differ."""
        series = self._series.setdefault(key._replace(**{of: 0}), _Series(of))
        number = max(series.middles, default=-1) + 1
        series.middles[number] = middle
        series.middles.pop(number - MAX_WINDOW, None)
        series.waiting.append((number, image))
        yield from _known(series, ended=False)

    def rest(self) -> Iterator[tuple[T, Mean]]:
        """Yield all images that still wait, with what there is; no more come."""
        for series in self._series.values():
            yield from _known(series, ended=True)


def _known(series: _Series[T], *, ended: bool) -> Iterator[tuple[T, Mean]]:
    while series.waiting:
        number, image = series.waiting[0]
        mean = window_mean(series.middles.get, number, ended=ended)
        if mean is None:
            return
        del series.waiting[0]
        yield image, replace(mean, of=series.of)
