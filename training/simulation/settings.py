"""Ranges and shares from which simulated scans are drawn.

Ranges are (least, largest); a log-uniform one is uniform in the logarithm.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from mrnets.errors import InputError
from mrnets.physics import masks

__all__ = ["Simulation", "check"]

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """The physics that is drawn, with ranges that real scans were found in."""

    examples: int = 1000
    """In an epoch."""
    matrix: tuple[int, int] = (64, 320)
    """Samples along an axis; log-uniform, multiples of 8."""
    aspect: float = 1.6
    """The longer axis over the shorter one, at most."""
    shapes: int = 24
    """Different matrices; each has its own masks."""
    layouts: int = 96
    """Different sizes of a batch: matrix, grid of the object and number of coils. Few, since a device prepares itself
    for each of them."""
    samples: int = 24 * 192 * 192 * 16
    """Most samples of k-space in a batch, of all coils: it has fewer slices where they are large."""
    coils: tuple[int, int] = (4, 32)
    """Log-uniform; one number for a batch."""
    shading: Range = (0.0, 1.0)
    """How much of the coils' intensity profile stays in the image: 0 none, as after a correction, 1 all of it."""
    distance: Range = (0.95, 1.4)
    """Distance of the coils from the centre, in half fields of view; log-uniform. Sensitivities of near coils differ
    more between neighbouring pixels."""
    arcs: float = 0.2
    """Share of slices whose coils surround the object only in part."""
    coupling: float = 0.4
    """How much noise of their neighbours coils receive, at most; the data are those after prewhitening."""
    snr: Range = (10.0, 3000.0)
    """Bright tissue over the standard deviation of complex noise in the combined, fully sampled image; log-uniform."""
    masks: tuple[str, ...] = tuple(masks.names())
    """Functions of `mrnets.physics.masks`."""
    masks_each: int = 48
    """Masks that are drawn in advance for each matrix; mirrored at random when they are used."""
    acceleration: Range = (2.0, 10.0)
    """Log-uniform."""
    calibration: tuple[int, int] = (12, 32)
    """Width of the fully sampled centre, in samples."""
    partial_fourier: float = 0.15
    """Share of masks with partial Fourier."""
    phantoms: float = 0.15
    """Share of slices that show ellipses, bottles and bars."""
    fill: Range = (0.45, 1.15)
    """Share of the grid that the object fills, along the axis where it fills more."""
    aligned: float = 0.3
    """Share of slices that keep the pixels of their source: neither turned by other than 90 degrees nor zoomed."""
    detail: Range = (1.2, 2.2)
    """How many times finer than the matrix the grid is on which the object is drawn."""
    grid: tuple[int, int] = (160, 352)
    """Pixels of the longer axis of that grid; never fewer than the matrix."""
    folded: float = 0.12
    """Share of batches whose object is larger than the field of view along y, and folds."""
    bright: float = 0.45
    """Share of slices whose scalp is brightened, by up to 3 to 6 times; likewise of those with bright vessels."""
    smooth_phase: float = 1.5
    """Largest standard deviation, rad, of the phase over the whole field of view."""
    local_phase: Range = (0.02, 0.4)
    """Standard deviation, rad, of the band-limited phase; log-uniform."""
    cut_off: Range = (4.0, 40.0)
    """Cut-off of the band-limited phase, in cycles over the field of view; log-uniform."""
    detail_phase: float = 3.0
    """Phase for the image's own detail: at most this many rad for a step as high as bright tissue."""
    fat_phase: float = 0.35
    """Share of slices whose outer layer, where fat lies, has a phase of its own."""
    dipoles: int = 4
    """Most disturbances of the field by air or vessels in a slice."""
    dipole_phase: Range = (0.2, 6.0)
    """Phase at the surface of such a disturbance, rad; log-uniform."""
    map_error: Range = (0.0002, 0.02)
    """Share of the energy that the maps leave unexplained by their error; log-uniform."""
    background: Range = (0.002, 0.1)
    """Low-resolution signal, relative to that of the object, below which maps fade out; log-uniform."""
    whole_maps: float = 0.3
    """Share of slices whose maps do not fade out."""


_LEAST = {"matrix": 16, "coils": 1, "acceleration": 1, "calibration": 6, "detail": 1, "shading": 0}
"""Least values of ranges. The other ranges must be above 0."""
_SHARES = ("arcs", "coupling", "partial_fourier", "phantoms", "aligned", "folded", "bright", "fat_phase", "whole_maps")
_COUNTS = ("examples", "shapes", "layouts", "samples", "masks_each")


def check(settings: Simulation) -> None:
    """Raise InputError for a range, a share or a number that cannot be."""
    for name in (field.name for field in fields(settings)):
        value = getattr(settings, name)
        if isinstance(value, tuple) and name != "masks":
            least = _LEAST.get(name, 1e-9)
            if not least <= value[0] <= value[1] < float("inf"):
                raise InputError(f"option simulation.{name} must be (least, largest) from {least:g} on, got {value}")
        elif name in _SHARES and not 0 <= value <= 1:
            raise InputError(f"option simulation.{name} must be from 0 to 1, got {value}")
        elif name in _COUNTS and value < 1:
            raise InputError(f"option simulation.{name} must be at least 1, got {value}")
