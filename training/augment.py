"""Augmentation: random changes of slices, and of everything that belongs to them. Axes: see `mrnets.contract`.

Scans are changed before they are masked, through their coil images. Flips, turns, crops and the choice of coils are
drawn once for a batch. Intensity, phase and noise are drawn for each of its elements.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch

from mrnets.contract import Raw
from mrnets.physics import simulate
from mrnets.physics.arrays import Array
from mrnets.physics.coils import rss
from mrnets.physics.fourier import fftc, ifftc, resize
from mrnets.physics.maps import scaled, turned
from training.data import Sample
from training.motion import corrupted
from training.planes import Move, fully_sampled, moved_planes
from training.settings import Augmentation

__all__ = ["augmented"]

OFF = Augmentation()


def augmented(sample: Sample, settings: Augmentation, rng: np.random.Generator) -> Sample:
    """Return `sample` as `settings` say; itself where all is off, or where its raw data are sampled already.

    Scans with gaps in k-space, and those with a mask of their own, are not cropped. Their sampling has no meaning in a
    smaller field of view. Nor do they get another intensity or phase, because a factor in the image mixes samples with
    gaps. Scans whose readout is in the plane are turned by 180 degrees only. The exponent of the intensity acts on all
    echoes alike, so that R2* and B0 stay. Noise is added to what is measured, not to the target. It has the covariance
    of the noise measurement, or is white. Scans with gaps get none, because what is measured is their target.
    """
    if settings == OFF or (sample.raw is not None and sample.coil_images is not None):
        return sample
    if sample.raw is None:
        return _image(_with_move(sample, settings, rng), settings, rng)
    sample = dataclasses.replace(sample, coil_images=ifftc(sample.raw.kspace))  # k-space follows at the end
    sample = _with_move(sample, settings, rng)
    if settings.coils < 1:
        sample = _with_coils(sample, settings.coils, rng)
    if settings.intensity != OFF.intensity and fully_sampled(sample):
        sample = _with_intensity(sample, settings.intensity, rng)
    if settings.phase > 0 and fully_sampled(sample):
        sample = _with_phase(sample, settings.phase, rng)
    return _measured(sample, settings, rng)


def _measured(sample: Sample, settings: Augmentation, rng: np.random.Generator) -> Sample:
    """Give the sample k-space of its coil images, with motion and noise.

    The mean variance of the noise in each coil is (level * peak)^2. The coil images stay as the target. Scans with gaps
    get no motion and no noise, and lose the coil images.
    """
    raw, images = sample.raw, sample.coil_images
    assert raw is not None
    assert images is not None
    if not fully_sampled(sample):
        kspace = fftc(images) * raw.mask
        return dataclasses.replace(sample, coil_images=None, raw=dataclasses.replace(raw, kspace=kspace))
    kspace, noise, levels = corrupted(images, settings.motion, rng), raw.noise, settings.noise
    if levels != OFF.noise:
        peak = _peak(rss(images[:, 0]))[:, 0, 0]
        sigma = _each(rng.uniform(*levels, len(peak)), peak)[:, 0, 0] * peak
        eye = torch.eye(kspace.shape[-3], dtype=kspace.dtype, device=kspace.device)
        shape = eye if noise is None else noise / noise.diagonal().real.mean()
        kspace = kspace + simulate.noise(rng, shape, tuple(kspace.shape)) * sigma[:, None, None, None, None]
        noise = None if noise is None else noise + shape * sigma.square().mean()
    return dataclasses.replace(sample, raw=dataclasses.replace(raw, kspace=kspace, noise=noise))


def _with_move(sample: Sample, settings: Augmentation, rng: np.random.Generator) -> Sample:
    """Flip, turn and crop the sample."""
    flips = [axis for axis in (-2, -1) if settings.flips and rng.random() < 0.5]
    turns = int(rng.integers(4)) if settings.rotations else 0
    if sample.raw is not None and sample.raw.readout == "x":
        turns -= turns % 2
    if flips or turns:
        sample = _moved(
            sample,
            lambda x: x.flip(flips).rot90(turns, (-2, -1)),
            lambda mask: _turned(_reversed(mask, flips), turns),
        )
    if settings.crop < 1:
        share, offset = rng.uniform(settings.crop, 1, 2), rng.random(2)
        if sample.mask is None and (sample.raw is None or fully_sampled(sample)):
            window = _window(sample, share, offset)
            sample = _moved(sample, lambda x: x[window], lambda mask: mask[window])
    return sample


def _moved(sample: Sample, move: Move, masks: Move) -> Sample:
    """Move everything that has pixels by `move`, and all masks by `masks`."""
    done = moved_planes(sample, move)
    raw = sample.raw
    if raw is None:
        return done
    sens = None if raw.sens is None else move(raw.sens)
    block = None if raw.calibration is None or fully_sampled(sample) else _block_moved(raw, move)
    raw = dataclasses.replace(raw, mask=masks(raw.mask), sens=sens, calibration=block)
    return dataclasses.replace(done, raw=raw, mask=None if sample.mask is None else masks(sample.mask))


def _block_moved(raw: Raw, move: Move) -> Array:
    """The calibration of `raw`, moved as its images are; of odd size, so that frequencies have their opposites."""
    assert raw.calibration is not None
    odd = [n - 1 + n % 2 for n in raw.calibration.shape[-2:]]
    block = resize(raw.calibration, odd)
    inside = move(torch.zeros(odd))
    return resize(fftc(move(ifftc(resize(block, raw.kspace.shape[-2:])))), inside.shape)


def _reversed(mask: Array, axes: list[int]) -> Array:
    """Move the value at index n // 2 + f to n // 2 - f, as k-space moves when the image is flipped."""
    return mask.flip(axes).roll([1 - mask.shape[axis] % 2 for axis in axes], axes) if axes else mask


