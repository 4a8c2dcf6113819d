"""Sorting: from lines as the scanner sends them to k-space with a mask, one `Frame` for each slice or volume.

Axes: line, coil, sample for blocks of lines; frames as in `mrnets.contract`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import ismrmrd
import numpy as np
from ismrmrd.xsd import ismrmrdHeader

from gadgets.aside import Aside, Strays
from gadgets.assemble import Part, Shortfalls, arrive, frames, group_notes, implausible, parts_of, without_centre
from gadgets.calibrations import Calibrations, Means, Source
from gadgets.frame import Frame
from gadgets.gadget import gadget
from gadgets.gather import DROPPED, TAKEN, Closed, Group, Memory, gather
from gadgets.limits import usual_memory
from gadgets.recondata import is_recon_data, lines_of
from gadgets.spaces import Spaces
from gadgets.speaker import lack, warn
from gadgets.trigger import Trigger, complete
from mrnets.errors import InputError
from mrnets.mrd.calibration import Mean, middle_of
from mrnets.mrd.centre import centre_doubts
from mrnets.mrd.completeness import Arrivals
from mrnets.mrd.direction import backwards_doubt, directed, opposite_doubt
from mrnets.mrd.encoding import NOTHING_BY_HAND, ByHand, Encoding
from mrnets.mrd.flags import Flag, has_flag, roles
from mrnets.mrd.images import Key
from mrnets.mrd.lines import Item, Lines, take
from mrnets.mrd.noise import NoiseScan

__all__ = ["sort"]

MOST_TOLD = 3
"""Images that could not be made, of which the reason is told."""
OTHER_COILS = "the noise measurement is of another number of coils than the images, and is not used"

_logger = logging.getLogger(__name__)


@gadget(takes=("lines",), gives="kspace")
def sort(
    stream: Iterable[Item],
    header: ismrmrdHeader,
    *,
    trigger: Trigger = "auto",
    whitened: bool = False,
    memory: float | None = None,
    incomplete: Literal["error", "warn"] = "error",
    calibration: Source = "auto",
    by_hand: ByHand = NOTHING_BY_HAND,
) -> Iterator[Item]:
    """Lines, or Gadgetron's ReconData, to Frames; everything else passes.

    A slice is complete when its repetition is over (a line of the next one comes), or at the end.
    `trigger`: "auto" also uses the flags last-in-slice and last-in-repetition, if no line can follow by the header's
    limits of average, contrast and segment. "repetition" ignores flags. "measurement" waits for the end.
    `whitened`: the data came in prewhitened (by Gadgetron's NoiseAdjustGadget). `memory`: most GiB that the scan may
    take, its reconstruction included; none: 0.8 of the machine's memory.
    `incomplete`: "error": a scan that lacks what its header announces (see `mrnets.mrd.completeness`) ends with an
    error after its images. "warn": it ends with a warning.
    `calibration`: "average" takes calibration lines from the mean over repetitions that sample different lines, or over
    phases where the header announces one repetition. "auto" does so only where no calibration lines came, and the
    header's mode is interleaved or it announces several repetitions or phases.
    `by_hand`: facts that a user gives of a scan whose header is wrong. `dimensions`: of images; "auto": as header and
    lines have them. `centre_line`, `centre_partition`: the counters kspace_encode_step_1 and _2 of the k-space centre.
    `centre_sample`: its sample in lines that run forwards. `reversed_centre`: "kept" (Siemens) or "mirrored" (ISMRMRD).
    `reversed_contrasts`: "odd": contrasts 1, 3, 5 run backwards, though their lines lack the flag 22.
    Raises InputError for many lines of the first image that cannot be used (see `mrnets.mrd.refused`): they have no
    place, NaN or infinite samples, or other coils than the lines before. A later image of such lines, and a few lines
    that came when their image was finished, count as `incomplete`. Raises it also for many of these, for a
    non-Cartesian trajectory, and if no imaging line came.
    """
    limit = Memory((usual_memory() if memory is None else memory) * 2**30)
    scan = _Scan(header, Spaces(header, by_hand), limit, calibration)
    sorted_before = False
    for item in stream:
        if isinstance(item, Lines):
            lines = directed(replace(item, whitened=True) if whitened else item, by_hand)
            seen = scan.add(lines)
            yield from scan.close(complete(trigger, scan.images, lines, seen, scan.spaces.encoding, scan.awaited))
        elif is_recon_data(item):
            scan.spaces.gridded = True
            for lines in lines_of(item, scan.spaces.embedded):
                scan.add(replace(lines, whitened=True) if whitened else lines)
            yield from scan.finish()
        else:
            sorted_before |= not isinstance(item, (str, ismrmrd.Waveform))
            yield item
    yield from scan.finish()
    if lacks := scan.lacks():
        if incomplete == "error":
            lack(f"{lacks}; set sort.incomplete to warn if that is right")
        else:
            warn(lacks, log=_logger)
    if not (scan.closed.lines or sorted_before):
        raise InputError(
            "the stream ended before any imaging acquisition came; if Gadgetron's own gadgets run before this chain, "
            "one of them may have failed"
        )


@dataclass(frozen=True)
class _Finished:
    """An image to which nothing comes any more, but maybe its calibration."""

    key: Key
    group: Group
    parts: list[Part]
    notes: tuple[str, ...]


class _Scan:
    """The state of sorting: images that wait for more lines."""

    def __init__(self, header: ismrmrdHeader, spaces: Spaces, memory: Memory, calibration: Source) -> None:
        self.header = header
        self.spaces = spaces
        self.images: dict[Key, Group] = {}
        self.closed = Closed()
        self.calibrations = Calibrations(calibration)
        self._aside = Aside(memory)
        self._strays = Strays(header)
        self._means: Means[_Finished] = Means()
        self._memory = memory
        self._noise = NoiseScan()
        self._shortfalls = Shortfalls()
        self._arrivals = Arrivals()
        self._lost: list[str] = []
        """Images that cannot be made, and why."""
        self._given = False
        """Whether an image was made."""
        self._said: set[str] = set()

    def add(self, lines: Lines) -> list[Key]:
        """Put lines where they belong; the images that got any."""
        if has_flag(lines.headers, Flag.IS_NOISE_MEASUREMENT).any():
            self._noise.add(lines)
            return []
        return self._take(self._strays.sift(self._aside.sift(self._strays.finite(lines))))

    def close(self, keys: Iterable[Key]) -> Iterator[Frame]:
        """Make frames of finished images."""
        for key in sorted(keys):
            group = self.images.pop(key)
            self._aside.complete(key, group, self.spaces.encoding(key.encoding))
            self.closed.add(key, group)
            if (finished := self._finished(key, group)) is not None:
                yield from self._calibrated(finished)

    def finish(self) -> Iterator[Frame]:
        """Make frames of all images; no more lines of them come."""
        for lines in self.spaces.rest():
            self._place(lines)
        if not (self.images or self.closed.lines):
            self._take_doubtful()
        yield from self.close(list(self.images))
        if self._aside.doubtful:
            self._warn(DROPPED)
        for finished, mean in self._means.rest():
            yield from self._frames(finished, mean)
        self._tell_strays()

    def _tell_strays(self) -> None:
        """Warn of lines that were left out and whose image is not known, or count them as lost where they are many."""
        try:
            if note := self._strays.rest():
                self._warn(note)
        except InputError as error:
            if not self._given:
                raise
            self._lost.append(str(error))

    def awaited(self, key: Key, encoding: Encoding) -> bool:
        """Whether calibration lines of an image are still to come, as the header or its own lines tell."""
        return self.calibrations.awaited(key, encoding) or self.calibrations.lacking(key, encoding, self.images[key])

    def lacks(self) -> str:
        """Return what the scan lacks of what its header announces and what came too late, or nothing."""
        more = f"; and {len(self._lost) - MOST_TOLD} more" if len(self._lost) > MOST_TOLD else ""
        lost = f"images that could not be made: {'; '.join(self._lost[:MOST_TOLD])}{more}" if self._lost else ""
        lacking = "; ".join(self._arrivals.lacks(self.header))
        told = f"the scan ended before what its header announces: {lacking}" if lacking else ""
        return "; ".join(filter(None, [self.closed.lacks(), lost, told]))

    def _take(self, lines: Lines) -> list[Key]:
        if not len(lines):
            return []
        self.spaces.embedded(int(lines.headers["encoding_space_ref"][0]))
        self._memory.hold(lines)
        return [key for known in self.spaces.ready(lines) for key in self._place(known)]

    def _take_doubtful(self) -> None:
        """Take doubtful lines as those of images, where there are no others."""
        for lines in self._aside.all_doubtful():
            self._take(self._strays.sift(lines))
        for lines in self.spaces.rest():
            self._place(lines)
        for group in self.images.values():
            group.notes += (TAKEN,)

    def _place(self, lines: Lines) -> list[Key]:
        self._memory.drop(lines)
        role = roles(lines.headers, embedded=self.spaces.embedded(int(lines.headers["encoding_space_ref"][0])))
        if role.calibration.any():
            calibration = take(lines, np.flatnonzero(role.calibration))
            self.calibrations.add(calibration, self.spaces.begin(calibration, calibration=True), self._memory)
        if not role.image.any():
            return []
        image = take(lines, np.flatnonzero(role.image))
        encoding = self.spaces.begin(image, calibration=False)
        for guess in encoding.guesses:
            self._warn(guess)
        return gather(self.images, image, encoding, self._memory, self.closed)

    def _finished(self, key: Key, group: Group) -> _Finished | None:
        """The image, or None for one that cannot be made: the others are made all the same."""
        if not group.echoes:
            self._lose(group, f"all lines of {key} are zero")
            return None
        encoding = self.spaces.encoding(key.encoding)
        try:
            stray = self._strays.of(key, sum(echo.lines for echo in group.echoes.values()))
            notes = (*encoding.guesses, *group_notes(group, encoding), *stray)
        except InputError as error:
            if not self._given:  # the header must be wrong where already the first image has many damaged lines
                raise
            self._lose(group, f"{key}: {error}")
            return None
        parts = parts_of(group, encoding)
        if (reason := without_centre(parts[0].mask, key, encoding)) is not None:
            self._lose(group, reason)
            return None
        if self._noise.lines and not (group.whitened or self._noise.of_coils(self._strays.coils)):
            notes += (OTHER_COILS,)
        doubts = tuple(dict.fromkeys(_doubts(parts, volume=encoding.volume)))
        doubts += implausible(key, group, parts, self.header)
        return _Finished(key, group, parts, (*notes, *doubts, *self._shortfalls.of(key, encoding, parts)))

    def _lose(self, group: Group, reason: str) -> None:
        """Account for an image that cannot be made."""
        self._lost.append(reason)
        self._memory.free(group)

    def _calibrated(self, finished: _Finished) -> Iterator[Frame]:
        """Frames of an image, and of those that waited for it; none yet if its own calibration has not come."""
        key, first = finished.key, finished.parts[0]
        encoding = self.spaces.encoding(key.encoding)
        averaged = self.calibrations.averaged(key, encoding, first.mask)
        arrive(self._arrivals, key, finished.parts, alike=not averaged)
        if not averaged:
            aligned = finished.group.aligned
            calibration = self.calibrations.of(key, self.spaces, first.kspace, first.mask, aligned)
            yield from self._frames(finished, calibration)
            return
        middle = middle_of(first.kspace, first.mask, volume=encoding.volume)
        for image, mean in self._means.add(key, encoding.series or "repetition", finished, middle):
            yield from self._frames(image, mean)

    def _frames(self, finished: _Finished, calibration: Mean) -> Iterator[Frame]:
        encoding = self.spaces.encoding(finished.key.encoding)
        for frame in frames(
            finished.parts,
            finished.group,
            encoding,
            calibration,
            self.header,
            self._noise,
            (*finished.notes, *calibration.notes),
        ):
            for note in frame.notes[len(encoding.guesses) :]:
                self._warn(note, f"{finished.key}: ")
            self._given = True
            yield frame
        self._memory.free(finished.group)

    def _warn(self, message: str, where: str = "") -> None:
        """Once for each message, wherever it is found first."""
        if message not in self._said:
            _logger.warning("%s%s", where, message)
        self._said.add(message)


def _doubts(parts: list[Part], *, volume: bool) -> Iterator[str]:
    """Yield sentences on the centre and the direction of the lines of echoes."""
    for part in parts:
        yield from centre_doubts(part.kspace, part.mask, volume=volume, profiles=part.measures.profiles)
        around = part.measures.around
        if around is not None and (backwards := backwards_doubt(around, part.mask)):
            yield backwards
    if len(parts) > 1:
        along = [part.measures.along for part in parts]
        if opposite := opposite_doubt(along, [part.contrast for part in parts]):
            yield opposite
