"""Sorting: from lines as the scanner sends them to k-space with a mask, one `Frame` for each slice or volume.

Axes: line, coil, sample for blocks of lines; frames as in `mrnets.contract`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import ismrmrd
import numpy as np
from ismrmrd.xsd import ismrmrdHeader
from numpy.typing import NDArray

from gadgets.encoding import Encoding, encoding_of
from gadgets.frame import LEFT_OUT, Frame
from gadgets.gadget import gadget
from gadgets.kspace import (
    Echo,
    acquired_twice,
    add_lines,
    centre_block,
    distinct,
    has_centre_block,
    kspace_and_mask,
    on_spacing_of,
    take,
)
from gadgets.lines import Flag, Item, Lines, has_flag
from gadgets.noise import NoiseScan, bandwidth, require_finite
from gadgets.recondata import is_recon_data, lines_of
from mrnets.contract import Raw
from mrnets.errors import InputError
from mrnets.physics.arrays import Array, array_namespace, asarray_like
from mrnets.physics.fourier import resize
from mrnets.physics.whiten import noise_scale

__all__ = ["sort"]

Trigger = Literal["auto", "repetition", "measurement"]
Mask = NDArray[np.bool_]

KEPT_CALIBRATION = 32
"""Lines of a calibration block that are kept for later repetitions without calibration lines of their own."""
CENTRE = 8
"""Lines on either side of the k-space centre of which at least one must have come."""

_logger = logging.getLogger(__name__)


@gadget(takes=("lines",), gives="kspace")
def sort(
    stream: Iterable[Item],
    header: ismrmrdHeader,
    *,
    trigger: Trigger = "auto",
    whitened: bool = False,
    memory: float = 32.0,
) -> Iterator[Item]:
    """Lines, or Gadgetron's ReconData, to Frames; everything else passes.

    A slice is complete when its repetition is over (a line of the next one comes), or at the end. `trigger`: "auto"
    believes the flags last-in-slice and last-in-repetition, too, where the header's limits of average, contrast and
    segment show that nothing can follow; "repetition" ignores flags; "measurement" waits for the end.
    `whitened`: the data came in prewhitened (by Gadgetron's NoiseAdjustGadget). `memory`: most GiB of k-space in work.
    Raises InputError for lines that do not belong on the grid, for NaN or infinite samples, for a coil count that
    changes, for a non-Cartesian trajectory, for lines of a slice that was finished, and if no imaging line came.
    """
    scan = _Scan(header, memory * 2**30)
    sorted_before = False
    for item in stream:
        if isinstance(item, Lines):
            lines = _whitened(item) if whitened else item
            seen = scan.add(lines)
            yield from scan.close(_complete(scan, lines, seen, trigger))
        elif is_recon_data(item):
            for lines in lines_of(item, lambda n: scan.encoding(n, gridded=True).embedded):
                scan.add(_whitened(lines) if whitened else lines, gridded=True)
            yield from scan.close(list(scan.images))
        else:
            sorted_before |= not isinstance(item, (str, ismrmrd.Waveform))
            yield item
    yield from scan.close(list(scan.images))
    if not (scan.closed or sorted_before):
        raise InputError("sort: the scan has no imaging acquisitions")


class _Key(NamedTuple):
    """What one image is made of, in the order in which images are finished together."""

    repetition: int
    set: int
    phase: int
    slice: int
    encoding: int

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in zip(self._fields[:4], self[:4], strict=True))


@dataclass
class _Group:
    """The echoes of one image, by contrast, and what is known of all their lines."""

    echoes: dict[int, Echo] = field(default_factory=dict)
    whitened: bool = True
    dwell: float = 0.0


class _Scan:
    """The state of sorting: groups of lines that wait for more."""

    def __init__(self, header: ismrmrdHeader, most_bytes: float) -> None:
        self.header = header
        self.most_bytes = most_bytes
        self.images: dict[_Key, _Group] = {}
        self.references: dict[_Key, _Group] = {}
        """Separate calibration lines; kept to the end."""
        self.closed: set[_Key] = set()
        self.coils: int | None = None
        self._bytes = 0
        self._encodings: dict[int, Encoding] = {}
        self._kept: dict[tuple[int, int], Array] = {}
        """(slice, encoding): the newest embedded calibration block."""
        self._blocks: dict[tuple[_Key, int], Array | None] = {}
        """Of `references`, for an encoding; until more of them come."""
        self._sampled: dict[tuple[tuple[int, ...], bool], int] = {}
        """(set, phase, slice, encoding) and whether there were embedded calibration lines: samples of the first."""
        self._noise = NoiseScan()
        self._warned: set[str] = set()

    def encoding(self, index: int, *, gridded: bool = False) -> Encoding:
        """Encoding space `index`; see `encoding_of`."""
        if index not in self._encodings:
            self._encodings[index] = encoding_of(self.header, index, gridded=gridded)
        return self._encodings[index]

    def add(self, lines: Lines, *, gridded: bool = False) -> list[_Key]:
        """Put lines where they belong; the images that got any. `gridded`: see `encoding_of`."""
        if has_flag(lines.headers, Flag.IS_NOISE_MEASUREMENT).any():
            self._noise.add(lines)
            return []
        left_out = has_flag(lines.headers, *LEFT_OUT)
        if has_flag(lines.headers, Flag.IS_PHASECORR_DATA).any():
            self._warn("sort: phase-correction lines are left out; nothing here corrects by them")
        if left_out.all():
            return []
        lines = take(lines, np.flatnonzero(~left_out))
        self._check(lines)
        encoding = self.encoding(int(lines.headers["encoding_space_ref"][0]), gridded=gridded)
        calibration = has_flag(lines.headers, Flag.IS_PARALLEL_CALIBRATION)
        both = has_flag(lines.headers, Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING)
        if encoding.embedded:
            return self._scatter(self.images, lines, encoding)
        if self._scatter(self.references, take(lines, np.flatnonzero(calibration | both)), encoding):
            self._blocks.clear()
        return self._scatter(self.images, take(lines, np.flatnonzero(both | ~calibration)), encoding)

    def close(self, keys: Iterable[_Key]) -> Iterator[Frame]:
        """Make frames of finished images."""
        for key in sorted(keys):
            group = self.images.pop(key)
            self.closed.add(key)
            yield from self._frames(key, group)
            self._bytes -= sum(echo.kspace.nbytes for echo in group.echoes.values())

    def has_calibration(self, key: _Key) -> bool:
        """Whether separate calibration lines that `key` is waiting for have come."""
        separate = self.encoding(key.encoding).calibration in ("separate", "external", "other")
        return not separate or any(reference.slice == key.slice for reference in self.references)

    def _check(self, lines: Lines) -> None:
        if not lines.whitened:  # otherwise the noise gadget has looked
            require_finite(lines, "sort")
        coils = lines.data.shape[1]
        if self.coils not in (None, coils):
            raise InputError(f"sort: acquisition {_counter(lines)} has {coils} coils, those before it {self.coils}")
        self.coils = coils
        if self._noise.lines and self._noise.lines[0].data.shape[1] != coils and not lines.whitened:
            measured = self._noise.lines[0].data.shape[1]
            raise InputError(f"sort: acquisition {_counter(lines)} has {coils} coils, the noise measurement {measured}")

    def _warn(self, message: str) -> None:
        """Once for each message."""
        if message not in self._warned:
            _logger.warning(message)
        self._warned.add(message)

    def _scatter(self, groups: dict[_Key, _Group], lines: Lines, encoding: Encoding) -> list[_Key]:
        if not len(lines):
            return []
        counters = [lines.headers["idx"][name] for name in (*_Key._fields[:4], "contrast")]
        keys = []
        for (repetition, set_, phase, slice_, contrast), which in distinct(np.stack(counters, axis=-1)):
            key = _Key(repetition, set_, phase, slice_, encoding.index)
            part = take(lines, which)
            if groups is self.images and key in self.closed:
                raise InputError(
                    f"sort: acquisition {_counter(part)} belongs to {key}, which was finished by a flag (last in "
                    f"slice or repetition) or by a later repetition; set sort.trigger to repetition or measurement"
                )
            if acquired_twice(part):
                self._warn("sort: lines that came twice with the same counters are averaged")
            group = groups.setdefault(key, _Group())
            group.whitened &= part.whitened
            group.dwell = group.dwell or float(part.headers["sample_time_us"][0])
            if contrast not in group.echoes:
                self._reserve(part, encoding)
                group.echoes[contrast] = Echo.empty(encoding, part)
            add_lines(group.echoes[contrast], part, encoding)
            keys.append(key)
        return keys

    def _reserve(self, lines: Lines, encoding: Encoding) -> None:
        x, y, z = encoding.reduced.matrix
        coils = lines.data.shape[1]
        self._bytes += x * y * z * coils * 8
        if self._bytes > self.most_bytes:
            raise InputError(
                f"sort: with acquisition {_counter(lines)} k-space in work takes {self._bytes / 2**30:.1f} GiB "
                f"({x} x {y} x {z} samples of {coils} coils for each image); sort.memory allows "
                f"{self.most_bytes / 2**30:g} GiB"
            )

    def _frames(self, key: _Key, group: _Group) -> Iterator[Frame]:
        """One frame; if echoes are sampled differently, one for each."""
        encoding = self.encoding(key.encoding)
        parts = {n: kspace_and_mask(group.echoes[n], encoding) for n in sorted(group.echoes)}
        kspace, mask = next(iter(parts.values()))
        _require_centre(mask, key, encoding)
        calibration = self._calibration(key, encoding, kspace, mask)
        notes = self._shortfalls(key, encoding, list(parts), mask)
        if all(np.array_equal(mask, other) for _, other in parts.values()):
            yield self._frame(key, group, parts, calibration, notes)
            return
        notes = (*notes, "the echoes are sampled differently; each is reconstructed by itself")
        for contrast, part in parts.items():
            yield self._frame(key, group, {contrast: part}, calibration, notes)

    def _shortfalls(self, key: _Key, encoding: Encoding, contrasts: list[int], mask: Mask) -> tuple[str, ...]:
        """Signs that the scan was cut short; for the comment of the images, since no rule tells it for certain."""
        notes = []
        last = encoding.last["contrast"]
        if last is not None and len(contrasts) <= last:
            notes.append(f"{len(contrasts)} of {last + 1} contrasts came")
        lines = np.flatnonzero(mask.any(axis=0 if encoding.volume else 1))
        limit, reach = encoding.limits[0], encoding.encoded.matrix[1] // 8 + CENTRE
        if encoding.announced and (lines[0] > limit.minimum + reach or lines[-1] < limit.maximum - reach):
            notes.append(
                f"lines {lines[0]} to {lines[-1]} came where {limit.minimum} to {limit.maximum} were announced"
            )
        sampled = int(mask.sum())
        first = self._sampled.setdefault((key[1:], has_centre_block(mask)), sampled)
        if sampled < first:
            notes.append(f"{sampled} samples came, and {first} for an earlier image of the slice")
        return tuple(f"cut short? {note}" for note in notes)

    def _frame(
        self,
        key: _Key,
        group: _Group,
        parts: dict[int, tuple[Array, Mask]],
        calibration: Array | None,
        notes: tuple[str, ...],
    ) -> Frame:
        for note in notes:
            self._warn(f"sort: {key}: {note}")
        encoding = self.encoding(key.encoding)
        kspaces = [kspace for kspace, _ in parts.values()]
        mask = next(iter(parts.values()))[1]
        echoes = [group.echoes[n] for n in parts]
        xp = array_namespace(kspaces[0])
        kspace = kspaces[0] if len(kspaces) == 1 else xp.concat(kspaces, axis=1)
        raw = Raw(
            kspace=kspace,
            mask=asarray_like(mask[None, None, None], kspace),
            calibration=calibration,
            echo_times=self._echo_times(list(parts), kspace),
            noise=self._covariance(group, kspace),
            readout="batch" if encoding.volume else "x",
            whitened=group.whitened,
        )
        return Frame(
            raw=raw,
            headers=np.stack([echo.header for echo in echoes])[None],
            encoding=encoding.index,
            volume=encoding.volume,
            encoded=encoding.reduced,
            recon=encoding.recon,
            limits=(echoes[0].readout_limit(), *encoding.limits),
            history=("prewhitened",) if group.whitened else (),
            notes=notes,
        )

    def _echo_times(self, contrasts: list[int], like: Array) -> Array | None:
        """(echo,) float32 s, from the header's TE in ms; None where it does not tell all of them."""
        sequence = self.header.sequenceParameters
        times = [] if sequence is None else list(sequence.TE)
        if max(contrasts) >= len(times):
            return None
        xp = array_namespace(like)
        return asarray_like([float(times[n]) * 1e-3 for n in contrasts], like, dtype=xp.float32)

    def _covariance(self, group: _Group, like: Array) -> Array | None:
        """Of noise at the dwell time of `group`, where noise lines came and no gadget has whitened by them."""
        if group.whitened or not self._noise.lines:
            return None
        scale = noise_scale(group.dwell, self._noise.dwell, bandwidth(self.header))
        return asarray_like(self._noise.covariance() / scale**2, like, dtype=like.dtype)

    def _calibration(self, key: _Key, encoding: Encoding, kspace: Array, mask: Mask) -> Array | None:
        """Separate calibration lines of the slice; or the fully sampled centre; or that of an earlier image."""
        separate = [reference for reference in self.references if reference.slice == key.slice]
        if separate:
            return self._separate(min(separate, key=lambda k: _distance(k, key)), encoding)
        own = centre_block(kspace, mask)
        if own is None:
            return self._kept.get((key.slice, key.encoding))
        height, width = own.shape[-2:]
        least = resize(own, (min(height, KEPT_CALIBRATION), min(width, KEPT_CALIBRATION) if encoding.volume else width))
        self._kept[key.slice, key.encoding] = array_namespace(own).asarray(least, copy=True)
        return own

    def _separate(self, key: _Key, encoding: Encoding) -> Array | None:
        """The block of calibration lines `key` on the spacing of `encoding`; made once."""
        if (key, encoding.index) not in self._blocks:
            source = self.encoding(key.encoding)
            echo = self.references[key].echoes[min(self.references[key].echoes)]
            block = centre_block(*kspace_and_mask(replace(echo, kspace=_copy(echo.kspace)), source))
            block = None if block is None else on_spacing_of(block, source, encoding)
            self._blocks[key, encoding.index] = block
        return self._blocks[key, encoding.index]


def _complete(scan: _Scan, lines: Lines, seen: list[_Key], trigger: Trigger) -> list[_Key]:
    """Images to which nothing can come any more after `lines`, which went to `seen`."""
    if trigger == "measurement" or not seen:
        return []
    newest = {key[1:]: key.repetition for key in sorted(set(seen))}
    over = {key for key in scan.images if key.repetition < newest.get(key[1:], 0)}
    return sorted(over | _flagged(scan, lines) if trigger == "auto" else over)


def _flagged(scan: _Scan, lines: Lines) -> set[_Key]:
    """Images that a flag finishes, and that nothing in the header's limits keeps open."""
    headers = lines.headers
    encoding = scan.encoding(int(headers["encoding_space_ref"][0]))
    final = has_flag(headers, Flag.LAST_IN_SLICE, Flag.LAST_IN_REPETITION) & ~has_flag(headers, *LEFT_OUT)
    if not encoding.embedded:
        final &= ~has_flag(headers, Flag.IS_PARALLEL_CALIBRATION)
    for counter, last in encoding.last.items():
        final &= last is not None and headers["idx"][counter] >= (last or 0)
    found: set[_Key] = set()
    for line in headers[final]:  # a line or two of a whole slice
        repetition, set_, phase, slice_ = (int(line["idx"][name]) for name in _Key._fields[:4])
        key = _Key(repetition, set_, phase, slice_, encoding.index)
        if has_flag(line, Flag.LAST_IN_REPETITION):
            found |= {k for k in scan.images if (k.repetition, k.encoding) == (repetition, encoding.index)}
        elif not encoding.volume:  # of a volume it may mean the last of one partition
            found.add(key)
    return {key for key in found if key in scan.images and scan.has_calibration(key)}


def _require_centre(mask: Mask, key: _Key, encoding: Encoding) -> None:
    """Raises InputError if no line near the k-space centre has come: the scan was stopped, or is not what it seems."""
    reach = [CENTRE, CENTRE if encoding.volume else mask.shape[1]]
    middle = tuple(slice(max(n // 2 - r, 0), n // 2 + r + 1) for n, r in zip(mask.shape, reach, strict=True))
    if not mask[middle].any():
        raise InputError(
            f"sort: {key} ended before the centre of its k-space was sampled; if repetitions are interleaved, set "
            f"sort.trigger to measurement"
        )


def _distance(a: _Key, b: _Key) -> tuple[Any, ...]:
    """How little one image has to do with another."""
    return (a.encoding != b.encoding, *(abs(m - n) for m, n in zip(a[:3], b[:3], strict=True)))


def _whitened(lines: Lines) -> Lines:
    require_finite(lines, "sort")
    return replace(lines, whitened=True)


def _copy(x: Array) -> Array:
    return array_namespace(x).asarray(x, copy=True)


def _counter(lines: Lines) -> int:
    return int(lines.headers["scan_counter"][0])
