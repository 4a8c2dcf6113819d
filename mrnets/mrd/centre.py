"""Checks that the k-space centre is where the header puts it: of lines as they come in, and of images.

Axes: line, coil, sample for lines; for images as in `mrnets.contract.Raw`, the centre of k-space at n // 2.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ismrmrd.xsd import ismrmrdHeader
from numpy.typing import NDArray

from mrnets.mrd.axis import Seen, full_centres
from mrnets.mrd.encoding import ByHand, Encoding, found, limit_of, whole_matrix
from mrnets.mrd.lines import Lines
from mrnets.mrd.strength import Profiles, profiles_of, squares_of
from mrnets.physics.arrays import Array, array_namespace, to_numpy

__all__ = ["Energies", "Evidence", "centre_doubts", "doubtful_centres", "energy_of", "least_reach"]

REACH = 16
"""The strongest line may lie this part of the matrix from the centre, but at least `LEAST_REACH` lines."""
LEAST_REACH = 3
WEAKER = 0.25
"""Energy of the lines around the centre, relative to the strongest line, below which the centre is in doubt. In noise
alone, and in objects with much structure, it is more."""
HOLE, AROUND = 2, 8
"""Lines on either side of the centre of a volume that are looked at, and of those around them."""
EXPECTED = 4
"""So many of the lines at the centre must be expected, by the density around, before their lack is told."""
MAX_POSITIONS = 16
"""Readout positions of a volume that are looked at."""


@dataclass
class Energies:
    """The energy of lines by their counter."""

    step: int
    """1 or 2, of kspace_encode_step_1 or _2."""
    _sums: dict[int, list[float]] = field(default_factory=dict)
    """Sum and number of lines."""

    def add(self, lines: Lines) -> None:
        """Take some lines."""
        xp = array_namespace(lines.data)
        energy = to_numpy(xp.sum(xp.real(lines.data * xp.conj(lines.data)), axis=(1, 2))).astype(np.float64)
        counters = lines.headers["idx"][f"kspace_encode_step_{self.step}"].tolist()
        for counter, value in zip(counters, energy, strict=True):
            entry = self._sums.setdefault(counter, [0.0, 0.0])
            entry[0], entry[1] = entry[0] + float(value), entry[1] + 1

    def means(self) -> dict[int, float]:
        """Return the mean energy of the lines of each counter that came."""
        return {counter: total / count for counter, (total, count) in self._sums.items()}


def least_reach(size: int) -> int:
    """Return how far the strongest line may lie from the centre of a matrix."""
    return max(LEAST_REACH, size // REACH)


@dataclass
class Evidence:
    """The energy of lines along one axis where the centre in the header is doubtful."""

    step: int
    """1 or 2, of kspace_encode_step_1 or _2."""
    centre: int
    """The counter of the centre, as the header has it."""
    others: tuple[int, ...]
    """The counters at which it lies if one half of k-space is full."""
    reach: int
    """The strongest line may lie this far from the centre."""
    energies: Energies
    """Energies of lines of images and of calibrations."""

    @property
    def complete(self) -> bool:
        """Whether lines on both sides of every possible centre came."""
        came = self.energies.means()
        return all(
            any(0 <= sign * (counter - centre) <= self.reach for counter in came)
            for centre in (self.centre, *self.others)
            for sign in (-1, 1)
        )

    def seen(self) -> Seen | None:
        """Return the centre that the lines show; None where they agree with the header, or do not tell."""
        energy = self.energies.means()
        strongest = max(energy, key=lambda counter: energy[counter], default=self.centre)
        nearest = min(self.others, key=lambda other: abs(other - strongest))
        near = min(self.reach, (abs(nearest - self.centre) - 1) // 2)  # lines that are not as near to the other centre
        around = max((e for counter, e in energy.items() if abs(counter - self.centre) <= near), default=0.0)
        if around >= WEAKER * energy.get(strongest, 0.0) or abs(nearest - strongest) > self.reach:
            return None
        reason = f"the header's centre {self.centre} contradicts the data, whose strongest line is {strongest}"
        return Seen(nearest, f"{reason}; taking {nearest}, with which one half of k-space is full")


def doubtful_centres(encoding: Encoding, header: ismrmrdHeader, by_hand: ByHand) -> tuple[Evidence | None, ...]:
    """Return, for y and z, what decides whether the centre of `encoding` is right; None where there is no doubt.

    There is doubt where the announced lines do not fill the grid, and with this centre neither half of k-space is full.
    Converters write half of the measured lines then. That is right for a scan of less resolution, and wrong for partial
    Fourier. Only the data tell."""
    steps = ((1, by_hand.centre_line), (2, by_hand.centre_partition))
    return tuple(_doubtful(encoding, header, step, hand) for step, hand in steps)


def _doubtful(encoding: Encoding, header: ismrmrdHeader, step: int, hand: int | None) -> Evidence | None:
    size = encoding.encoded.matrix[step]
    limit = limit_of(found(header, encoding.index), step)
    others = full_centres(max(size, whole_matrix(encoding.encoded, encoding.recon)[step]), limit)
    centre, reach = size // 2 - encoding.offsets[step - 1], least_reach(size)
    certain = hand is not None or (step == 2 and not encoding.volume)
    if certain or not others or any(abs(other - centre) <= reach for other in others):
        return None
    return Evidence(step, centre, others, reach, Energies(step))


def centre_doubts(
    kspace: Array, mask: NDArray[np.bool_], *, volume: bool, profiles: Profiles | None = None
) -> tuple[str, ...]:
    """Sentences on a k-space centre that seems to be elsewhere, or that was not sampled. Empty without doubts.

    kspace (batch, echo, coil, y, x), of which the first echo counts; mask (y, x). profiles: its energy along y and x,
    where it is known.
    """
    profiles = profiles or profiles_of(to_numpy(energy_of(kspace, volume=volume)), kspace.shape[-1])
    if not all(np.isfinite(energy).all() for energy in profiles):
        return ()
    names = ("kspace_encode_step_2", "kspace_encode_step_1") if volume else ("kspace_encode_step_1", "readout")
    sampled = [np.count_nonzero(mask, axis=axis) for axis in (1, 0)]  # at each position of an axis
    doubts = [
        _hole(name, counts) or _misplaced(name, profiles[axis], counts) or _one_sided(name, counts)
        for axis, (name, counts) in enumerate(zip(names, sampled, strict=True))
    ]
    doubts.append(_empty_middle(mask) if volume else "")
    return tuple(filter(None, doubts))


def energy_of(kspace: Array, *, volume: bool) -> Array:
    """Return the energy of the first echo of k-space (batch, echo, coil, y, x), float32, for `profiles_of`.

    (y, x): of some readout positions of a volume. (y, 2 x): of real and imaginary parts of a slice, in turn."""
    if not volume:
        return squares_of(kspace[:, 0])
    xp = array_namespace(kspace)
    step = max(1, kspace.shape[0] // MAX_POSITIONS)
    some = kspace[step // 2 :: step, 0]
    with np.errstate(invalid="ignore", over="ignore"):  # values that are not finite are told elsewhere
        return xp.sum(xp.real(some * xp.conj(some)), axis=(0, 1))


def _misplaced(name: str, energy: NDArray[np.float64], counts: NDArray[np.integer[Any]]) -> str:
    profile = energy / np.maximum(counts, 1)
    size = len(profile)
    strongest, centre, reach = int(np.argmax(profile)), size // 2, least_reach(size)
    around = profile[max(centre - reach, 0) : centre + reach + 1].max()
    if abs(strongest - centre) <= reach or around >= WEAKER * profile[strongest]:
        return ""
    away = strongest - centre
    return (
        f"the strongest k-space along {name} is {abs(away)} {'after' if away > 0 else 'before'} the centre that was "
        f"taken, so the image may be wrong; sort.centre_line and the like set the centre by hand"
    )


def _hole(name: str, counts: NDArray[np.integer[Any]]) -> str:
    """Lines that lack at the centre or beside it, where those around are closer together."""
    there = np.flatnonzero(counts)
    centre, size = len(counts) // 2, len(counts)
    around = there[np.abs(there - centre) <= max(size // 4, LEAST_REACH)]
    steps = [float(np.median(np.diff(some))) for some in (around, there) if len(some) > 1]
    usual = max(2 * min(steps, default=size), LEAST_REACH)
    for before, after in itertools.pairwise(there.tolist()):
        if after - before > usual and before < centre + 1 and after > centre - 1:
            return f"no {name} from {before + 1} to {after - 1} was sampled, where the centre {centre} lies"
    return ""


def _one_sided(name: str, counts: NDArray[np.integer[Any]]) -> str:
    """Lines that all lie on one side of the centre, and not beside it."""
    there = np.flatnonzero(counts)
    centre = len(counts) // 2
    if not len(there) or there[0] - 1 <= centre <= there[-1] + 1:
        return ""
    nearest = there[0] if there[0] > centre else there[-1]
    return f"no {name} was sampled from the centre {centre} to {nearest}, nor on its other side"


def _empty_middle(mask: NDArray[np.bool_]) -> str:
    """A volume's phase encodings at the centre that all lack, where many of those around were sampled."""
    inner, around = (_middle(mask, reach) for reach in (HOLE, AROUND))
    beside = around.sum() / (around.size - inner.size) if around.size > inner.size else 0.0
    if inner.any() or beside * inner.size < EXPECTED:
        return ""
    return f"none of the {inner.size} lines at the k-space centre was sampled, and {100 * beside:.0f} % of those around"


def _middle(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    return mask[tuple(slice(max(n // 2 - reach, 0), n // 2 + reach + 1) for n in mask.shape)]
