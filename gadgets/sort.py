"""Sorting: from lines as the scanner sends them to k-space with a mask, one `Frame` for each slice or volume.

Axes: line, coil, sample for blocks of lines; frames as in `mrnets.contract`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import ismrmrd
import numpy as np
from ismrmrd.xsd import ismrmrdHeader

from gadgets.assemble import Mask, Shortfalls, arrive, frames, group_notes, parts_of, require_centre
from gadgets.frame import Frame
from gadgets.gadget import gadget
from gadgets.gather import Group, Memory, gather
from gadgets.limits import usual_memory
from gadgets.recondata import is_recon_data, lines_of
from gadgets.spaces import Spaces
from gadgets.speaker import lack, warn
from mrnets.errors import InputError
from mrnets.mrd.calibration import centre_block, for_later, nearest, on_spacing_of
from mrnets.mrd.completeness import Arrivals
from mrnets.mrd.encoding import ByHand, Dimensions, Encoding
from mrnets.mrd.flags import LEFT_OUT, Flag, has_flag, roles
from mrnets.mrd.images import Key
from mrnets.mrd.kspace import kspace_and_mask
from mrnets.mrd.lines import Item, Lines, counter, require_finite, take
from mrnets.mrd.noise import NoiseScan
from mrnets.physics.arrays import Array, array_namespace

__all__ = ["sort"]

Trigger = Literal["auto", "repetition", "measurement"]

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
    dimensions: Literal["auto", "2d", "3d"] = "auto",
    centre_line: int | None = None,
    centre_partition: int | None = None,
    centre_sample: int | None = None,
    reversed_centre: Literal["auto", "kept", "mirrored"] = "auto",
) -> Iterator[Item]:
    """Lines, or Gadgetron's ReconData, to Frames; everything else passes.

    A slice is complete when its repetition is over (a line of the next one comes), or at the end. `trigger`: "auto"
    believes the flags last-in-slice and last-in-repetition, too, where the header's limits of average, contrast and
    segment show that nothing can follow; "repetition" ignores flags; "measurement" waits for the end.
    `whitened`: the data came in prewhitened (by Gadgetron's NoiseAdjustGadget). `memory`: most GiB that the scan may
    take, its reconstruction included; none: 0.8 of the machine's memory.
    `incomplete`: "error": a scan that lacks what its header announces (see `mrnets.mrd.completeness`) ends with an
    error after its images. "warn": it ends with a warning.
    `dimensions`: of images, "auto": as header and lines have them. `centre_line`, `centre_partition`: the counters
    kspace_encode_step_1 and _2 of the k-space centre, `centre_sample`: its sample in lines that run forwards, instead
    of what the header says. `reversed_centre`: "kept" or "mirrored", see `ByHand`.
    Raises InputError for lines that do not belong on the grid, for NaN or infinite samples, for a coil count that
    changes, for a non-Cartesian trajectory, for lines of a slice that was finished, and if no imaging line came.
    """
    size: dict[str, Dimensions | None] = {"auto": None, "2d": 2, "3d": 3}
    by_hand = ByHand(centre_line, centre_partition, centre_sample, reversed_centre, size[dimensions])
    scan = _Scan(header, Spaces(header, by_hand), Memory((usual_memory() if memory is None else memory) * 2**30))
    sorted_before = False
    for item in stream:
        if isinstance(item, Lines):
            lines = _whitened(item) if whitened else item
            yield from scan.close(_complete(scan, lines, scan.add(lines), trigger))
        elif is_recon_data(item):
            scan.spaces.gridded = True
            for lines in lines_of(item, scan.spaces.embedded):
                scan.add(_whitened(lines) if whitened else lines)
            yield from scan.finish()
        else:
            sorted_before |= not isinstance(item, (str, ismrmrd.Waveform))
            yield item
    yield from scan.finish()
    if lacks := scan.lacks():
        message = f"the scan ended before what its header announces: {lacks}"
        if incomplete == "error":
            lack(f"{message}; set sort.incomplete to warn if that is right")
        else:
            warn(message, log=_logger)
    if not (scan.closed or sorted_before):
        raise InputError(
            "the stream ended before any imaging acquisition came; if Gadgetron's own gadgets run before this chain, "
            "one of them may have failed"
        )


class _Scan:
    """The state of sorting: images that wait for more lines."""

    def __init__(self, header: ismrmrdHeader, spaces: Spaces, memory: Memory) -> None:
        self.header = header
        self.spaces = spaces
        self.images: dict[Key, Group] = {}
        self.closed: set[Key] = set()
        self.calibrations = _Calibrations()
        self._memory = memory
        self._checks = _Checks()
        self._shortfalls = Shortfalls()
        self._arrivals = Arrivals()
        self._said: set[str] = set()

    def add(self, lines: Lines) -> list[Key]:
        """Put lines where they belong; the images that got any."""
        if has_flag(lines.headers, Flag.IS_NOISE_MEASUREMENT).any():
            self._checks.noise.add(lines)
            return []
        if has_flag(lines.headers, Flag.IS_PHASECORR_DATA).any():
            warn("phase-correction lines are left out; nothing here corrects by them", log=_logger)
        used = np.flatnonzero(~has_flag(lines.headers, *LEFT_OUT))
        if not len(used):
            return []
        lines = take(lines, used)
        self._checks.check(lines)
        self.spaces.embedded(int(lines.headers["encoding_space_ref"][0]))
        self._memory.hold(lines)
        return [key for known in self.spaces.ready(lines) for key in self._place(known)]

    def close(self, keys: Iterable[Key]) -> Iterator[Frame]:
        """Make frames of finished images."""
        for key in sorted(keys):
            group = self.images.pop(key)
            self.closed.add(key)
            yield from self._frames(key, group)
            self._memory.free(group)

    def finish(self) -> Iterator[Frame]:
        """Make frames of all images; no more lines of them come."""
        for lines in self.spaces.rest():
            self._place(lines)
        yield from self.close(list(self.images))

    def lacks(self) -> str:
        """Return what the scan lacks of what its header announces, or nothing."""
        return "; ".join(self._arrivals.lacks(self.header))

    def _place(self, lines: Lines) -> list[Key]:
        self._memory.drop(lines)
        role = roles(lines.headers, embedded=self.spaces.embedded(int(lines.headers["encoding_space_ref"][0])))
        calibration, image = (take(lines, np.flatnonzero(which)) for which in (role.calibration, role.image))
        if len(calibration):
            self.calibrations.add(calibration, self.spaces.begin(calibration, calibration=True), self._memory)
        if not len(image):
            return []
        encoding = self.spaces.begin(image, calibration=False)
        for guess in encoding.guesses:
            self._warn(guess)
        return gather(self.images, image, encoding, self._memory, self.closed)

    def _frames(self, key: Key, group: Group) -> Iterator[Frame]:
        encoding = self.spaces.encoding(key.encoding)
        notes = (*encoding.guesses, *group_notes(group, encoding))
        parts = parts_of(group, encoding)
        require_centre(parts[0].mask, key, encoding)
        calibration = self.calibrations.of(key, self.spaces, parts[0].kspace, parts[0].mask)
        notes = (*notes, *self._shortfalls.of(key, encoding, parts))
        arrive(self._arrivals, key, parts)
        for frame in frames(parts, group, encoding, calibration, self.header, self._checks.noise, notes):
            for note in frame.notes[len(encoding.guesses) :]:
                self._warn(f"{key}: {note}")
            yield frame

    def _warn(self, message: str) -> None:
        """Once for each message."""
        if message not in self._said:
            _logger.warning("%s", message)
        self._said.add(message)


@dataclass
class _Checks:
    """What all lines of a scan must have in common."""

    noise: NoiseScan = field(default_factory=NoiseScan)
    coils: int | None = None

    def check(self, lines: Lines) -> None:
        """Raises InputError for NaN or infinite samples, and for a coil count that changes."""
        if not lines.whitened:  # otherwise the noise gadget has looked
            require_finite(lines)
        coils = lines.data.shape[1]
        if self.coils not in (None, coils):
            raise InputError(f"acquisition {counter(lines)} has {coils} coils, those before it {self.coils}")
        self.coils = coils
        if self.noise.lines and self.noise.coils != coils and not lines.whitened:
            raise InputError(
                f"acquisition {counter(lines)} has {coils} coils, the noise measurement {self.noise.coils}"
            )


@dataclass
class _Calibrations:
    """The calibration block of each image: separate lines, the image's own centre, or that of an earlier image."""

    references: dict[Key, Group] = field(default_factory=dict)
    """Separate calibration lines; kept to the end."""
    _kept: dict[tuple[int, int], Array] = field(default_factory=dict)
    """(slice, encoding): the newest embedded calibration block."""
    _blocks: dict[tuple[Key, int], Array | None] = field(default_factory=dict)
    """Of `references`, for an encoding; until more of them come."""

    def add(self, lines: Lines, encoding: Encoding, memory: Memory) -> None:
        """Separate calibration lines; may be empty."""
        if gather(self.references, lines, encoding, memory):
            self._blocks.clear()

    def awaited(self, key: Key, encoding: Encoding) -> bool:
        """Whether separate calibration lines are announced for image `key` and have not come."""
        separate = encoding.calibration in ("separate", "external", "other")
        return separate and nearest(self.references, key) is None

    def of(self, key: Key, spaces: Spaces, kspace: Array, mask: Mask) -> Array | None:
        """The block for image `key` with this first echo; None where no lines serve."""
        encoding = spaces.encoding(key.encoding)
        reference = nearest(self.references, key)
        if reference is not None:
            return self._separate(reference, spaces.encoding(reference.encoding, calibration=True), encoding)
        own = centre_block(kspace, mask)
        if own is None:
            return self._kept.get((key.slice, key.encoding))
        self._kept[key.slice, key.encoding] = for_later(own, volume=encoding.volume)
        return own

    def _separate(self, reference: Key, source: Encoding, target: Encoding) -> Array | None:
        """The block of separate calibration lines on the spacing of `target`; made once."""
        if (reference, target.index) not in self._blocks:
            echoes = self.references[reference].echoes
            echo = echoes[min(echoes)]
            kspace = array_namespace(echo.kspace).asarray(echo.kspace, copy=True)
            block = centre_block(*kspace_and_mask(replace(echo, kspace=kspace), source))
            self._blocks[reference, target.index] = None if block is None else on_spacing_of(block, source, target)
        return self._blocks[reference, target.index]


def _complete(scan: _Scan, lines: Lines, seen: list[Key], trigger: Trigger) -> list[Key]:
    """Images to which nothing can come any more after `lines`, which went to `seen`."""
    if trigger == "measurement" or not seen:
        return []
    newest = {key[1:]: key.repetition for key in sorted(set(seen))}
    over = {key for key in scan.images if key.repetition < newest.get(key[1:], 0)}
    return sorted(over | _flagged(scan, lines) if trigger == "auto" else over)


def _flagged(scan: _Scan, lines: Lines) -> set[Key]:
    """Images that a flag finishes, and that nothing in the header's limits keeps open."""
    headers = lines.headers
    encoding = scan.spaces.encoding(int(headers["encoding_space_ref"][0]))
    final = has_flag(headers, Flag.LAST_IN_SLICE, Flag.LAST_IN_REPETITION) & ~has_flag(headers, *LEFT_OUT)
    if not encoding.embedded:
        final &= ~has_flag(headers, Flag.IS_PARALLEL_CALIBRATION)
    for name, last in encoding.last.items():
        final &= last is not None and headers["idx"][name] >= (last or 0)
    found: set[Key] = set()
    for line in headers[final]:  # a line or two of a whole slice
        repetition, set_, phase, slice_ = (int(line["idx"][name]) for name in Key._fields[:4])
        key = Key(repetition, set_, phase, slice_, encoding.index)
        if has_flag(line, Flag.LAST_IN_REPETITION):
            found |= {k for k in scan.images if (k.repetition, k.encoding) == (repetition, encoding.index)}
        elif not encoding.volume:  # of a volume it may mean the last of one partition
            found.add(key)
    return {key for key in found if key in scan.images and not scan.calibrations.awaited(key, encoding)}


def _whitened(lines: Lines) -> Lines:
    require_finite(lines)
    return replace(lines, whitened=True)
