"""Frames made of gathered images: their echoes on one mask, and signs that something is missing.

Axes as in `mrnets.contract.Raw`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from array_api_compat import is_cupy_array
from ismrmrd.xsd import ismrmrdHeader
from numpy.typing import NDArray

from gadgets.frame import CUT_SHORT, Frame
from gadgets.gather import Group
from mrnets.contract import Raw
from mrnets.mrd.calibration import Mean, has_centre_block
from mrnets.mrd.completeness import Arrivals
from mrnets.mrd.encoding import Encoding
from mrnets.mrd.images import Key, echo_times
from mrnets.mrd.kspace import Echo, averages, kspace_and_mask
from mrnets.mrd.left_out import left_out_notes
from mrnets.mrd.measures import Measures, measured
from mrnets.mrd.noise import NoiseScan, bandwidth, whitened_variance
from mrnets.mrd.plausible import TWICE, beyond_field, beyond_limits, off_pattern, out_of_line
from mrnets.mrd.readout import noise_gain
from mrnets.physics.arrays import Array, array_namespace, asarray_like

__all__ = [
    "Part",
    "Shortfalls",
    "arrive",
    "frames",
    "group_notes",
    "implausible",
    "of_contrasts",
    "parts_of",
    "without_centre",
]

Mask = NDArray[np.bool_]

CENTRE = 8
"""Lines on either side of the k-space centre of which at least one must have come."""


@dataclass(frozen=True)
class Part:
    """One echo of a finished image."""

    contrast: int
    kspace: Array
    """(batch, 1, coil, y, x)."""
    mask: Mask
    """(y, x)."""
    echo: Echo
    measures: Measures
    """Measures of its k-space, on the host."""

    @cached_property
    def calibrated(self) -> bool:
        """Whether its centre is fully sampled."""
        return has_centre_block(self.mask)


def parts_of(group: Group, encoding: Encoding) -> list[Part]:
    """The echoes of a group, by contrast. Ends the use of the group's k-space."""
    contrasts = sorted(contrast for contrast, echo in group.echoes.items() if echo.counts.any())
    echoes = [group.echoes[n] for n in contrasts]
    arrays = [kspace_and_mask(echo, encoding) for echo in echoes]
    kspaces = [kspace for kspace, _ in arrays]
    measures = measured(list(zip(kspaces, echoes, strict=True)), volume=encoding.volume)
    found = zip(contrasts, arrays, echoes, measures, strict=True)
    return [Part(contrast, *both, echo, own) for contrast, both, echo, own in found]


def group_notes(group: Group, encoding: Encoding) -> tuple[str, ...]:
    """Sentences on the lines of an image. Raises InputError if many were left out."""
    echoes = list(group.echoes.values())
    own = {contrast: echo.notes for contrast, echo in group.echoes.items()}
    notes = [*left_out_notes(echoes, encoding), *group.notes, *of_contrasts(own)]
    notes += beyond_field(encoding.encoded, encoding.recon)
    return tuple(dict.fromkeys(notes))


