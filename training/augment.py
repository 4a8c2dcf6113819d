"""Augmentation: slices as they might have been, with everything that belongs to them. Axes: see `mrnets.contract`.

Scans are augmented before they are masked, through their coil images. What moves (flips, turns, crops) and which coils
stay is drawn once for a batch; intensity, phase and noise for each of its elements.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch

from mrnets.contract import Raw
from mrnets.physics import simulate
from mrnets.physics.arrays import Array
from mrnets.physics.coils import rss
from mrnets.physics.fourier import fftc, ifftc
from training.data import Sample
from training.options import Augmentation
from training.planes import Move, fully_sampled, moved

__all__ = ["augmented"]

OFF = Augmentation()


def augmented(sample: Sample, settings: Augmentation, rng: np.random.Generator) -> Sample:
    """`sample` as `settings` say; itself where all is off, or where its raw data are sampled already (simulated scans).

    Scans with gaps in k-space, and those with a mask of their own, are not cropped: their sampling has no meaning in a
    smaller field of view. Scans whose readout is in the plane are turned by 180 degrees only. The exponent of the
    intensity acts on all echoes alike, so that R2* and B0 stay. Noise is added to what is measured, not to the target
    (and so not to scans with gaps, which have no other); it has the covariance of the noise measurement, or is white.
    """
    if settings == OFF or (sample.raw is not None and sample.coil_images is not None):
        return sample
    sample = _with_move(sample, settings, rng)
    if sample.raw is None:
        return _image(sample, settings, rng)
    if settings.coils < 1:
        sample = _with_coils(sample, settings.coils, rng)
    if settings.intensity != OFF.intensity:
        sample = _with_intensity(sample, settings.intensity, rng)
    if settings.phase > 0:
        sample = _with_phase(sample, settings.phase, rng)
    if settings.noise != OFF.noise and fully_sampled(sample):
        sample = _with_noise(sample, settings.noise, rng)
    return sample


def _with_move(sample: Sample, settings: Augmentation, rng: np.random.Generator) -> Sample:
    """Flipped, turned and cropped."""
    flips = [axis for axis in (-2, -1) if settings.flips and rng.random() < 0.5]
    turns = int(rng.integers(4)) if settings.rotations else 0
    if sample.raw is not None and sample.raw.readout == "x":
        turns -= turns % 2
    if flips or turns:
        sample = _moved_with_masks(sample, lambda x: x.flip(flips).rot90(turns, (-2, -1)), flips, turns)
    if settings.crop < 1:
        share = rng.uniform(settings.crop, 1, 2)
        offset = rng.random(2)
        if sample.mask is None and (sample.raw is None or fully_sampled(sample)):
            sample = _cropped(sample, share, offset)
    return sample


def _moved_with_masks(sample: Sample, move: Move, flips: list[int], turns: int) -> Sample:
    """Masks go with k-space, where each frequency goes to its negative: index n // 2 stays."""

    def in_kspace(mask: Array) -> Array:
        return _turned(_reversed(mask, flips), turns)

    done = moved(sample, move)
    raw = done.raw
    if raw is not None:
        mask = in_kspace(raw.mask)
        raw = dataclasses.replace(raw, mask=mask, kspace=raw.kspace * mask, calibration=None)
    return dataclasses.replace(done, raw=raw, mask=None if sample.mask is None else in_kspace(sample.mask))


def _reversed(mask: Array, axes: list[int]) -> Array:
    """The value at n // 2 + f of each axis, at n // 2 - f."""
    return mask.flip(axes).roll([1 - mask.shape[axis] % 2 for axis in axes], axes) if axes else mask


def _turned(mask: Array, turns: int) -> Array:
    """`rot90` about the index n // 2: a transposition and a reversal of an axis for each turn."""
    for _ in range(turns):
        mask = _reversed(mask.transpose(-2, -1), [-2])
    return mask


def _cropped(sample: Sample, share: Array, offset: Array) -> Sample:
    """A window of `share` of each axis, `offset` (0 to 1) into the room that is left."""
    planes = sample.image if sample.raw is None else sample.raw.kspace
    assert planes is not None
    window: list[slice] = []
    for n, part, where in zip(planes.shape[-2:], share, offset, strict=True):
        kept = max(math.ceil(n * part), 1)
        start = int(where * (n - kept + 1))
        window.append(slice(start, start + kept))
    done = moved(sample, lambda x: x[..., window[0], window[1]])
    if done.raw is None:
        return done
    full = torch.ones((len(done.names), 1, 1, *done.raw.kspace.shape[-2:]), dtype=torch.bool, device=planes.device)
    return dataclasses.replace(done, raw=dataclasses.replace(done.raw, mask=full, calibration=None))


