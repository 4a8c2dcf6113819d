"""Measures of an image's k-space for the checks at its end, in the host's memory.

A device answers when all work that was queued before is done, that of a network included. So it is asked once for all
measures of an image. Axes: z, y, coil, x as in `mrnets.mrd.kspace`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrnets.mrd.centre import energy_of
from mrnets.mrd.direction import along_readout, around_centre
from mrnets.mrd.kspace import Echo
from mrnets.mrd.plausible import Repeats, samples_of
from mrnets.mrd.strength import Profiles, peaks_of, profiles_of, squares_of
from mrnets.physics.arrays import Array, array_namespace, fetched

__all__ = ["Measures", "measured"]


@dataclass(frozen=True)
class Measures:
    """Measures of one echo, NumPy."""

    profiles: Profiles
    """The energy along y and x; of some readout positions of a volume."""
    peaks: NDArray[np.float32]
    """(z, y): the largest real or imaginary part of each line."""
    samples: NDArray[np.complex64]
    """(z, y, coil, x): a few of each line."""
    around: NDArray[np.complex64] | None
    """(coil, line, x): the middle of the lines around the centre of a slice; None: a volume."""
    repeats: Repeats
    """How much lines of one place differ from each other."""

    @property
    def along(self) -> NDArray[np.float64]:
        """(coil, x): amplitude along the readout, of a few coils and positions."""
        if self.around is not None:
            return along_readout(self.around, image=False)
        z, y, coils, x = self.samples.shape
        return along_readout(np.moveaxis(self.samples.reshape(z * y, coils, x), 1, 0), image=True)


def measured(echoes: Sequence[tuple[Array, Echo]], *, volume: bool) -> list[Measures]:
    """Return the measures of each echo of an image. A device is asked once for all of them.

    echoes: k-space (batch, 1, coil, y, x), as `kspace_and_mask` returns it, and the echo that it is of."""
    asked = [_asked(kspace, echo, volume) for kspace, echo in echoes]
    answers = iter(fetched([array for one in asked for array in one.values()]))
    told = [{name: next(answers) for name in one} for one in asked]
    return [_measures(one, echo, kspace.shape[-1]) for one, (kspace, echo) in zip(told, echoes, strict=True)]


def _asked(kspace: Array, echo: Echo, volume: bool) -> dict[str, Array]:
    """Return by name the arrays that the measures of an echo are made of, float32 and complex64, where they lie."""
    asked = {"samples": samples_of(echo.kspace)}
    if not volume:
        asked["around"] = around_centre(kspace)
    if echo.strength is None:
        asked["peaks"] = array_namespace(kspace).stack([peaks_of(plane) for plane in echo.kspace])
    if echo.strength is None or volume:
        asked["energy"] = energy_of(kspace, volume=volume)
    if echo.repeats.samples:
        xp = array_namespace(kspace)
        whole = squares_of(xp.moveaxis(echo.kspace, 2, 1))  # by planes: a volume has no copies
        asked |= {"repeated": echo.repeats.energy, "whole": xp.sum(whole)}
    return asked


def _measures(told: dict[str, Any], echo: Echo, width: int) -> Measures:
    """Return the measures. told: the arrays of `_asked` in the host's memory. width: of k-space, along x."""
    known = echo.strength
    return Measures(
        profiles=profiles_of(told["energy"], width) if known is None or "energy" in told else known.profiles,
        peaks=told["peaks"] if known is None else known.peaks,
        samples=told["samples"],
        around=told.get("around"),
        repeats=replace(echo.repeats, energy=told.get("repeated", 0.0), whole=told.get("whole", 0.0)),
    )
