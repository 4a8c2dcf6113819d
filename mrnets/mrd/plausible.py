"""Fields and samples of lines that contradict each other or cannot be right. This is the one place of the rules.

Left out, with a note: lines whose samples are all zero. They were not measured.

Noted in the comment of the image:
- dwell times that differ within an echo by more than 1 %, or that are beyond 0.05 to 1000 µs;
- positions and directions that differ within an image, or that are not finite or no unit vectors;
- a field of view of the images more than twice the encoded one, or a sixteenth of it and less;
- averages, and values of other counters, that the header's limits do not announce. Limits from 0 to 0 say nothing of
  the other counters: converters fill them so. Echo times announce contrasts, too, as do several inversion times,
  repetition times or flip angles beside them;
- lines that came twice with the same counters, with how much they differ, relative to the image;
- averages of prewhitened lines that differ by more than twice what noise explains;
- averages that cancel each other, as those with opposite signs do;
- spikes: the largest sample of a line is 50 times that of its neighbours (500 times near the k-space centre). It is
  also at least 5 % of that of any other line;
- weak lines: the same with line and neighbours exchanged. Weak is also a line between strong ones with less than a
  tenth of the noise that all lines have;
- lines beside a regular pattern, and lines of it that did not come. The pattern is every n-th line and a full block
  around the centre, or all lines. One or two lines differ from it. More of them are another way to sample.

Refused elsewhere: NaN and infinite samples (`mrnets.mrd.lines`), negative dwell times (`mrnets.physics.whiten`).

Axes: line, coil, sample for lines; z, y, coil, x for k-space.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ismrmrd.xsd import ismrmrdHeader
from numpy.typing import NDArray

from mrnets.mrd.encoding import Space
from mrnets.mrd.images import Key
from mrnets.mrd.lines import Lines, take
from mrnets.mrd.pattern import misfits
from mrnets.physics.arrays import Array, array_namespace, asarray_like

__all__ = [
    "DWELL",
    "TWICE",
    "Facts",
    "Repeats",
    "beyond_field",
    "beyond_limits",
    "nonzero",
    "off_pattern",
    "out_of_line",
    "samples_of",
]

TWICE = "lines that came twice with the same counters were averaged"
DWELL = (0.05, 1000.0)
"""The dwell times that there are, µs. 0 means that it is not known."""
DWELL_DIFFERENCE = 0.01
GEOMETRY = ("position", "read_dir", "phase_dir", "slice_dir")
MAX_OVERSAMPLING = 16
SAME_PLACE = 0.01
"""mm, and of unit vectors."""
NOISE_EXPLAINS = 4.0
"""Energy of differences, relative to that of noise."""
CANCELLED = 1.5
"""Noise that would explain the differences of averages, relative to their mean, above which they cancel each other.
Noise alone has 1."""
NOISE_VARIANCE = 2.0
"""Variance of a complex sample after prewhitening, at most: twice the relative bandwidth at equal dwell times."""
STRONG, STRONG_AT_CENTRE = 50.0, 500.0
CENTRE = 8
"""Lines on either side of the k-space centre, where neighbours differ much by nature."""
VISIBLE = 0.05
QUIET = 0.1
"""The median sample of a damaged line, relative to that of the lines that have little but noise."""
NOISY = 20
"""One line in so many, at least, has little but noise."""
LOOKED_AT = 4, 32
"""Coils and samples of a line, from which its median is taken."""


@dataclass
class Facts:
    """The facts in the headers of an image's lines, and the number of lines that are all zero."""

    zero: int = 0
    dwells: dict[int, tuple[float, float]] = field(default_factory=dict)
    """By contrast: the shortest and the longest, µs."""
    averages: set[int] = field(default_factory=set)
    places: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Position and directions of the first line."""
    moved: set[str] = field(default_factory=set)
    """Those that other lines have otherwise."""

    def measured(self, lines: Lines, contrast: int) -> Lines:
        """Return the lines that are not all zero, after a look at their headers."""
        there = nonzero(lines)
        self.zero += len(lines) - len(there)
        lines = there
        if len(lines):
            dwell = lines.headers["sample_time_us"]
            low, high = self.dwells.get(contrast, (math.inf, -math.inf))
            self.dwells[contrast] = (min(low, float(dwell.min())), max(high, float(dwell.max())))
            self.averages.update(lines.headers["idx"]["average"].tolist())
            self._place(lines.headers)
        return lines

    def _place(self, headers: NDArray[np.void]) -> None:
        for name in GEOMETRY:
            first = self.places.setdefault(name, headers[name][0])
            with np.errstate(invalid="ignore"):
                if not (np.abs(headers[name] - first) <= SAME_PLACE).all():
                    self.moved.add(name)

    def notes(self, limits: Any) -> Iterator[str]:
        """Yield a sentence for each thing that is not as it should be. limits: the header's, or None."""
        if self.zero:
            yield f"{self.zero} lines are all zero and were left out"
        for low, high in sorted(set(self.dwells.values())):
            if high > low * (1 + DWELL_DIFFERENCE):
                yield f"the dwell times of its lines differ, from {low:g} to {high:g} µs"
            for dwell in {low, high} - {0.0}:
                if not DWELL[0] <= dwell <= DWELL[1]:
                    yield f"the dwell time of its lines is {dwell:g} µs, which is absurd"
        for name in sorted(self.moved):
            yield f"its lines differ in {name}"
        for name, vector in self.places.items():
            if not np.isfinite(vector).all() or (name.endswith("_dir") and not _is_direction(vector)):
                yield f"{name} of its lines is {vector.tolist()}, which is absurd"
        announced = getattr(limits, "average", None)
        if len(self.averages) > 1 and (announced is None or max(self.averages) > int(announced.maximum)):
            count = 1 if announced is None else int(announced.maximum) + 1
            yield f"{len(self.averages)} averages came, and the header announces {count}"


