"""Simulated multi-coil scans of real anatomy, without end: example n of a run is the same whenever it is asked for.

Everything that a scanner varies is drawn: slice, orientation, contrast, matrix, coils, phase, noise, mask. What comes
out is a `Raw` as the gadgets sort it; preparing it is `mrnets.prepare`'s, the same code as on the scanner.
Axes: see `mrnets.contract`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mrnets.contract import Raw, Scan
from mrnets.physics import masks, simulate
from mrnets.physics.arrays import Array
from mrnets.physics.coils import sense_combine
from mrnets.physics.fourier import fftc, ifftc, resize
from mrnets.prepare import Preparation, prepare
from training.options import Simulated
from training.readers.anatomy import Volume, blurred, draw_image

__all__ = ["Example", "draw", "example", "prepared"]

LIKE = torch.zeros(1)


@dataclass(frozen=True)
class Example:
    """What the loop takes: a batch."""

    scan: Scan
    target: Array
    """(batch, echo, y, x) complex64, in the scale of `scan`."""
    scale: Array
    """(batch,)."""


def example(
    volumes: list[Volume], settings: Simulated, preparation: Preparation, batch: int, rng: np.random.Generator
) -> Example:
    """A batch of slices seen by the same coils, with masks of one kind.

    Drawn again where the calibration lines do not carry the sensitivities (few lines, many coils, much noise): such a
    scan has most of the object cut out of its maps, and teaches nothing.
    """
    while True:
        raw, coil_images = draw(volumes, settings, batch, rng)
        result, kept = prepared(raw, coil_images, preparation)
        if kept > 0.9:
            return result


def prepared(raw: Raw, coil_images: Array, preparation: Preparation) -> tuple[Example, float]:
    """`raw` and its noise-free, fully sampled coil images (batch, echo, coil, y, x), both prepared alike.

    The coil images travel as a second echo, so that whatever mixes the coils of the one mixes those of the other. The
    target is their optimal combination with the sensitivities that the network gets. Also returns the share of the
    coil images' energy that these explain, the least of the batch.
    """
    both = dataclasses.replace(raw, kspace=torch.cat((raw.kspace, fftc(coil_images)), dim=1))
    scan = prepare(both, dataclasses.replace(preparation, normalisation="none")).scan
    echoes = raw.kspace.shape[1]
    assert scan.kspace is not None
    mixed = dataclasses.replace(
        raw,
        kspace=scan.kspace[:, :echoes],
        calibration=scan.calibration,
        sens=scan.sens,
        noise=None,
        whitened=preparation.whiten != "none",
        compressed=None if scan.kspace.shape[-3] == raw.kspace.shape[-3] else preparation.compression,
        sens_method="given",
    )
    ready = prepare(mixed, preparation)
    full = ifftc(scan.kspace[:, echoes:])
    target = sense_combine(full, scan.sens)
    explained = torch.sum(target.abs() ** 2, dim=(1, 2, 3)) / torch.sum(full.abs() ** 2, dim=(1, 2, 3, 4))
    return Example(ready.scan, target / ready.scale[:, None, None, None], ready.scale), float(explained.min())


def draw(volumes: list[Volume], settings: Simulated, batch: int, rng: np.random.Generator) -> tuple[Raw, Array]:
    """A random scan, and its noise-free, fully sampled coil images (batch, 1, coil, y, x)."""
    shape = (int(rng.choice(settings.matrix)), int(rng.choice(settings.matrix)))
    coils = round(float(np.exp(rng.uniform(*np.log(settings.coils)))))
    detail = rng.uniform(1.0, 1.5)
    fine = (int(detail * shape[0]), int(detail * shape[1]))
    weights = np.sqrt([min(len(v.data), 64) for v in volumes])
    chosen = rng.choice(len(volumes), size=batch, p=weights / weights.sum())
    if rng.random() < settings.phantoms:
        images = torch.stack([_ellipses(rng, fine) for _ in chosen])
    else:
        images = torch.stack([draw_image(volumes[i], rng, fine) for i in chosen])
    if settings.blur and rng.random() < 0.5:
        images = blurred(images, detail * rng.uniform(0, settings.blur))
    phases = [simulate.random_phase(rng, fine, strength=rng.uniform(0, 2), like=LIKE) for _ in chosen]
    sens = _sensitivities(rng, coils, fine)
    kspace = simulate.encode(images * torch.stack(phases), sens, shape)

    mask, width, readout = _mask(settings, shape, batch, rng)
    sigma = float(np.exp(rng.uniform(*np.log([1 / settings.snr[1], 1 / settings.snr[0]]))))
    covariance = sigma**2 * simulate.random_covariance(rng, coils, coupling=rng.uniform(0, 0.4), like=LIKE)
    noisy = kspace + simulate.noise(rng, covariance, tuple(kspace.shape))
    sampled = torch.from_numpy(mask)[:, None, None]
    region = [min(n, m) for n, m in zip(width, shape, strict=True)]
    gain = float(np.exp(rng.uniform(-12, 12)))  # scanners' units differ by orders of magnitude
    raw = Raw(
        kspace=gain * noisy[:, None] * sampled,
        mask=sampled,
        calibration=gain * resize(noisy, region)[:, None],
        noise=None if rng.random() < settings.without_noise_scan else gain**2 * covariance,
        readout=readout,
    )
    return raw, gain * ifftc(kspace)[:, None]


def _ellipses(rng: np.random.Generator, shape: tuple[int, int]) -> torch.Tensor:
    """A body with a bright rim and ellipses of any contrast in it; (y, x) float32, 0 to 1."""
    x, y = rng.uniform(0.45, 0.9, 2)
    rim, inside = rng.uniform(0.01, 0.08), rng.uniform(0.1, 0.6)
    turn = rng.uniform(0, 360)
    body = [(1.0, x, y, 0.0, 0.0, turn), (inside - 1.0, x - rim, y - rim, 0.0, 0.0, turn)]
    parts = [
        (rng.uniform(-inside, 1 - inside), *rng.uniform(0.02, 0.35, 2), *rng.uniform(-0.5, 0.5, 2), rng.uniform(0, 360))
        for _ in range(rng.integers(2, 10))
    ]
    return simulate.phantom(shape, [*body, *parts], supersampling=2, like=LIKE).clamp(0, 1)


def _sensitivities(rng: np.random.Generator, coils: int, shape: tuple[int, int]) -> Any:
    """Coils around a slice in any orientation to the main field and at any height, with root sum of squares of 1.

    Scanners correct the intensity of surface coils, and the anatomy is of such images; some of the fall-off is kept.
    """
    loops = simulate.random_loops(rng, coils, distance=rng.uniform(1.15, 1.7))
    field = rng.standard_normal(3) if rng.random() < 0.5 else np.array([0.0, 0.0, 1.0])
    sens = simulate.sensitivities(loops, shape, z=rng.uniform(-0.4, 0.4), field=tuple(field), like=LIKE)
    power = torch.sum(sens.abs() ** 2, dim=0)
    return sens * power ** (-0.5 * rng.uniform(0.3, 1.0))


def _mask(
    settings: Simulated, shape: tuple[int, int], batch: int, rng: np.random.Generator
) -> tuple[Any, tuple[int, int], Any]:
    """Masks (batch, y, x), the block of k-space that all of them sample fully, and the fully sampled axis."""
    name = str(rng.choice(settings.masks))
    plane = name.endswith("2d")
    acceleration = float(np.exp(rng.uniform(*np.log(settings.acceleration))))
    room = 0.6 * shape[0] / acceleration
    if plane:
        room = min((0.5 * shape[0] * shape[1] / acceleration) ** 0.5, *shape)
    least, largest = settings.calibration
    centre = int(rng.integers(least, max(min(largest, int(room)), least), endpoint=True))
    if name == "regular1d":
        acceleration = float(np.clip(round(acceleration), 2, 6))
    elif not plane:
        acceleration = min(acceleration, shape[0] / (1.3 * centre))
    make = getattr(masks, name)
    drawn = np.stack([make(shape, acceleration, rng, centre=centre) for _ in range(batch)])
    if rng.random() < settings.partial_fourier:
        most = 0.5 - (centre / 2 + 1) / shape[0]
        drawn = masks.partial_fourier(drawn, rng.uniform(0.05, max(min(0.35, most), 0.06)))
    width = masks.calibration_region(drawn)
    return drawn, (min(width[0], 48), min(width[1], 48)), None if plane else "x"