def without_centre(mask: Mask, key: Key, encoding: Encoding) -> str | None:
    """Return a sentence if no line near the k-space centre has come, or None: such an image shows nothing."""
    reach = [CENTRE, CENTRE if encoding.volume else mask.shape[1]]
    middle = tuple(slice(max(n // 2 - r, 0), n // 2 + r + 1) for n, r in zip(mask.shape, reach, strict=True))
    if mask[middle].any():
        return None
    return (
        f"{key} is cut short: it ended before the centre of its k-space was sampled; if repetitions are interleaved, "
        f"set sort.trigger to measurement"
    )


@dataclass
class Shortfalls:
    """Signs that a scan was cut short; for the comment of the images, since no rule tells it for certain."""

    sampled: dict[tuple[tuple[int, ...], bool], int] = field(default_factory=dict)
    """(set, phase, slice, encoding) and whether there was a calibration block: the samples of the first such image."""

    def of(self, key: Key, encoding: Encoding, parts: list[Part]) -> tuple[str, ...]:
        """Sentences on what one image seems to lack."""
        notes = []
        last, mask = encoding.last["contrast"], parts[0].mask
        if last is not None and len(parts) <= last:
            notes.append(f"{len(parts)} of {last + 1} contrasts came")
        lines = np.flatnonzero(mask.any(axis=0 if encoding.volume else 1))
        limit, reach = encoding.limits[0], encoding.encoded.matrix[1] // 8 + CENTRE
        if encoding.announced and (lines[0] > limit.minimum + reach or lines[-1] < limit.maximum - reach):
            notes.append(
                f"lines {lines[0]} to {lines[-1]} came where {limit.minimum} to {limit.maximum} were announced"
            )
        sampled = int(mask.sum())
        first = self.sampled.setdefault((key[1:], parts[0].calibrated), sampled)
        if sampled < first:
            notes.append(f"{sampled} samples came, and {first} for an earlier image of the slice")
        return tuple(f"{CUT_SHORT} {note}" for note in notes)


def implausible(key: Key, group: Group, parts: list[Part], header: ismrmrdHeader) -> tuple[str, ...]:
    """Return what contradicts itself in the lines of an image, a sentence each; see `mrnets.mrd.plausible`."""
    space = header.encoding[key.encoding]
    limits, factors = space.encodingLimits, getattr(space.parallelImaging, "accelerationFactor", None)
    acceleration = getattr(factors, "kspace_encoding_step_1", None) or 1
    notes = [*group.facts.notes(limits), *beyond_limits(key, [part.contrast for part in parts], header)]
    own = {}
    for part in parts:
        counts, known = part.echo.counts, part.measures
        repeats = known.repeats.note(counts, twice=TWICE in part.echo.notes, whitened=group.whitened)
        found = [repeats, *out_of_line(known.peaks, known.samples, counts), *off_pattern(counts, int(acceleration))]
        own[part.contrast] = [note for note in found if note]
    return tuple(dict.fromkeys([*notes, *of_contrasts(own)]))


def of_contrasts(said: Mapping[int, Iterable[str]]) -> list[str]:
    """Return the sentences on the echoes of an image, each once. One that is not on all of them names its contrasts."""
    where: dict[str, list[int]] = {}
    for contrast in sorted(said):
        for note in dict.fromkeys(said[contrast]):
            where.setdefault(note, []).append(contrast)
    names = {note: ", ".join(f"contrast {n}" for n in found) for note, found in where.items()}
    return [note if len(found) == len(said) else f"{names[note]}: {note}" for note, found in where.items()]


def arrive(arrivals: Arrivals, key: Key, parts: list[Part], *, alike: bool) -> None:
    """Account for a finished image. alike: all images of the scan sample the same lines."""
    arrivals.add(
        key,
        [part.contrast for part in parts],
        sum(int(part.mask.sum()) for part in parts) if alike else 0,
        calibrated=parts[0].calibrated,
        repeats=min(int(part.echo.counts[part.echo.counts > 0].min()) for part in parts),
    )


def frames(
    parts: list[Part],
    group: Group,
    encoding: Encoding,
    calibration: Mean,
    header: ismrmrdHeader,
    noise: NoiseScan,
    notes: tuple[str, ...],
) -> Iterator[Frame]:
    """One frame of the echoes of an image; if they are sampled differently, one for each."""
    together = [parts]
    if not all(np.array_equal(parts[0].mask, other.mask) for other in parts[1:]):
        together = [[part] for part in parts]
        notes = (*notes, "the echoes are sampled differently; each is reconstructed by itself")
    for some in together:
        raw = _raw(some, group, encoding, calibration, header, noise)
        yield Frame(
            raw=raw,
            headers=np.stack([part.echo.header for part in some])[None],
            times=np.stack([part.echo.times for part in some])[None],
            encoding=encoding.index,
            volume=encoding.volume,
            encoded=encoding.reduced,
            recon=encoding.recon,
            limits=(some[0].echo.readout_limit(), *encoding.limits),
            history=(
                *(["prewhitened"] if group.whitened else []),
                *(["regridding along the readout"] if encoding.ramps else []),
                *(["epi phase correction"] if group.aligned else []),
            ),
            notes=notes,
        )


def _raw(
    parts: list[Part],
    group: Group,
    encoding: Encoding,
    calibration: Mean,
    header: ismrmrdHeader,
    noise: NoiseScan,
) -> Raw:
    first = parts[0].kspace
    xp = array_namespace(first)
    kspace = first if len(parts) == 1 else xp.concat([part.kspace for part in parts], axis=1)
    times = echo_times(header, [part.contrast for part in parts])
    covariance = None
    if not group.whitened and noise.of_coils(first.shape[2]):
        covariance = noise.measured().at(group.dwell, bandwidth(header))
    raw = Raw(
        kspace=kspace,
        mask=asarray_like(parts[0].mask[None, None, None], kspace),
        calibration=calibration.block,
        calibration_images=calibration.images,
        echo_times=times,  # on the host, where later gadgets look at them: a device would be asked for each frame
        noise=None if covariance is None else asarray_like(covariance, kspace, dtype=kspace.dtype),
        readout="batch" if encoding.volume else "x",
        averages=averages([part.echo.counts for part in parts]),
        variance=whitened_variance(group.dwell) * noise_gain(encoding),
        whitened=group.whitened,
    )
    if not is_cupy_array(kspace):
        return raw
    from mrnets.tensors import handed_over  # torch is not loaded where nothing needs it

    return handed_over(raw)