def _is_direction(vector: NDArray[np.float32]) -> bool:
    """Return whether `vector` is a unit vector, or all zero: some converters write no directions."""
    length = float(np.linalg.norm(vector))
    return length == 0 or abs(length - 1) < 0.01


def beyond_field(encoded: Space, images: Space) -> Iterator[str]:
    """Yield a sentence for each axis along which the images are to show too much or too little of what was encoded.

    Too much is more than twice, too little a sixteenth and less. Half of the samples of a readout are never encoded in
    vain: where images have half of them over the same field of view, that of the oversampling was forgotten."""
    samples, pixels = encoded.matrix[0], images.matrix[0]
    if samples >= 2 * pixels and math.isclose(encoded.fov[0], images.fov[0], rel_tol=0.01):
        yield (
            f"the header encodes {samples} samples along x over the same {encoded.fov[0]:g} mm as images of {pixels} "
            f"pixels; if the readout is oversampled, its encoded field of view is too small and the images are squeezed"
        )
    for axis, own, wanted in zip("xyz", encoded.fov, images.fov, strict=True):
        if 0 < 2 * own < wanted or 0 < MAX_OVERSAMPLING * wanted <= own:
            yield f"the images are to show {wanted:g} mm along {axis}, and {own:g} mm were encoded"


def nonzero(lines: Lines) -> Lines:
    """Return the lines that are not all zero."""
    return take(lines, np.flatnonzero(lines.peaks != 0))


def beyond_limits(key: Key, contrasts: Iterable[int], header: ismrmrdHeader) -> Iterator[str]:
    """Yield a sentence for each counter of an image, and of its contrasts, that is beyond what the header announces."""
    limits = header.encoding[key.encoding].encodingLimits
    for name in ("slice", "phase", "set", "repetition"):
        limit, value = getattr(limits, name, None), getattr(key, name)
        if limit is not None and int(limit.maximum) > 0 and not int(limit.minimum) <= value <= int(limit.maximum):
            yield f"{name} {value} came, and {limit.minimum} to {limit.maximum} are announced"
    last = _last_contrast(header, limits)
    for value in contrasts:
        if last is not None and value > last:
            yield f"contrast {value} came, and 0 to {last} are announced"


def _last_contrast(header: ismrmrdHeader, limits: Any) -> int | None:
    """Return the largest contrast that a header announces; None where it says nothing."""
    limit = getattr(limits, "contrast", None)
    last = 0 if limit is None else int(limit.maximum)
    listed = [len(getattr(header.sequenceParameters, name, ())) for name in ("TE", "TI", "TR", "flipAngle_deg")]
    return max(last, max(listed) - 1) if listed[0] else last or None


