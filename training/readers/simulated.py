"""Simulated multi-coil scans of real anatomy, without end, with one echo or with several and relaxation.

Everything that a scanner varies is drawn: slice, orientation, contrast, matrix, coils, phase, noise, mask. The result
is a `Raw` as the gadgets sort it, which `mrnets.prepare` then prepares as on the scanner. Axes: see `mrnets.contract`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mrnets.contract import Raw
from mrnets.physics import masks, simulate
from mrnets.physics.coils import rss
from mrnets.physics.fourier import ifftc, resize
from mrnets.physics.relaxation import check_echo_times, signal
from training.data import Sample
from training.readers._tissue import random_b0, random_r2
from training.readers.anatomy import Volume, blurred, draw_image, load_folder
from training.readers.files import in_sentences
from training.settings import Simulated
from training.split import Part, Split

__all__ = ["Layout", "Reader", "Scans", "draw", "draw_layout", "scanned"]

LIKE = torch.zeros(1)
_REGION = 0.1
"""Pixels with less signal than this, relative to bright tissue, are background, whose maps mean nothing."""


@dataclass(frozen=True)
class Layout:
    """The grid and the coils of a scan."""

    shape: tuple[int, int]
    """The matrix, (y, x)."""
    coils: int
    detail: float
    """How much finer the object is than the matrix."""

    @property
    def fine(self) -> tuple[int, int]:
        """The grid (y, x) on which the object is drawn."""
        return int(self.detail * self.shape[0]), int(self.detail * self.shape[1])


@dataclass(frozen=True)
class Scans:
    """Random scans of the volumes of a folder. A scan depends on the generator only, not on its number."""

    folder: Path | None
    part: Part
    settings: Simulated
    labels: tuple[str, ...] = ()

    @property
    def subjects(self) -> tuple[str, ...]:
        return tuple(volume.name for volume in self._volumes())

    def __len__(self) -> int:
        return self.settings.examples

    def take(self, numbers: Sequence[int], rng: np.random.Generator) -> Sample:
        return draw(self._volumes(), self.settings, len(numbers), rng)

    def _volumes(self) -> tuple[Volume, ...]:
        """The volumes of this part. A folder without volumes for validation serves for both parts."""
        volumes = _loaded(self.folder)
        names = self.settings.validation_volumes
        held = [any(name in volume.name for name in names) for volume in volumes]
        if not any(held) or all(held):
            return volumes
        return tuple(v for v, aside in zip(volumes, held, strict=True) if aside == (self.part != "train"))


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Scans of the anatomy below a folder (.nii, .nii.gz, .cfl; None: the ICBM152 volume that comes with nilearn)."""

    settings: Simulated = field(default_factory=Simulated)
    """The distributions. `settings.validation_volumes` says what is for validation and test."""

    def read(self, folder: Path | None, part: Part, split: Split) -> Scans:
        """Return the scans of `part`; `split` is not looked at.

        Raises InputError for files that cannot be read and echo times that are none.
        """
        for times in self.settings.echo_times:
            check_echo_times(times, len(times), "option simulated.echo_times")
        _loaded(folder)
        return Scans(folder, part, self.settings)

    @in_sentences
    def check(self, folder: Path | None, split: Split) -> Iterator[str]:
        """Give a sentence for what makes the folder unusable. The volumes are few, and read."""
        self.read(folder, "train", split)
        return iter(())


@lru_cache(maxsize=1)
def _loaded(folder: Path | None) -> tuple[Volume, ...]:
    """Load the volumes once in each process, so that a source is small when it is sent to another one."""
    return tuple(load_folder(None if folder is None else str(folder)))


def draw(volumes: Sequence[Volume], settings: Simulated, batch: int, rng: np.random.Generator) -> Sample:
    """Return random slices of one random scan."""
    layout = draw_layout(settings, rng)
    weights = np.sqrt([min(len(v.data), 64) for v in volumes])
    chosen = rng.choice(len(volumes), size=batch, p=weights / weights.sum())
    if rng.random() < settings.phantoms:
        images = torch.stack([_ellipses(rng, layout.fine) for _ in chosen])
    else:
        images = torch.stack([draw_image(volumes[i], rng, layout.fine) for i in chosen])
    if settings.blur and rng.random() < 0.5:
        images = blurred(images, layout.detail * rng.uniform(0, settings.blur))
    sample = scanned(images, layout, settings, rng)
    return dataclasses.replace(sample, names=tuple(volumes[i].name for i in chosen))


