"""The loss of a network: terms of images, of maps and of segmentations. Axes: `mrnets.contract`.

A term is a function of one estimate and an example that gives (batch,) float32. Images are magnitudes relative to the
target's maximum, of each echo for itself. Maps are without units (`mrnets.physics.maps`), inside the region.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from mrnets import plugins
from mrnets.classes import classes_of
from mrnets.contract import Estimate
from mrnets.errors import InputError
from training.data import Example
from training.metrics import comparable, positive, ssim
from training.options import Loss
from training.selfsupervised import missed

__all__ = ["loss", "sinkhorn"]

_SMOOTH = 1e-6
"""Relative to the maximum: a magnitude has no gradient at 0, where sensitivities vanish."""
_NOISE = 0.025
"""Share of the noise at which the term decibel ends."""


def loss(estimate: Estimate, example: Example, weights: Loss, labels: Sequence[str] = ()) -> Tensor:
    """Return the weighted mean of the terms over what both the estimate and the example have.

    Each slice counts as much as its `example.weight`. With `weights.steps`, the earlier estimates of each field count
    too. Their weights go from 0.1 to 1, evenly spaced in their logarithm, and are made to sum to 1. `labels` as of
    `Source`. The loss is computed in float32, whatever the estimate is in. Raises InputError where a term with a weight
    applies to nothing, or where logits and labels differ in shape.
    """
    parts = _parts(weights, estimate, example)
    levels = (*estimate.steps, estimate) if weights.steps else (estimate,)
    total = sum(weight for weight, *_ in parts)
    value = torch.zeros_like(example.weight)
    with torch.autocast(example.weight.device.type, enabled=False):
        for weight, has, term in parts:
            supervised = [level for level in levels if has(level)]
            shares = torch.logspace(-1, 0, len(supervised))
            for share, level in zip((shares / shares.sum()).tolist(), supervised, strict=True):
                value = value + weight / total * share * term(level, example, labels)
    return (value * example.weight).mean()


def sinkhorn(x: Tensor, y: Tensor, *, epsilon: float = 0.1, iterations: int = 100) -> Tensor:
    """Return the cost of the entropic transport plan (Cuturi 2013) between points x and y (n, point, coordinate): (n,).

    All points weigh the same, and the cost of a pair is its squared distance. The plan is found in the logarithmic
    domain and held fixed for the gradient. By Danskin's theorem this is the gradient of the regularised transport. It
    needs the memory of a few matrices of n * point^2, whatever the number of iterations.
    """
    cost = (x * x).sum(-1)[:, :, None] + (y * y).sum(-1)[:, None] - 2 * x @ y.mT
    with torch.no_grad():
        mass = -math.log(x.shape[1])
        closeness, g = -cost / epsilon, cost.new_zeros(cost.shape[0], 1, cost.shape[2])
        for _ in range(iterations):
            f = mass - torch.logsumexp(closeness + g, dim=2, keepdim=True)
            g = mass - torch.logsumexp(closeness + f, dim=1, keepdim=True)
        plan = torch.exp(closeness + f + g)
    return (plan * cost).sum(dim=(1, 2))


@dataclass(frozen=True)
class _Pair:
    """Magnitudes (batch, echo, y, x) relative to the maximum of the target, and the complex error likewise."""

    image: Tensor
    target: Tensor
    error: Tensor


def _pair(estimate: Estimate, example: Example) -> _Pair:
    assert estimate.image is not None
    assert example.target is not None
    image, target = estimate.image.to(torch.complex64), example.target
    peak = positive(target.abs().amax(dim=(-2, -1), keepdim=True))
    magnitude, error = (_modulus(z, _SMOOTH * peak) / peak for z in (image, image - target))
    return _Pair(magnitude, target.abs() / peak, error)


def _modulus(z: Tensor, least: Tensor) -> Tensor:
    return (z.real**2 + z.imag**2 + least**2).sqrt()


def _ssim(estimate: Estimate, example: Example, labels: Sequence[str]) -> Tensor:
    pair = _pair(estimate, example)
    return 1 - ssim(pair.image, pair.target).mean(dim=1)


def _l1(estimate: Estimate, example: Example, labels: Sequence[str]) -> Tensor:
    pair = _pair(estimate, example)
    return (pair.image - pair.target).abs().mean(dim=(1, 2, 3))


def _l2(estimate: Estimate, example: Example, labels: Sequence[str]) -> Tensor:
    pair = _pair(estimate, example)
    return ((pair.image - pair.target) ** 2).mean(dim=(1, 2, 3))


def _complex_l1(estimate: Estimate, example: Example, labels: Sequence[str]) -> Tensor:
    return _pair(estimate, example).error.mean(dim=(1, 2, 3))


def _decibel(estimate: Estimate, example: Example, labels: Sequence[str]) -> Tensor:
    """Mean squared complex error in dB, relative to the squared maximum of the target.

    Each slice counts by the ratio by which its error changes. So scans with little noise count as much as others. An
    error far below the noise does not gain any more.
    """
    assert example.target is not None
    error = _pair(estimate, example).error.square().mean(dim=(1, 2, 3))
    peak = positive(example.target.abs().amax(dim=(1, 2, 3)))
    noise = torch.zeros_like(peak) if example.scan.noise is None else example.scan.noise
    return 10 * torch.log10(error + (_NOISE * noise / peak) ** 2 + _SMOOTH**2)


def _wasserstein(estimate: Estimate, example: Example, labels: Sequence[str]) -> Tensor:
    """Rows of the image are the points, in any order, as in ATOMMIC (fastMRI experiments)."""
    pair = _pair(estimate, example)
    return sinkhorn(pair.image.flatten(0, 1), pair.target.flatten(0, 1)).reshape(pair.image.shape[:2]).mean(dim=1)


def _maps_ssim(estimate: Estimate, example: Example, labels: Sequence[str]) -> Tensor:
    """The data range is the unit: the largest value of a fitted map is an outlier."""
    pairs = comparable(estimate.maps, example.maps, example.region).values()
    return torch.stack([1 - ssim(x, y, data_range=1.0).mean(dim=1) for x, y in pairs]).mean(dim=0)


def _maps_l1(estimate: Estimate, example: Example, labels: Sequence[str]) -> Tensor:
    return _maps_mean(estimate, example, torch.abs)


def _maps_l2(estimate: Estimate, example: Example, labels: Sequence[str]) -> Tensor:
    return _maps_mean(estimate, example, torch.square)


def _maps_mean(estimate: Estimate, example: Example, measure: Callable[[Tensor], Tensor]) -> Tensor:
    """Over the region of each slice, and over maps."""
    pairs = comparable(estimate.maps, example.maps, example.region).values()
    means = torch.stack([measure(x - y).mean(dim=(1, 2, 3)) for x, y in pairs]).mean(dim=0)
    return means if example.region is None else means / positive(example.region.float().mean(dim=(1, 2)))


def _dice(estimate: Estimate, example: Example, labels: Sequence[str]) -> Tensor:
    """1 - Dice of probabilities (Milletari 2016), the mean over classes but the background.

    One pixel is added to overlap and mean size. So a class that neither has counts as 1, and a false claim of an absent
    class has a gradient.
    """
    logits, target = _pixels(estimate, example)
    chance = logits.softmax(dim=1)[:, 1:] if classes_of(labels) == "exclusive" else logits.sigmoid()
    target = target[:, -chance.shape[1] :]
    overlap, sizes = (chance * target).sum(dim=2), chance.sum(dim=2) + target.sum(dim=2)
    return 1 - ((2 * overlap + 1) / (sizes + 1)).mean(dim=1)


def _cross_entropy(estimate: Estimate, example: Example, labels: Sequence[str]) -> Tensor:
    """The mean over pixels and, for independent classes, over classes."""
    logits, target = _pixels(estimate, example)
    if classes_of(labels) == "exclusive":
        return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean(dim=1)
    return functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=(1, 2))


def _kspace(estimate: Estimate, example: Example, labels: Sequence[str]) -> Tensor:
    """The error of predicted samples that the network did not get: its 2-norm and its 1-norm.

    Each is relative to that of the samples (Yaman 2020, eq. 7)."""
    assert example.held is not None
    error, measured = missed(estimate, example)
    peak = positive(measured.abs().amax(dim=(1, 2, 3, 4), keepdim=True))
    sizes = [(_modulus(z, _SMOOTH * peak) * example.held).flatten(1) for z in (error, measured)]
    norms = [(torch.linalg.vector_norm(size, dim=1), size.sum(dim=1)) for size in sizes]  # neither has a pole at 0
    return sum((one / positive(other) for one, other in zip(*norms, strict=True)), torch.zeros_like(norms[0][0]))


def _pixels(estimate: Estimate, example: Example) -> tuple[Tensor, Tensor]:
    """Logits and labels, (batch, class, pixel) float32."""
    assert estimate.logits is not None
    assert example.labels is not None
    if estimate.logits.shape != example.labels.shape:
        wanted, got = tuple(example.labels.shape), tuple(estimate.logits.shape)
        raise InputError(f"the network gives logits of the shape {got}, and the labels have {wanted}")
    return estimate.logits.float().flatten(2), example.labels.float().flatten(2)


_Term = Callable[[Estimate, Example, Sequence[str]], Tensor]
_Has = Callable[[Estimate], bool]

_IMAGE: dict[str, _Term] = {
    "ssim": _ssim,
    "l1": _l1,
    "l2": _l2,
    "complex_l1": _complex_l1,
    "decibel": _decibel,
    "wasserstein": _wasserstein,
}
_HELD: dict[str, _Term] = {"kspace": _kspace}
_MAPS: dict[str, _Term] = {"ssim": _maps_ssim, "l1": _maps_l1, "l2": _maps_l2}
_LOGITS: dict[str, _Term] = {"dice": _dice, "cross_entropy": _cross_entropy}


@lru_cache
def _own(name: str) -> _Term:
    """The term of another package. Raises InputError as `plugins.load` does."""
    term: _Term = plugins.load("loss", name)
    return term


def _parts(weights: Loss, estimate: Estimate, example: Example) -> list[tuple[float, _Has, _Term]]:
    """Weight, what an estimate must have, and the function of each term that applies. Raises InputError."""
    fields: list[tuple[_Has, bool, dict[str, _Term]]] = [
        (lambda e: e.image is not None, example.target is not None, _IMAGE),
        (lambda e: e.image is not None, example.held is not None, _HELD),
        (lambda e: any(name in e.maps for name in example.maps), bool(example.maps), _MAPS),
        (lambda e: e.logits is not None, example.labels is not None, _LOGITS),
    ]
    present = [(has, terms) for has, known, terms in fields if known and has(estimate)]
    parts: list[tuple[float, _Has, _Term]] = []
    parts += [(weight, lambda e: e is estimate, _own(name)) for name, weight in weights.own.items() if weight]
    for name in dict.fromkeys((*_IMAGE, *_HELD, *_MAPS, *_LOGITS)):
        if weight := getattr(weights, name):
            found = [(weight, has, terms[name]) for has, terms in present if name in terms]
            if not found:
                raise InputError(f"option loss.{name} applies to nothing that this network estimates and the data have")
            parts += found
    return parts
