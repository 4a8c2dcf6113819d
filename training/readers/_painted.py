"""Slices of random contrast, drawn from label maps in batches on their device (Billot et al., SynthSeg, 2023).

Each label gets a random intensity. The slice is blurred, shaded and made noisy as a scanner would do it. Values
of a whole slice are drawn on the host, so that a batch has the same slices on every device. Those of pixels are drawn
on the device.
Axes: slab (batch, plane, y, x), image (batch, y, x). Distances in mm.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from mrnets.errors import InputError
from mrnets.physics.fourier import fftc, ifftc, resize
from training.readers._heads import AROUND, CLASSES, Heads, class_of, tissue_of
from training.settings import Range
from training.simulation import fields
from training.simulation.draws import Draws

__all__ = ["OVERSAMPLED", "Look", "Painted", "check", "measured", "painted"]

Values = NDArray[np.floating[Any]]
Plane = tuple[int, int]

OVERSAMPLED = 2
"""Points along each axis for a pixel."""
PLANES = 3
"""Points through a slice."""
_TEXTURE = 12
"""Half cycles over the field of view of the slow part of a texture."""
_FOLDED = (8, 47)
"""Labels of cerebellar cortex. White matter branches in it, more finely than label maps show."""
_BRANCHES = (4.0, 12.0)
"""Distance of such branches, mm."""
_CYCLES = 48
"""Cycles over the field of view of the finest branches, at most."""
_MARGIN = 12
"""Pixels around a brain that a mask may leave, at most."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """The distributions of slices; ranges are (least, largest)."""

    view: Range = (160.0, 300.0)
    """Field of view, mm; log-uniform. The pixels follow from `simulated.matrix`."""
    thickness: Range = (0.8, 4.0)
    """Thickness of a slice, mm; log-uniform."""
    tilt: float = 8.0
    """Standard deviation of the angles between slices and the axes of the volume, degrees."""
    bend: float = 3.0
    """Largest standard deviation of the smooth displacement that gives each head another shape, mm."""
    t1: float = 0.6
    """Share of slices with the contrast of T1-weighting: white above grey matter, and grey above CSF."""
    stripped: float = 0.5
    """Share of slices that show the brain alone."""
    margin: Range = (-1.0, 6.0)
    """Margin that a stripped slice shows around grey and white matter, mm."""
    shading: Range = (0.0, 0.5)
    """Standard deviation of the logarithm of the bias field."""
    blur: Range = (0.0, 1.2)
    """Standard deviation of a blur beside that of the matrix, pixels; a third of the slices have none and ring."""
    noise: Range = (0.0, 0.06)
    """Standard deviation of complex noise, relative to the brightest tissue of the brain."""


_LEAST = {"view": 1.0, "thickness": 0.01, "margin": -100.0}
"""Least values of ranges. The others must be at least 0."""
_MOST = {"t1": 1.0, "stripped": 1.0, "tilt": 90.0, "bend": 100.0}
"""Largest values of single numbers, which must be at least 0."""


def check(look: Look) -> None:
    """Raise InputError for a range, a share or a spread that cannot be."""
    for name in (f.name for f in dataclasses.fields(Look)):
        value = getattr(look, name)
        if isinstance(value, tuple):
            least = _LEAST.get(name, 0.0)
            if not least <= value[0] <= value[1]:
                raise InputError(f"option look.{name} must be (least, largest) from {least:g} on, got {value}")
        elif not 0 <= value <= _MOST[name]:
            raise InputError(f"option look.{name} must be from 0 to {_MOST[name]:g}, got {value:g}")


@dataclass(frozen=True)
class Painted:
    """Slices before a scanner measures them."""

    chosen: NDArray[np.int64]
    """(batch,): the numbers of their heads."""
    image: torch.Tensor
    """(batch, y, x) float32 on the fine grid; the brightest tissue of a brain is about 1."""
    labels: torch.Tensor
    """(batch, class, y, x) bool, of pixels."""


def painted(heads: Heads, shape: Plane, look: Look, count: int, rng: np.random.Generator) -> Painted:
    """Return `count` slices of random heads, `shape` pixels each, and as fine as `OVERSAMPLED` says."""
    draws = Draws(torch.Generator(heads.device).manual_seed(int(rng.integers(2**62))), count)
    chosen = rng.integers(len(heads.codes), size=count)
    view = _log_uniform(look.view, count, rng) * np.exp(rng.normal(0, 0.06, (count, 2)))
    fine = (OVERSAMPLED * shape[0], OVERSAMPLED * shape[1])
    slab = _slab(heads, chosen, _planes(heads, chosen, view, look, rng), fine, draws, int(rng.integers(4, 8)))
    tissue = _sent([class_of(v) for v in heads.values], heads.device).to(torch.uint8)[slab]
    seen = _seen(slab, tissue, heads, view / shape, look, draws, rng)
    tissue = tissue * seen
    shares = torch.stack([(tissue == n).float().mean(1) for n in range(len(CLASSES))], dim=1)
    # the classes around the middle of each pixel: fine pixel 2 n is pixel n
    largest = functional.avg_pool2d(shares, 3, stride=OVERSAMPLED, padding=1).argmax(1)
    labels = torch.stack([largest == n for n in range(len(CLASSES))], dim=1)
    mean, spread, branch = (_sent(level, heads.device) for level in _levels(heads.values, count, look.t1, rng))
    image = (_looked_up(mean, slab) * seen).mean(1)
    middle = PLANES // 2
    varied, branched = (_looked_up(level, slab[:, middle]) * seen[:, middle] for level in (spread, branch))
    image = image + varied * (draws.normal(*fine) + _smooth(draws, fine, _TEXTURE))
    image = (image + branched * _branches(draws, fine, view.mean(1), rng)).clamp(min=0)
    shading = _sent(rng.uniform(*look.shading, size=count), heads.device)
    return Painted(chosen, image * torch.exp(fields.each(shading) * _smooth(draws, fine, 3)), labels)


def measured(image: torch.Tensor, shape: Plane, look: Look, rng: np.random.Generator) -> torch.Tensor:
    """Return the magnitude (batch, *shape) of `image` (batch, *fine) from noisy k-space.

    It ends at the edges of the matrix or falls off there.
    """
    batch = len(image)
    draws = Draws(torch.Generator(image.device).manual_seed(int(rng.integers(2**62))), batch)
    kspace: Any = resize(fftc(image.to(torch.complex64)), shape) * math.sqrt(math.prod(shape) / image[0].numel())
    sigma = _sent(rng.uniform(*look.blur, size=(batch, 1)) * (rng.random((batch, 1)) < 2 / 3), image.device)
    y, x = (torch.exp(-2 * (math.pi * sigma * (torch.arange(n, device=image.device) / n - 0.5)) ** 2) for n in shape)
    level = fields.each(_sent(rng.uniform(*look.noise, size=batch), image.device))
    return torch.abs(ifftc(kspace * y[:, :, None] * x[:, None]) + level * draws.complex_normal(*shape))


@dataclass(frozen=True)
class _Planes:
    """Planes through heads, in voxels: (batch, 3) as (z, y, x)."""

    middle: Values
    down: Values
    """From the upper edge of the field of view to the lower one."""
    right: Values
    through: Values
    """From one plane of a slab to the next."""
    bend: Values
    """Standard deviation of the displacement."""


def _planes(heads: Heads, chosen: NDArray[np.int64], view: Values, look: Look, rng: np.random.Generator) -> _Planes:
    """Random planes through the brains, tilted against the axes of the volumes."""
    count, brain = len(chosen), heads.brain[chosen]
    through, down, right = _axes(count, look.tilt, rng)
    passed = brain[np.arange(count), rng.integers(brain.shape[1], size=count)]
    middle = brain.mean(1)
    middle = middle + through * ((passed - middle) * through).sum(1, keepdims=True) + rng.normal(0, 8, (count, 3))
    step = _log_uniform(look.thickness, count, rng) / PLANES
    bend = rng.uniform(0, look.bend, (count, 1))
    voxel = heads.spacing[chosen]
    return _Planes(
        middle / voxel, view[:, :1] * down / voxel, view[:, 1:] * right / voxel, step * through / voxel, bend / voxel
    )


def _axes(count: int, tilt: float, rng: np.random.Generator) -> Values:
    """(3, batch, 3): directions through the slice, along y and along x, as (z, y, x): any axes of a volume, tilted."""
    from scipy.spatial.transform import Rotation

    turns = Rotation.from_euler("zyx", rng.normal(0, tilt, (count, 3)), degrees=True).as_matrix()
    order = np.argsort(rng.random((count, 3)), axis=1)
    flipped = np.eye(3)[order] * rng.choice([-1, 1], (count, 3, 1))
    return (flipped @ turns).swapaxes(0, 1)


def _slab(
    heads: Heads, chosen: NDArray[np.int64], planes: _Planes, fine: Plane, draws: Draws, terms: int
) -> torch.Tensor:
    """(batch, plane, y, x) int64: numbers of the values at the points of slices, which are bent by `terms` half
    cycles over the field of view."""
    device = heads.device
    y, x = (fields.positions(n, device) / 2 for n in fine)
    number = torch.arange(PLANES, device=device)[:, None, None] - PLANES // 2
    index = torch.zeros((len(chosen), PLANES, *fine), dtype=torch.int64, device=device) + _each(chosen, device)
    for axis, size in enumerate(heads.codes.shape[1:]):
        middle, down, right, through, bend = (
            _each(v[:, axis], device) for v in (planes.middle, planes.down, planes.right, planes.through, planes.bend)
        )
        place = middle + down * y[:, None] + right * x + bend * _smooth(draws, fine, terms)[:, None] + through * number
        last = _each(heads.extent[chosen, axis] - 1, device)
        inside = torch.minimum(place.round_().clamp_(min=0), last)  # the outermost voxels are air
        index.mul_(size).add_(inside.long())
    return heads.codes.view(-1)[index].long()


def _seen(
    slab: torch.Tensor,
    tissue: torch.Tensor,
    heads: Heads,
    pixel: Values,
    look: Look,
    draws: Draws,
    rng: np.random.Generator,
) -> torch.Tensor:
    """(batch, plane, y, x) bool: where a slice shows something. Stripped ones end at a distance around the brain.

    Everything within that distance stays: CSF, and whatever a program that strips heads leaves there.
    """
    count, shape = len(slab), (slab.shape[-2] // OVERSAMPLED, slab.shape[-1] // OVERSAMPLED)
    whole = _each(rng.random(count) >= look.stripped, slab.device)
    around = torch.tensor([v == AROUND for v in heads.values], device=slab.device)[slab]
    brain = (tissue > 0) & ~around
    inside = reached = functional.max_pool2d(brain.any(1, keepdim=True).float(), OVERSAMPLED)
    distance = 1 - inside
    for _ in range(_MARGIN):
        reached = functional.max_pool2d(reached, 3, 1, 1)
        distance = distance + 1 - reached
    size = _each(pixel.mean(1), slab.device)
    margin = _each(rng.uniform(*look.margin, size=count), slab.device)
    rough = _each(rng.uniform(0, 1.5, count), slab.device) * _smooth(draws, shape, 8)[:, None]
    fine = functional.interpolate(distance * size - margin - rough, scale_factor=OVERSAMPLED, mode="bilinear")
    return whole | (fine < 0) | brain


def _levels(values: tuple[int, ...], count: int, t1: float, rng: np.random.Generator) -> tuple[Values, Values, Values]:
    """(batch, value): mean and spread of the intensity of each label, and what branches in it add.

    The brightest tissue of the brain is about 1.
    """
    names, shares = zip(*map(tissue_of, values), strict=True)
    is_csf, outside = (np.array([name == wanted for name in names]) for wanted in ("csf", "background"))
    bright = rng.uniform(0.5, 0.9, count)
    weighted = np.stack([bright * rng.uniform(0.05, 0.75, count), bright, np.ones(count)], axis=1)
    other = np.concatenate([np.ones((count, 1)), rng.uniform(0.1, 0.9, (count, 2))], axis=1)
    other = rng.permuted(other, axis=1)
    csf, grey, white = (c[:, None] for c in np.where(rng.random((count, 1)) < t1, weighted, other).T)
    low, high = np.array(shares).T
    along = low + (high - low) * rng.random((count, len(values)))
    means = np.where(is_csf, csf + along * (grey - csf), grey + along * (white - grey))
    brightest = np.where(rng.random((count, len(values))) < 0.3, 0.15, 1.6)
    means = np.where(outside, brightest * rng.random((count, len(values))), np.maximum(means, 0))
    means[:, 0] = 0
    spreads = rng.uniform(0, 0.08, means.shape) * means
    return means, spreads, np.isin(values, _FOLDED) * rng.random((count, 1)) * (white - grey)


def _branches(draws: Draws, shape: Plane, view: Values, rng: np.random.Generator) -> torch.Tensor:
    """(batch, *shape): 1 on random curved lines, at random distances, and 0 between them."""
    cycles = np.minimum(view / rng.uniform(*_BRANCHES, len(view)), _CYCLES)
    weights = fields.band_limited(draws, _sent(cycles, draws.device), _CYCLES)
    field = fields.between(weights, [fields.waves(n, _CYCLES, draws.device) for n in shape])
    return torch.exp(-4 * field.square())


def _looked_up(levels: torch.Tensor, slab: torch.Tensor) -> torch.Tensor:
    """Levels (batch, value) of the labels of a slab."""
    return levels.gather(1, slab.flatten(1)).view(slab.shape)


def _smooth(draws: Draws, shape: Plane, terms: int) -> torch.Tensor:
    """(batch, *shape): smooth random fields of mean 0 and variance 1."""
    return fields.between(fields.smooth(draws, terms), [fields.cosines(n, terms, draws.device) for n in shape])


def _log_uniform(limits: Range, count: int, rng: np.random.Generator) -> Values:
    """(batch, 1)."""
    least, largest = limits
    return np.exp(rng.uniform(math.log(least), math.log(largest), (count, 1)))


def _each(values: Any, device: torch.device) -> torch.Tensor:
    """One value for each slice of a batch, (batch,), to (batch, 1, 1, 1)."""
    return _sent(values, device)[:, None, None, None]


def _sent(values: Any, device: torch.device) -> torch.Tensor:
    """Values of the host on the device: whole numbers and truth as they are, others as float32."""
    array = np.asarray(values)
    return torch.from_numpy(array.astype(np.float32) if array.dtype.kind == "f" else array).to(device)
