"""Noise-free k-space of the object, as the coils of the scanner see it.

Axes: k-space (echo, coil, y, x) of a slice or partition, x oversampled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gadgets.simulate.objects import planes
from gadgets.simulate.settings import ORIENTATIONS, Settings, echo_times, heights
from mrnets.physics import simulate
from mrnets.physics.coils import mix, rss
from mrnets.physics.fourier import fftc, ifftc, resize

__all__ = ["spectra"]

Complex = NDArray[np.complex64]
Real = NDArray[np.float32]

DETAIL = 1.25
"""The object has this many times the resolution of the matrix, so that k-space is cut off as a scanner cuts it."""
OFF_RESONANCE = 40.0
"""Hz, of a phase of one radian."""
DECAY = 20.0
"""1/s: R2* of air. Bright tissue has twice that; any map with edges will do."""
CORRECTED = 0.7
"""How much of the fall-off away from the coils is corrected, as scanners do."""


def spectra(settings: Settings, rng: np.random.Generator, whiten: Complex, reference: list[Real]) -> Iterator[Complex]:
    """Noise-free k-space of each slice or partition in turn.

    reference: gets the root sum of squares (echo, y, x) of the coil images of each, prewhitened by `whiten`.
    """

    def combined(kspace: Complex) -> Real:
        return np.asarray(rss(mix(whiten, resize(ifftc(kspace), (settings.matrix, settings.matrix)))))

    if not settings.three_d:
        for kspace in _seen(settings, rng, heights(settings)):
            reference.append(combined(kspace))
            yield kspace
        return
    fine = round(DETAIL * settings.slices)
    depth = settings.thickness * settings.slices
    slab = (np.arange(fine) - fine // 2) * depth / fine + settings.offset
    volume = fftc(np.stack(list(_seen(settings, rng, slab))), axes=(0,))
    volume = resize(volume, (settings.slices,), axes=(0,)) * np.float32(math.sqrt(settings.slices / fine))
    reference.extend(combined(partition) for partition in ifftc(volume, axes=(0,)))
    yield from volume


def _seen(settings: Settings, rng: np.random.Generator, where: NDArray[np.float64]) -> Iterator[Complex]:
    """k-space of the planes at the heights `where`, mm."""
    loops, field = _receivers(settings, rng)
    ny = nx = settings.matrix
    fine = (round(DETAIL * ny), round(DETAIL * nx))
    wide = (fine[0], fine[1] * settings.oversampling)
    phase = simulate.random_phase(rng, fine)
    off_resonance = OFF_RESONANCE * np.angle(simulate.random_phase(rng, fine, strength=0.3))
    times = echo_times(settings)[:, None, None]
    for z, image in zip(where, planes(settings, where, fine), strict=True):
        signal = image * phase * np.exp(times * (2j * np.pi * off_resonance - DECAY * (1 + image)))
        sens = simulate.sensitivities(loops, fine, z=2 * float(z) / settings.fov, field=field)
        sens = sens * rss(sens) ** -CORRECTED
        seen = resize(signal.astype(np.complex64), wide)
        yield simulate.encode(seen, resize(sens, wide), (ny, nx * settings.oversampling))


def _receivers(settings: Settings, rng: np.random.Generator) -> tuple[simulate.Loops, tuple[float, ...]]:
    """Coils on rings around the axis of the scanner's bore, and the direction of its field, in the axes of the scan."""
    turn = np.array(ORIENTATIONS[settings.orientation])
    loops = simulate.random_loops(rng, settings.coils)
    field = turn @ np.array([0.0, 0.0, 1.0])
    return replace(loops, centre=loops.centre @ turn.T, normal=loops.normal @ turn.T), tuple(field)
