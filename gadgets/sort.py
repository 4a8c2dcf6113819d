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

from gadgets.assemble import Mask, Shortfalls, frames, parts_of, require_centre
from gadgets.frame import Frame
from gadgets.gadget import gadget
from gadgets.gather import Group, Memory, gather
from gadgets.limits import usual_memory
from gadgets.recondata import is_recon_data, lines_of
from mrnets.errors import InputError
from mrnets.mrd.calibration import centre_block, for_later, nearest, on_spacing_of
from mrnets.mrd.encoding import Encoding, encoding_of
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
) -> Iterator[Item]:
    """Lines, or Gadgetron's ReconData, to Frames; everything else passes.

    A slice is complete when its repetition is over (a line of the next one comes), or at the end. `trigger`: "auto"
    believes the flags last-in-slice and last-in-repetition, too, where the header's limits of average, contrast and
    segment show that nothing can follow; "repetition" ignores flags; "measurement" waits for the end.
    `whitened`: the data came in prewhitened (by Gadgetron's NoiseAdjustGadget). `memory`: most GiB that the scan may
    take, its reconstruction included; none: 0.8 of the machine's memory.
    Raises InputError for lines that do not belong on the grid, for NaN or infinite samples, for a coil count that
    changes, for a non-Cartesian trajectory, for lines of a slice that was finished, and if no imaging line came.
    """
    scan = _Scan(header, Memory((usual_memory() if memory is None else memory) * 2**30))
    sorted_before = False
    for item in stream:
        if isinstance(item, Lines):
            lines = _whitened(item) if whitened else item
            yield from scan.close(_complete(scan, lines, scan.add(lines), trigger))
        elif is_recon_data(item):
            for lines in lines_of(item, lambda n: scan.encoding(n, gridded=True).embedded):
                scan.encoding(int(lines.headers["encoding_space_ref"][0]), gridded=True)
                scan.add(_whitened(lines) if whitened else lines)
            yield from scan.close(list(scan.images))
        else:
            sorted_before |= not isinstance(item, (str, ismrmrd.Waveform))
            yield item
    yield from scan.close(list(scan.images))
    if not (scan.closed or sorted_before):
        raise InputError(
            "the stream ended before any imaging acquisition came; if Gadgetron's own gadgets run before this chain, "
            "one of them may have failed"
        )


class _Scan:
    """The state of sorting: images that wait for more lines."""

    def __init__(self, header: ismrmrdHeader, memory: Memory) -> None:
        self.header = header
        self.images: dict[Key, Group] = {}
        self.closed: set[Key] = set()
        self.calibrations = _Calibrations()
        self._memory = memory
        self._encodings: dict[int, Encoding] = {}
        self._checks = _Checks()
        self._shortfalls = Shortfalls()
        self._said: set[str] = set()

    def encoding(self, index: int, *, gridded: bool = False) -> Encoding:
        """Encoding space `index`; see `encoding_of`."""
        if index not in self._encodings:
            self._encodings[index] = encoding_of(self.header, index, gridded=gridded)
            for guess in self._encodings[index].guesses:
                self._warn(guess)
        return self._encodings[index]

    def add(self, lines: Lines) -> list[Key]:
        """Put lines where they belong; the images that got any."""
        if has_flag(lines.headers, Flag.IS_NOISE_MEASUREMENT).any():
            self._checks.noise.add(lines)
            return []
        if has_flag(lines.headers, Flag.IS_PHASECORR_DATA).any():
            self._warn("phase-correction lines are left out; nothing here corrects by them")
        if has_flag(lines.headers, *LEFT_OUT).all():
            return []
        encoding = self.encoding(int(lines.headers["encoding_space_ref"][0]))
        role = roles(lines.headers, embedded=encoding.embedded)
        self._checks.check(take(lines, np.flatnonzero(role.image | role.calibration)))
        self.calibrations.add(take(lines, np.flatnonzero(role.calibration)), encoding, self._memory)
        return self._gather(take(lines, np.flatnonzero(role.image)), encoding)

    def close(self, keys: Iterable[Key]) -> Iterator[Frame]:
        """Make frames of finished images."""
        for key in sorted(keys):
            group = self.images.pop(key)
            self.closed.add(key)
            yield from self._frames(key, group)
            self._memory.free(group)

    def _gather(self, lines: Lines, encoding: Encoding) -> list[Key]:
        keys = gather(self.images, lines, encoding, self._memory, self.closed)
        if any(self.images[key].averaged for key in keys):
            self._warn("lines that came twice with the same counters are averaged")
        return keys

    def _frames(self, key: Key, group: Group) -> Iterator[Frame]:
        encoding = self.encoding(key.encoding)
        parts = parts_of(group, encoding)
        require_centre(parts[0].mask, key, encoding)
        calibration = self.calibrations.of(key, self._encodings, parts[0].kspace, parts[0].mask)
        notes = self._shortfalls.of(key, encoding, parts)
        for frame in frames(parts, group, encoding, calibration, self.header, self._checks.noise, notes):
            for note in frame.notes:
                self._warn(f"{key}: {note}")
            yield replace(frame, notes=(*encoding.guesses, *frame.notes))

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

    def of(self, key: Key, encodings: dict[int, Encoding], kspace: Array, mask: Mask) -> Array | None:
        """The block for image `key` with this first echo; None where no lines serve."""
        encoding = encodings[key.encoding]
        reference = nearest(self.references, key)
        if reference is not None:
            return self._separate(reference, encodings[reference.encoding], encoding)
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
    encoding = scan.encoding(int(headers["encoding_space_ref"][0]))
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