def _with_coils(sample: Sample, least: float, rng: np.random.Generator) -> Sample:
    """A random subset of the coils. Given sensitivities have norm 1 again; the object takes up what that changes."""
    raw = sample.raw
    assert raw is not None
    coils = raw.kspace.shape[-3]
    count = max(math.ceil(coils * rng.uniform(least, 1)), 1)
    kept = torch.from_numpy(np.sort(rng.choice(coils, count, replace=False))).to(raw.kspace.device)
    kspace = raw.kspace.index_select(-3, kept)
    sens = None if raw.sens is None else raw.sens.index_select(-3, kept)
    if sens is None:
        seen = rss(ifftc(kspace[:, 0])) / _positive(rss(ifftc(raw.kspace[:, 0])))
    else:
        seen = rss(sens[:, 0])
        sens = sens / _positive(seen)[:, None, None]
    calibration = None if raw.calibration is None else raw.calibration.index_select(-3, kept)
    noise = None if raw.noise is None else raw.noise[kept][:, kept]
    raw = dataclasses.replace(raw, kspace=kspace, sens=sens, calibration=calibration, noise=noise)
    return dataclasses.replace(sample, raw=raw, maps=_with_s0(sample, seen))


def _with_intensity(sample: Sample, exponents: tuple[float, float], rng: np.random.Generator) -> Sample:
    """The magnitude to a power, its maximum kept, by one real factor for all echoes and coils."""
    raw = sample.raw
    assert raw is not None
    magnitude = _combined(raw)
    relative = magnitude / _peak(magnitude)
    powers = _each(rng.uniform(*exponents, len(relative)), relative)
    factor = torch.where(relative > 0, relative ** (powers - 1), torch.zeros_like(relative))
    return dataclasses.replace(_times(sample, factor), maps=_with_s0(sample, factor))


def _with_phase(sample: Sample, largest: float, rng: np.random.Generator) -> Sample:
    """A smooth phase, the same for all echoes: B0 stays, the phase at the echo time 0 does not."""
    assert sample.raw is not None
    shape = tuple(sample.raw.kspace.shape[-2:])
    phases = [
        simulate.random_phase(rng, shape, strength=rng.uniform(0, largest), like=sample.raw.kspace)
        for _ in sample.names
    ]
    phase = torch.stack(phases)
    maps = {
        name: torch.angle(torch.polar(torch.ones_like(m), m) * phase) if name == "phase" else m
        for name, m in sample.maps.items()
    }
    return dataclasses.replace(_times(sample, phase), maps=maps)


def _with_noise(sample: Sample, levels: tuple[float, float], rng: np.random.Generator) -> Sample:
    """Complex noise of mean variance (level * peak)^2 in each coil; the coil images without it are the target."""
    raw = sample.raw
    assert raw is not None
    peak = _peak(_combined(raw))[:, 0, 0]
    sigma = _each(rng.uniform(*levels, len(peak)), peak)[:, 0, 0] * peak
    eye = torch.eye(raw.kspace.shape[-3], dtype=raw.kspace.dtype, device=raw.kspace.device)
    shape = eye if raw.noise is None else raw.noise / raw.noise.diagonal().real.mean()
    added = simulate.noise(rng, shape, tuple(raw.kspace.shape)) * sigma[:, None, None, None, None]
    noise = None if raw.noise is None else raw.noise + shape * sigma.square().mean()
    noisy = dataclasses.replace(raw, kspace=raw.kspace + added, noise=noise, calibration=None)
    return dataclasses.replace(sample, raw=noisy, coil_images=ifftc(raw.kspace))


def _image(sample: Sample, settings: Augmentation, rng: np.random.Generator) -> Sample:
    """Intensity and noise of images without raw data, for each contrast of its own; the sign of values is kept."""
    image = sample.image
    assert image is not None
    size = image.shape[:2]
    flat = image.reshape(*size, -1)
    peak = _positive(flat.abs().amax(-1, keepdim=True))
    if settings.intensity != OFF.intensity:
        powers = torch.as_tensor(rng.uniform(*settings.intensity, size), dtype=flat.dtype, device=flat.device)
        flat = flat.sign() * (flat.abs() / peak) ** powers[..., None] * peak
    if settings.noise != OFF.noise:
        sigma = torch.as_tensor(rng.uniform(*settings.noise, size), dtype=flat.dtype, device=flat.device)[..., None]
        added = rng.standard_normal(tuple(flat.shape), dtype=np.float32)
        flat = flat + torch.as_tensor(added, dtype=flat.dtype, device=flat.device) * sigma * peak
    return dataclasses.replace(sample, image=flat.reshape(image.shape))


def _times(sample: Sample, factor: Array) -> Sample:
    """Coil images times `factor` (batch, y, x)."""
    raw = sample.raw
    assert raw is not None
    kspace = fftc(ifftc(raw.kspace) * factor[:, None, None]) * raw.mask
    return dataclasses.replace(sample, raw=dataclasses.replace(raw, kspace=kspace, calibration=None))


def _with_s0(sample: Sample, factor: Array) -> dict[str, Array]:
    return {name: m * factor if name == "S0" else m for name, m in sample.maps.items()}


def _combined(raw: Raw) -> Array:
    """(batch, y, x): magnitude of the first echo, all coils together."""
    return rss(ifftc(raw.kspace[:, 0]))


def _peak(magnitude: Array) -> Array:
    """(batch, 1, 1): the largest; 1 for an empty slice."""
    return _positive(magnitude.amax((-2, -1), keepdim=True))


def _positive(x: Array) -> Array:
    """`x` of at least 0 as a divisor: 1 where it is 0."""
    return torch.where(x > 0, x, torch.ones_like(x))


def _each(values: Array, like: Array) -> Array:
    """One value for each element of the batch, (batch, 1, 1)."""
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)[:, None, None]