def _turned(mask: Array, turns: int) -> Array:
    """`rot90` about the index n // 2: a transposition and a reversal of an axis for each turn."""
    for _ in range(turns):
        mask = _reversed(mask.transpose(-2, -1), [-2])
    return mask


def _window(sample: Sample, share: Array, offset: Array) -> tuple[Any, ...]:
    """Return the index of `share` of each axis. `offset`, from 0 to 1, says where it lies in the room that is left."""
    planes = sample.image if sample.raw is None else sample.coil_images
    assert planes is not None
    kept = [max(math.ceil(n * part), 1) for n, part in zip(planes.shape[-2:], share, strict=True)]
    start = [int(where * (n - m + 1)) for n, m, where in zip(planes.shape[-2:], kept, offset, strict=True)]
    return (..., *(slice(first, first + m) for first, m in zip(start, kept, strict=True)))


def _with_coils(sample: Sample, least: float, rng: np.random.Generator) -> Sample:
    """Keep a random subset of the coils. Given sensitivities get norm 1 again, and the object changes by the same
    factor."""
    raw, before = sample.raw, sample.coil_images
    assert raw is not None
    assert before is not None
    coils = before.shape[-3]
    count = max(math.ceil(coils * rng.uniform(least, 1)), 1)
    kept = torch.from_numpy(np.sort(rng.choice(coils, count, replace=False))).to(before.device)
    images = before.index_select(-3, kept)
    sens = None if raw.sens is None else raw.sens.index_select(-3, kept)
    if sens is None:
        seen = rss(images[:, 0]) / _positive(rss(before[:, 0]))
    else:
        seen = rss(sens[:, 0])
        sens = sens / _positive(seen)[:, None, None]
    noise = None if raw.noise is None else raw.noise[kept][:, kept]
    block = None if raw.calibration is None or fully_sampled(sample) else raw.calibration.index_select(-3, kept)
    raw = dataclasses.replace(raw, sens=sens, calibration=block, noise=noise)
    return dataclasses.replace(sample, raw=raw, coil_images=images, maps=scaled(sample.maps, seen))


def _with_intensity(sample: Sample, exponents: tuple[float, float], rng: np.random.Generator) -> Sample:
    """Raise the magnitude to a power and keep its maximum, by one real factor for all echoes and coils."""
    assert sample.coil_images is not None
    magnitude = rss(sample.coil_images[:, 0])
    relative = magnitude / _peak(magnitude)
    powers = _each(rng.uniform(*exponents, len(relative)), relative)
    factor = torch.where(relative > 0, relative ** (powers - 1), torch.zeros_like(relative))
    return dataclasses.replace(_times(sample, factor), maps=scaled(sample.maps, factor))


def _with_phase(sample: Sample, largest: float, rng: np.random.Generator) -> Sample:
    """Add a smooth phase, the same for all echoes. B0 stays, and the phase at the echo time 0 changes."""
    images = sample.coil_images
    assert images is not None
    shape = (images.shape[-2], images.shape[-1])
    phase = torch.stack(
        [simulate.random_phase(rng, shape, strength=rng.uniform(0, largest), like=images) for _ in sample.names]
    )
    return dataclasses.replace(_times(sample, phase), maps=turned(sample.maps, phase))


def _image(sample: Sample, settings: Augmentation, rng: np.random.Generator) -> Sample:
    """Change intensity and noise of images without raw data, for each contrast separately. Values keep their sign."""
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
    assert sample.raw is not None
    assert sample.coil_images is not None
    raw = dataclasses.replace(sample.raw, calibration=None)
    return dataclasses.replace(sample, raw=raw, coil_images=sample.coil_images * factor[:, None, None])


def _peak(magnitude: Array) -> Array:
    """(batch, 1, 1): the largest; 1 for an empty slice."""
    return _positive(magnitude.amax((-2, -1), keepdim=True))


def _positive(x: Array) -> Array:
    """Make `x`, which is at least 0, a divisor: 1 where it is 0."""
    return torch.where(x > 0, x, torch.ones_like(x))


def _each(values: Array, like: Array) -> Array:
    """One value for each element of the batch, (batch, 1, 1)."""
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)[:, None, None]
