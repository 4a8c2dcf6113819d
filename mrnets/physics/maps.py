"""The maps that networks estimate: what each is, and how it changes with the image. Axes: maps (batch, y, x), real.

Maps are not band-limited. Where they are resampled, each pixel takes the nearest one (`interpolation.nearest`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mrnets.physics.arrays import Array, array_namespace

__all__ = ["MAPS", "Map", "facts", "scaled", "turned"]


@dataclass(frozen=True, kw_only=True)
class Map:
    """One kind of map."""

    unit: str = ""
    size: float | None = 1.0
    """Divisor of a map before maps are added up: about the value of brain tissue at 3 to 7 T. None: the largest value
    of the map itself."""
    signed: bool = False
    wraps: bool = False
    """Whether it is an angle in rad, known only up to whole turns. It turns with the phase of the image."""
    scales: bool = False
    """Whether it is in the scale of the image."""
    colours: str = "gray"
    """The colour map of figures, by matplotlib's name."""

    @property
    def window(self) -> tuple[float, float]:
        """The values that pictures show, from black to white; those of a map without a size are relative to it."""
        if self.wraps:
            return -math.pi, math.pi
        if self.size is None:
            return 0.0, 1.0
        return (-self.size, self.size) if self.signed else (0.0, 2 * self.size)


MAPS: Mapping[str, Map] = {
    "R2*": Map(unit="1/s", size=50.0, colours="inferno"),
    "S0": Map(size=None, scales=True),
    "B0": Map(unit="Hz", size=100.0, signed=True, colours="coolwarm"),
    "phase": Map(unit="rad", signed=True, wraps=True, colours="twilight"),
}
"""In the order in which `relaxation` stacks them."""


def facts(name: str) -> Map:
    """Return the properties of the map `name`. A map that is not in `MAPS` gets the defaults."""
    return MAPS.get(name, Map())


def scaled(maps: Mapping[str, Array], factor: Array) -> dict[str, Array]:
    """Return the maps of an image that was multiplied by `factor` (batch, y, x), real."""
    return {name: m * factor if facts(name).scales else m for name, m in maps.items()}


def turned(maps: Mapping[str, Array], phase: Array) -> dict[str, Array]:
    """Return the maps of an image that was multiplied by `phase` (batch, y, x), complex of magnitude 1."""
    return {name: _turned(m, phase) if facts(name).wraps else m for name, m in maps.items()}


def _turned(angle: Array, phase: Array) -> Array:
    xp = array_namespace(angle, phase)
    real, imaginary = xp.real(phase), xp.imag(phase)
    cos, sin = xp.cos(angle), xp.sin(angle)
    return xp.atan2(sin * real + cos * imaginary, cos * real - sin * imaginary)
