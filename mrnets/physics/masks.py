"""Sampling masks: which positions of k-space a scan measures.

Axes: y = phase encoding, x = readout (1-D masks) or second phase encoding (2-D masks); the k-space centre is at n // 2.
Every mask takes (shape, acceleration, rng, *, centre, ...) and returns a NumPy array (y, x) of bool. It has
round(samples / acceleration) True values, the fully sampled centre included. 1-D masks count in whole lines. Only
`regular1d` counts as scanners do.
centre: fully sampled width of each axis, as a fraction of it below 1, in samples from 1 on.
The same generator state gives the same mask. A mask that cannot be made raises InputError.

A function becomes a mask of that name by the decorator `_mask`; `names` lists all of them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from mrnets.errors import InputError, unknown
from mrnets.physics.arrays import Array, to_numpy
from mrnets.physics.checks import sizes
from mrnets.physics.poisson_disc import poisson_disc

__all__ = ["LEAST_CALIBRATION", "Kind", "calibration_region", "kind", "names", "partial_fourier"]

Mask: TypeAlias = NDArray[np.bool_]
Shape: TypeAlias = tuple[int, int]
_Draw = TypeVar("_Draw", bound=Callable[..., Mask])

LEAST_CALIBRATION = 4
"""Fewer fully sampled lines around the centre are no calibration block."""


@dataclass(frozen=True)
class Kind:
    """A mask, and what is declared of it."""

    draw: Callable[..., Mask]
    axes: Literal[1, 2]
    """Undersampled axes: 1, along y in whole lines; 2, along y and x."""
    by_distance: bool
    """Whether `acceleration` is the distance between lines, a whole number."""


_KINDS: dict[str, Kind] = {}


def names() -> list[str]:
    """The names of all masks, in the order of this file."""
    return list(_KINDS)


def kind(name: str) -> Kind:
    """The mask of that name. Raises InputError for an unknown one."""
    if name not in _KINDS:
        raise unknown("mask", name, _KINDS)
    return _KINDS[name]


def _mask(axes: Literal[1, 2], *, by_distance: bool = False) -> Callable[[_Draw], _Draw]:
    """Declare a function as a mask."""

    def declare(draw: _Draw) -> _Draw:
        name = draw.__name__

        @functools.wraps(draw)
        def drawn(shape: Shape, acceleration: float, rng: np.random.Generator, **options: Any) -> Mask:
            plane = sizes(f"Mask {name}", shape)
            if len(plane) != 2 or not isinstance(rng, np.random.Generator):
                raise InputError(
                    f"Mask {name}: expected a shape (y, x) and a generator of NumPy, got {plane} and {rng!r}"
                )
            return draw(plane, acceleration, rng, **options)

        _KINDS[name] = Kind(drawn, axes, by_distance)
        return cast(_Draw, drawn)

    return declare


@_mask(1)
def equispaced1d(shape: Shape, acceleration: float, rng: np.random.Generator, *, centre: float = 0.08) -> Mask:
    """Lines at equal distances on either side of the centre block, from a random first line.

    The distance is chosen so that the whole mask, centre block included, has the acceleration; it need not be whole.
    """
    lines, outside, missing = _plan1d("equispaced1d", shape, acceleration, centre)
    if missing:
        lines[outside[_equispaced(outside.size, missing, rng.random())]] = True
    return _readouts(lines, shape)


@_mask(1, by_distance=True)
def regular1d(shape: Shape, acceleration: float, rng: np.random.Generator, *, centre: float = 0.08) -> Mask:
    """Every n-th line, from a random first one, and the centre block: what scanners call n-fold with integrated
    calibration lines. Unlike in the other masks `acceleration` is that distance, a whole number; the centre is on top.
    """
    if not 1 <= acceleration <= shape[0] or acceleration != int(acceleration):
        raise InputError(
            f"Mask regular1d: the distance between lines must be a whole number from 1 to {shape[0]}, "
            f"got {acceleration:g}."
        )
    step = int(acceleration)
    lines = _block((shape[0], 1), _width("regular1d", centre, shape[0]), 1)[:, 0]
    lines[int(rng.integers(step)) :: step] = True
    return _readouts(lines, shape)


@_mask(1)
def random1d(shape: Shape, acceleration: float, rng: np.random.Generator, *, centre: float = 0.08) -> Mask:
    """Lines drawn uniformly, without replacement, around the centre block."""
    lines, outside, missing = _plan1d("random1d", shape, acceleration, centre)
    lines[rng.choice(outside, missing, replace=False)] = True
    return _readouts(lines, shape)


@_mask(1)
def gaussian1d(
    shape: Shape, acceleration: float, rng: np.random.Generator, *, centre: float = 0.08, fwhm: float = 0.7
) -> Mask:
    """Lines drawn with Gaussian density around the centre block; `fwhm` is a fraction of the axis."""
    lines, outside, missing = _plan1d("gaussian1d", shape, acceleration, centre)
    distance = _offsets(shape[0])[outside] / shape[0]
    lines[outside[_weighted(_log_gaussian(distance**2, "gaussian1d", fwhm), missing, rng)]] = True
    return _readouts(lines, shape)


@_mask(2)
def equispaced2d(shape: Shape, acceleration: float, rng: np.random.Generator, *, centre: float = 0.08) -> Mask:
    """A rectangular grid, the same distance along both axes, around a rectangular centre block; random first position.

    Rows and columns are whole numbers: of the pairs around the equal distance the one nearest to the acceleration.
    """
    name = "equispaced2d"
    height, width = (_width(name, centre, n) for n in shape)
    mask = _block(shape, height, width)
    budget = _budget(name, shape, acceleration, int(mask.sum()))
    outer = (mask.size - height * width) / max(budget - height * width, 1)
    grids = [_grids(n, block, math.sqrt(outer), rng.random()) for n, block in zip(shape, (height, width), strict=True)]
    (row_sets, row_counts, row_centre), (column_sets, column_counts, column_centre) = grids
    total = row_counts[:, None] * column_counts - row_centre[:, None] * column_centre + height * width
    error = np.abs(total - budget) / budget
    anisotropy = np.abs(np.log((shape[0] / row_counts)[:, None] / (shape[1] / column_counts)))
    row, column = np.unravel_index(np.argmin(error + 0.01 * anisotropy), error.shape)
    if budget > height * width:
        mask[np.ix_(row_sets[row], column_sets[column])] = True
    return mask


@_mask(2)
def gaussian2d(
    shape: Shape, acceleration: float, rng: np.random.Generator, *, centre: float = 0.04, fwhm: float = 0.7
) -> Mask:
    """Samples drawn with Gaussian density around a fully sampled ellipse; `fwhm` is a fraction of each axis.

    `centre` is the ellipse's whole width, so its half axes are centre/2 of each axis. A published scale of the half
    axes, as in ATOMMIC (center_scale), is half of `centre`.
    """
    name = "gaussian2d"
    y, x = (_offsets(n) for n in shape)
    half_y, half_x = (max(_width(name, centre, n) / 2, 1e-6) for n in shape)
    mask = _block(shape, *shape)
    mask[(y[:, None] / half_y) ** 2 + (x / half_x) ** 2 > 1] = False
    if centre == 0:
        mask[...] = False
    outside = np.flatnonzero(~mask)
    missing = _budget(name, shape, acceleration, int(mask.sum())) - int(mask.sum())
    distance2 = ((y[:, None] / shape[0]) ** 2 + (x / shape[1]) ** 2).ravel()[outside]
    mask.flat[outside[_weighted(_log_gaussian(distance2, name, fwhm), missing, rng)]] = True
    return mask


@_mask(2)
def poisson2d(
    shape: Shape,
    acceleration: float,
    rng: np.random.Generator,
    *,
    centre: float = 0.08,
    variation: float = 2.0,
) -> Mask:
    """Poisson-disc samples around a rectangular centre block: random, but never close to each other.

    The least distance grows linearly from r at the centre of k-space to (1 + variation) r at the edge of each axis.
    `variation` 0 gives a uniform density. Two samples outside the centre block are never closer than the smaller of
    their two distances. r follows from the acceleration. It starts too large and shrinks until the number of samples is
    reached. Meanwhile samples are added where there is room (dart throwing with a decreasing radius, McCool and Fiume
    1992).
    """
    name = "poisson2d"
    if not 0 <= variation < math.inf:
        raise InputError(f"Mask {name}: variation must be 0 or more, got {variation}.")
    mask = _block(shape, *(_width(name, centre, n) for n in shape))
    block = int(mask.sum())
    missing = _budget(name, shape, acceleration, block) - block
    y, x = (_offsets(n) / (n / 2) for n in shape)
    growth = 1 + variation * np.hypot(y[:, None], x)
    mask.flat[poisson_disc(~mask, growth, missing, rng)] = True
    return mask


def partial_fourier(mask: Mask, fraction: float) -> Mask:
    """`mask` without the first `fraction` of its lines along y; 0.25 is what scanners call partial Fourier 6/8.

    As on scanners it comes on top of the acceleration, which the mask has before its lines are left out.
    Raises InputError unless 0 <= fraction < 0.5: the centre of k-space must stay.
    """
    if not 0 <= fraction < 0.5:
        raise InputError(f"Mask: the fraction that partial Fourier leaves out must be in [0, 0.5), got {fraction}.")
    cut = mask.copy()
    cut[..., : math.floor(fraction * mask.shape[-2]), :] = False
    return cut


def calibration_region(mask: Array) -> Shape:
    """Height and width of a large fully sampled block around the centre of k-space; (0, 0) where there is none.

    mask (..., y, x) of any library; sampled is what every leading index has sampled. The block is the one that
    `fourier.resize` crops: index n // 2 of the mask is index m // 2 of the block. So the shorter side of a partial
    Fourier mask bounds it. Among blocks with two thirds of the largest area or more, the one with the longest shorter
    side is taken. Samples that happen to adjoin the centre of a random mask must not make it long and thin.
    """
    sampled: Any = np.asarray(to_numpy(mask), dtype=bool)
    sampled = sampled.reshape(-1, *sampled.shape[-2:])
    sampled = sampled[0] if len(sampled) == 1 else sampled.all(axis=0)
    rows, columns = (np.argsort(np.abs(_offsets(n) + 0.25)) for n in sampled.shape)  # c, c-1, c+1, c-2, ...
    rank = np.argsort(rows).astype(np.int32)[:, None]
    full = np.where(sampled, np.int32(len(rank)), rank).min(axis=0, initial=len(rank))[columns]  # each column's height
    heights = np.minimum.accumulate(full)
    widths = np.arange(1, heights.size + 1)
    areas, shorter = heights * widths, np.minimum(heights, widths)
    best = int(np.argmax(np.where(3 * areas >= 2 * areas.max(), shorter * (areas.max() + 1) + areas, 0)))
    return (int(heights[best]), int(widths[best])) if heights[best] else (0, 0)


def _width(name: str, centre: float, n: int) -> int:
    """Samples that `centre` means along an axis of n."""
    if 0 <= centre < 1:
        return round(centre * n)
    if 1 <= centre <= n and centre == int(centre):
        return int(centre)
    raise InputError(
        f"Mask {name}: centre must be a fraction below 1, or a whole number of samples from 1 to {n}, got {centre:g}."
    )


def _budget(name: str, shape: tuple[int, ...], acceleration: float, centre: int) -> int:
    """Samples (of a 1-D shape: lines) that the acceleration allows; InputError where the centre needs more."""
    if not 1 <= acceleration < math.inf:
        raise InputError(f"Mask {name}: acceleration must be 1 or more, got {acceleration}.")
    budget = round(math.prod(shape) / acceleration)
    if budget < 1:
        raise InputError(
            f"Mask {name}: {acceleration:g}-fold acceleration of {' x '.join(map(str, shape))} leaves nothing."
        )
    if budget < centre:
        raise InputError(
            f"Mask {name}: {acceleration:g}-fold acceleration of {' x '.join(map(str, shape))} leaves {budget} "
            f"to sample, but the fully sampled centre alone has {centre}: make it smaller, or accelerate less."
        )
    return budget


def _offsets(n: int) -> NDArray[np.float64]:
    """Distance of each index from the k-space centre."""
    return np.arange(n, dtype=np.float64) - n // 2


def _block(shape: Shape, height: int, width: int) -> Mask:
    """True in a centred block."""
    mask = np.zeros(shape, dtype=bool)
    top, left = shape[0] // 2 - height // 2, shape[1] // 2 - width // 2
    mask[top : top + height, left : left + width] = True
    return mask


def _plan1d(name: str, shape: Shape, acceleration: float, centre: float) -> tuple[Mask, NDArray[Any], int]:
    """Lines (y,) with the centre block set, the indices outside it, and how many of them are to be sampled."""
    width = _width(name, centre, shape[0])
    lines = _block((shape[0], 1), width, 1)[:, 0]
    return lines, np.flatnonzero(~lines), _budget(name, shape[:1], acceleration, width) - width


def _readouts(lines: Mask, shape: Shape) -> Mask:
    """Lines (y,) as a mask (y, x) of whole readouts."""
    return np.repeat(lines[:, None], shape[1], axis=1)


def _equispaced(n: int, count: int, phase: float) -> NDArray[np.intp]:
    """`count` of n indices at the real-valued distance n / count; phase in [0, 1) places the first."""
    return np.floor((np.arange(count) + phase) * (n / count)).astype(np.intp)


def _grids(n: int, block: int, distance: float, phase: float) -> tuple[list[NDArray[np.intp]], Any, Any]:
    """Equispaced index sets along an axis, counts around n / distance: the sets, their sizes, how many in the block."""
    wanted = n / distance
    counts = np.arange(max(1, math.floor(wanted) - 4), min(n, math.ceil(wanted) + 4) + 1)
    sets = [_equispaced(n, int(count), phase) for count in counts]
    start = n // 2 - block // 2
    return sets, counts, np.array([np.sum((s >= start) & (s < start + block)) for s in sets])


def _log_gaussian(distance2: NDArray[np.float64], name: str, fwhm: float) -> NDArray[np.float64]:
    """Logarithm of a Gaussian of the given full width at half maximum at squared distances."""
    if not 0 < fwhm < math.inf:
        raise InputError(f"Mask {name}: fwhm must be positive, a fraction of the axis, got {fwhm}.")
    return -4 * math.log(2) * distance2 / fwhm**2


def _weighted(log_weight: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """`count` indices drawn one after another without replacement, with probabilities proportional to the weights.

    The largest of log weight + Gumbel noise are such a draw (Efraimidis and Spirakis 2006).
    """
    keys = log_weight + rng.gumbel(size=log_weight.size)
    if count == 0:
        return np.zeros(0, dtype=np.intp)
    return np.argpartition(-keys, count - 1)[:count]