def draw_layout(settings: Simulated, rng: np.random.Generator) -> Layout:
    """Return a random matrix, number of coils, and fineness of the object."""
    shape = (int(rng.choice(settings.matrix)), int(rng.choice(settings.matrix)))
    coils = round(float(np.exp(rng.uniform(*np.log(settings.coils)))))
    return Layout(shape, coils, float(rng.uniform(1.0, 1.5)))


def scanned(images: torch.Tensor, layout: Layout, settings: Simulated, rng: np.random.Generator) -> Sample:
    """Return a random scan of `images` (batch, *layout.fine), real, bright tissue 1, with the noise-free coil images.

    With `settings.echo_times` it has several echoes, and `region` says where there is signal. Its maps are those that
    fit the noise-free, fully sampled echoes. They contain the phase of the coils.
    """
    echoes, times = _echoes(images, settings, rng)
    sens = _sensitivities(rng, layout.coils, layout.fine)
    kspace = simulate.encode(echoes, sens, layout.shape)

    mask, width, readout = _mask(settings, layout.shape, len(images), rng)
    sigma = float(np.exp(rng.uniform(*np.log([1 / settings.snr[1], 1 / settings.snr[0]]))))
    covariance = sigma**2 * simulate.random_covariance(rng, layout.coils, coupling=rng.uniform(0, 0.4), like=LIKE)
    noisy = kspace + simulate.noise(rng, covariance, tuple(kspace.shape))
    sampled = torch.from_numpy(mask)[:, None, None]
    gain = float(np.exp(rng.uniform(-12, 12)))  # scanners' units differ by orders of magnitude
    raw = Raw(
        kspace=gain * noisy * sampled,
        mask=sampled,
        calibration=gain * resize(noisy[:, :1], width),
        echo_times=None if times is None else torch.tensor(times),
        noise=None if rng.random() < settings.without_noise_scan else gain**2 * covariance,
        readout=readout,
    )
    coil_images = ifftc(kspace)
    return Sample(
        names=("simulated",) * len(images),
        raw=raw,
        coil_images=gain * coil_images,
        region=None if times is None else rss(coil_images[:, 0]) > _REGION,
    )


def _echoes(
    images: torch.Tensor, settings: Simulated, rng: np.random.Generator
) -> tuple[torch.Tensor, tuple[float, ...] | None]:
    """(batch, echo, y, x) complex64, and the echo times; one echo without any where `settings` has none."""
    shape = (images.shape[-2], images.shape[-1])
    phases = torch.stack([simulate.random_phase(rng, shape, strength=rng.uniform(0, 2), like=LIKE) for _ in images])
    if not settings.echo_times:
        return (images * phases)[:, None], None
    protocol = settings.echo_times[int(rng.integers(len(settings.echo_times)))]
    stretch = float(np.exp(rng.uniform(*np.log(settings.echo_stretch))))
    times = tuple(stretch * t for t in protocol)
    most = float(np.exp(rng.uniform(*np.log(settings.off_resonance))))
    b0 = torch.stack([random_b0(image, most, float(np.diff(times).min()), rng) for image in images])
    r2 = torch.stack([random_r2(image, field, settings, rng) for image, field in zip(images, b0, strict=True)])
    return signal(torch.stack((r2, images, b0, phases.angle()), dim=1), torch.tensor(times)), times


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
    kind = masks.kind(str(rng.choice(settings.masks)))
    plane = kind.axes == 2
    acceleration = float(np.exp(rng.uniform(*np.log(settings.acceleration))))
    room = 0.6 * shape[0] / acceleration
    if plane:
        room = min((0.5 * shape[0] * shape[1] / acceleration) ** 0.5, *shape)
    least, largest = settings.calibration
    centre = int(rng.integers(least, max(min(largest, int(room)), least), endpoint=True))
    if kind.by_distance:
        acceleration = float(np.clip(round(acceleration), 2, 6))
    elif not plane:
        acceleration = min(acceleration, shape[0] / (1.3 * centre))
    drawn = np.stack([kind.draw(shape, acceleration, rng, centre=centre) for _ in range(batch)])
    if rng.random() < settings.partial_fourier:
        most = 0.5 - (centre / 2 + 1) / shape[0]
        drawn = masks.partial_fourier(drawn, rng.uniform(0.05, max(min(0.35, most), 0.06)))
    return drawn, masks.calibration_region(drawn), None if plane else "x"
