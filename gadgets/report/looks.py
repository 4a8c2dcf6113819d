"""Facts that the gadgets of a chain know: sampling, coils, sensitivities, noise, seconds and memory.

The items pass unchanged. Only the slice with the strongest signal is kept of each gadget.
Axes: coil, y, x.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from gadgets.chain import SCAN
from gadgets.failures import FAILURES, why
from gadgets.frame import Frame
from gadgets.profile import Profile
from mrnets.contract import Raw
from mrnets.errors import InputError
from mrnets.mrd.flags import Flag, has_flag
from mrnets.mrd.lines import Item, Lines
from mrnets.mrd.noise import Noise, NoiseScan
from mrnets.physics.arrays import Array, array_namespace, to_numpy
from mrnets.physics.espirit import DEFAULT
from mrnets.physics.fourier import ifftc
from mrnets.preparation import Sensitivities
from mrnets.stages import sense_raw

__all__ = ["LOOKING", "Look", "Recorder"]

_logger = logging.getLogger(__name__)

CENTRE = 8
"""Samples on either side of the k-space centre, whose energy says how strong the signal of a slice is."""
LOOKING = "the report"
"""The report's own step in the profile."""


@dataclass(frozen=True)
class Look:
    """The slice with the strongest signal, as it left a gadget."""

    place: str
    energy: float
    mask: NDArray[np.bool_]
    """(y, x)."""
    coils: NDArray[np.float32]
    """(coil, y, x): magnitudes of the coils' images, as sampled."""
    compressed: str | None
    sens: NDArray[np.complex64] | None
    """(coil, y, x), of the first set; None: the gadget gives none."""
    sets: int
    """How many sets of sensitivities the slice has."""


@dataclass
class Recorder:
    """Looks of one run of a chain. `watch` is for `gadgets.chain.Chain.run`."""

    looks: dict[str, Look] = field(default_factory=dict)
    """By the name of the gadget."""
    profile: Profile = field(default_factory=Profile)
    noise: NoiseScan = field(default_factory=NoiseScan)
    given: Noise | None = None
    """The noise of another scan."""

    def watch(self, name: str, items: Iterator[Item]) -> Iterator[Item]:
        """Return `items`, which the gadget `name` makes."""
        return self.profile.timed(LOOKING, self._seen(name, self.profile.timed(name, items)))

    def covariance(self) -> NDArray[np.complex64] | None:
        """Return the covariance (coil, coil) of the noise measurement; None where there is none, or it is damaged."""
        try:
            noise = self.given or (self.noise.measured() if self.noise.lines else None)
        except InputError:
            return None
        return None if noise is None else to_numpy(noise.covariance)

    def _seen(self, name: str, items: Iterator[Item]) -> Iterator[Item]:
        for item in items:
            try:
                if isinstance(item, Frame):
                    self._look(name, item)
                elif name == SCAN:
                    self._measure(item)
            except (
                *FAILURES,
                ValueError,
                IndexError,
                TypeError,
            ) as error:  # a report that lacks something costs no image
                _logger.warning("the report lacks what %s made: %s", name, why(error))
            yield item

    def _measure(self, item: Item) -> None:
        if isinstance(item, Noise):
            self.given = item
        elif isinstance(item, Lines) and has_flag(item.headers, Flag.IS_NOISE_MEASUREMENT).all():
            self.noise.add(item)

    def _look(self, name: str, frame: Frame) -> None:
        raw = frame.raw
        xp = array_namespace(raw.kspace)
        y, x = (slice(max(size // 2 - CENTRE, 0), size // 2 + CENTRE) for size in raw.kspace.shape[-2:])
        energies = to_numpy(xp.sum(xp.abs(raw.kspace[:, 0, :, y, x]) ** 2, axis=(-3, -2, -1)))
        n = int(energies.argmax())
        before = self.looks.get(name)
        if before is not None and before.energy >= energies[n]:
            return
        sens = _maps(raw, n)
        self.looks[name] = Look(
            place=f"readout position {n}" if frame.volume else f"slice {frame.headers[0, 0]['idx']['slice'] + 1}",
            energy=float(energies[n]),
            mask=to_numpy(raw.mask[min(n, len(raw.mask) - 1), 0, 0]).astype(bool),
            coils=np.abs(to_numpy(ifftc(raw.kspace[n, 0]))),
            compressed=raw.compressed,
            sens=None if sens is None else to_numpy(sens[0]),
            sets=0 if sens is None else len(sens),
        )

    def chosen(self, wanted: Callable[[Look], bool]) -> Look | None:
        """Return the look at the end of the chain among those that are `wanted`."""
        return next((look for look in reversed(self.looks.values()) if wanted(look)), None)


def _maps(raw: Raw, n: int) -> Array | None:
    """Return the maps (set, coil, y, x) of slice n; those of a volume are estimated for it. None: no maps."""
    if raw.sens is None and raw.calibration is not None and raw.sens_method is not None:
        own = replace(raw, kspace=raw.kspace[n : n + 1], calibration=raw.calibration[n : n + 1])
        raw, n = sense_raw(own, cast(Sensitivities, raw.sens_method), raw.sens_options or DEFAULT), 0
    return None if raw.sens is None else raw.sens[min(n, len(raw.sens) - 1)]
