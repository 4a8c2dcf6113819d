"""A check that the k-space centre is where the header puts it.

Axes as in `mrnets.contract.Raw`: the centre of k-space is at n // 2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mrnets.physics.arrays import Array, array_namespace, to_numpy

__all__ = ["centre_doubts"]

REACH = 16
"""The strongest line may lie this part of the matrix from the centre, but at least `LEAST_REACH` lines."""
LEAST_REACH = 3
WEAKER = 0.25
"""Energy of the lines around the centre, relative to the strongest line, below which the centre is in doubt. In noise
alone, and in objects with much structure, it is more."""
MAX_POSITIONS = 16
"""Readout positions of a volume that are looked at."""


def centre_doubts(kspace: Array, mask: NDArray[np.bool_], *, volume: bool) -> tuple[str, ...]:
    """Sentences on a k-space centre that seems to be elsewhere, or that was not sampled. Empty without doubts.

    kspace (batch, echo, coil, y, x), of which the first echo counts; mask (y, x).
    """
    energy = _energy(kspace, volume)
    if not np.isfinite(energy).all():
        return ()
    names = ("kspace_encode_step_2", "kspace_encode_step_1") if volume else ("kspace_encode_step_1", "readout")
    doubts = [_hole(name, mask, axis) or _misplaced(name, energy, mask, axis) for axis, name in enumerate(names)]
    return tuple(filter(None, doubts))


def _energy(kspace: Array, volume: bool) -> NDArray[np.float64]:
    """(y, x): the energy of all coils, of some readout positions of a volume."""
    xp = array_namespace(kspace)
    step = max(1, kspace.shape[0] // MAX_POSITIONS) if volume else 1
    some = kspace[step // 2 :: step, 0]
    with np.errstate(invalid="ignore", over="ignore"):  # values that are not finite are told elsewhere
        return np.asarray(to_numpy(xp.sum(xp.real(some * xp.conj(some)), axis=(0, 1))), np.float64)


def _misplaced(name: str, energy: NDArray[np.float64], mask: NDArray[np.bool_], axis: int) -> str:
    counts = mask.sum(axis=1 - axis)
    profile = energy.sum(axis=1 - axis) / np.maximum(counts, 1)
    size = len(profile)
    strongest, centre, reach = int(np.argmax(profile)), size // 2, max(LEAST_REACH, size // REACH)
    around = profile[max(centre - reach, 0) : centre + reach + 1].max()
    if abs(strongest - centre) <= reach or around >= WEAKER * profile[strongest]:
        return ""
    away = strongest - centre
    return (
        f"the strongest k-space along {name} is {abs(away)} {'after' if away > 0 else 'before'} the centre that was "
        f"taken, so the image may be wrong; sort.centre_line and the like set the centre by hand"
    )


def _hole(name: str, mask: NDArray[np.bool_], axis: int) -> str:
    """Lines that lack around the centre where the lines beside them are closer together."""
    there = np.flatnonzero(mask.any(axis=1 - axis))
    centre, size = mask.shape[axis] // 2, mask.shape[axis]
    inner = there[np.abs(there - centre) <= max(size // 4, LEAST_REACH)]
    if len(inner) < LEAST_REACH or centre in there:
        return ""
    gaps = np.diff(inner)
    before = int(np.searchsorted(inner, centre)) - 1
    if not 0 <= before < len(gaps) or gaps[before] <= max(2 * float(np.median(gaps)), LEAST_REACH):
        return ""
    return f"no {name} from {inner[before] + 1} to {inner[before + 1] - 1} was sampled, where the centre {centre} lies"