@dataclass
class Repeats:
    """How much lines of one place differ from each other."""

    energy: Any = 0.0
    """Sum over samples of the squared difference from the mean so far, weighted so that noise counts once a sample."""
    samples: int = 0
    whole: float = 0.0
    """Energy of the means of all lines, once they are known."""

    def add(self, values: Array, sums: Array, counts: NDArray[np.int32]) -> None:
        """Account for lines (line, coil, x). sums: of the lines before them at their places; counts: how many."""
        xp = array_namespace(values)
        weights = np.sqrt(counts / (counts + 1))  # 0 where a line is the first of its place
        weights, shares = (asarray_like(w, values, dtype=xp.float32) for w in (weights, 1 / np.maximum(counts, 1)))
        difference = (values - sums * shares[:, None, None]) * weights[:, None, None]
        self.energy = self.energy + xp.sum(xp.real(difference) ** 2 + xp.imag(difference) ** 2)
        self.samples += int(np.count_nonzero(counts)) * math.prod(values.shape[1:])

    def note(self, counts: NDArray[np.int32], *, twice: bool, whitened: bool) -> str | None:
        """Return a sentence on lines that differ, or None.

        counts: (z, y). twice: lines came twice with the same counters."""
        energy, whole = float(self.energy), float(self.whole)
        part = math.sqrt(energy / int(counts.max()) / whole) if whole > 0 else 0.0
        beyond_noise = energy > NOISE_EXPLAINS * NOISE_VARIANCE * self.samples
        if twice:
            return f"the lines that came twice differ by {100 * part:.2g} % of the image"
        if whitened and not beyond_noise:
            return None
        if part > CANCELLED * math.sqrt(int(counts.max()) - 1):
            return f"averages of the same line differ by {part:.2g} times the image: they seem to have opposite signs"
        if whitened:
            times = math.sqrt(energy / (NOISE_VARIANCE * self.samples))
            return f"averages of the same line differ by {times:.2g} times their noise"
        return None


def samples_of(kspace: Array) -> Array:
    """Return some samples of some coils of each line of k-space (z, y, coil, x), with its axes. A view."""
    steps = [-(-n // most) for n, most in zip(kspace.shape[2:], LOOKED_AT, strict=True)]
    return kspace[:, :, :: steps[0], :: steps[1]]


def out_of_line(peaks: NDArray[np.float32], samples: NDArray[np.complex64], counts: NDArray[np.int32]) -> Iterator[str]:
    """Yield a sentence on lines that are much stronger, and on those much weaker, than their neighbours.

    peaks: (z, y), the largest part of each line. samples: (z, y, coil, x), as `samples_of` returns them. counts:
    (z, y), how many lines each place got."""
    quiet, depth = _quiet(samples, counts), len(peaks)
    both = [_outliers(peaks.astype(np.float64), quiet, counts, z) for z in range(depth)]
    for n, word in enumerate(("stronger", "weaker")):
        found = [(z, y) for z, some in enumerate(both) for y in some[n]]
        if not found:
            continue
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        yield f"{_place(*found[0], depth)}{more} is much {word} than the lines beside it; it may be damaged"


def _place(z: int, y: int, depth: int) -> str:
    return f"line {y}" if depth == 1 else f"line {y} of partition {z}"


def _quiet(samples: NDArray[np.complex64], counts: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return which lines (z, y) have less than the noise that all lines have."""
    medians = np.median(np.abs(samples).reshape(*counts.shape, -1), axis=-1) * np.sqrt(counts)
    noise = np.sort(medians[medians > 0])  # 0: a readout of which less than half was measured
    if not len(noise):
        return np.zeros(counts.shape, np.bool_)
    return (medians > 0) & (medians < QUIET * noise[max(1, len(noise) // NOISY) % len(noise)])


def _outliers(
    peaks: NDArray[np.float64], quiet: NDArray[np.bool_], counts: NDArray[np.int32], z: int
) -> tuple[list[int], list[int]]:
    """Return the lines of a plane that are too strong, and those that are too weak."""
    there = np.flatnonzero(counts[z])
    if len(there) < 5:
        return [], []
    own = peaks[z, there]
    padded = np.pad(own, 2, mode="reflect")
    beside = np.median([padded[n : n + len(own)] for n in (0, 1, 3, 4)], axis=0)
    spacing = int(np.median(np.diff(there)))
    reach = max(CENTRE, 2 * spacing)
    near = (abs(there - peaks.shape[1] // 2) <= reach) & (abs(z - len(peaks) // 2) <= reach)
    bound = np.where(near, STRONG_AT_CENTRE, STRONG)
    largest = np.sort(peaks[counts > 0])[-2]
    strong = (own > bound * beside) & (own >= VISIBLE * largest)
    weak = ((own * bound < beside) | quiet[z, there]) & (beside >= VISIBLE * largest)
    return there[strong].tolist(), there[weak].tolist()


def off_pattern(counts: NDArray[np.int32], announced: int) -> Iterator[str]:
    """Yield a sentence on lines beside the regular pattern of the others, and one on lines of it that did not come.

    counts: (z, y), how many lines each place got. announced: the header's acceleration; 1 where it does not say."""
    found = list(misfits(counts > 0, announced))
    for came, words in ((True, "came, and is not in"), (False, "did not come, and is in")):
        some = [misfit for misfit in found if (counts[misfit[:2]] > 0) == came]
        if not some:
            continue
        z, y, step = some[0]
        more = f", and {len(some) - 1} more" if len(some) > 1 else ""
        pattern = "all lines" if step == 1 else f"one line in {step}"
        yield f"{_place(z, y, len(counts))}{more} {words} the regular pattern of the others ({pattern})"
