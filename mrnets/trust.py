"""How far a network's image can be trusted, from the data of the scan alone.

Each slice has three measures. The residual says whether the image agrees with the measured samples. The prediction
error tests samples that the network has not seen: some are left out, the network reconstructs without them, and its
image predicts them. l1-wavelet does the same. A network that predicts worse adds nothing but errors. Where both predict
well and err differently, a mean of their images is better than each (stacking, Wolpert 1992). Both runs of the network
must agree: an image that is wrong by chance, as one of another slice, differs from that without the samples.

Axes: see `mrnets.contract`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrnets.contract import Estimate, Scan, Trust
from mrnets.ending import ended
from mrnets.nets.l1wavelet import L1Wavelet
from mrnets.physics.coils import expand
from mrnets.physics.fourier import fftc
from mrnets.physics.masks import calibration_region
from mrnets.preparation import Preparation
from mrnets.tensors import sent

__all__ = ["MAX_CHANGE", "MAX_RESIDUAL", "MAX_WORSE", "classical", "doubt", "examined", "left_out", "mixed", "together"]

SHARE = 0.06
"""Share of the samples outside the fully sampled centre that are left out, and at least `LEAST` of them."""
LEAST = 2
CENTRE = 24
"""Samples along each axis, at most, that are never left out."""
MAX_RESIDUAL = 1.5
"""The residual over that of l1-wavelet, or over the noise where that is larger. Sensitivities explain not all of a scan
with little noise: there the residual is 3 to 11 for every method. Good images have at most 1.05 here."""
MAX_WORSE = 1.03
"""The network's prediction error over that of l1-wavelet. One of 190 good images of simulated scans is doubted
(`bench_trust`)."""
SLACK = 0.08
"""Standard deviations of the noise that the prediction error may be larger beside. Where little is left out
of a fully sampled scan, an image that keeps the data more exactly predicts their neighbours with more noise."""
ONE_SIDED = 0.8
"""Reach of the samples to one side of the centre over that to the other, below which one side is missing. Samples that
are left out say nothing of it. There l1-wavelet has no share (it made the error 1.4 times as large), and changes do
not count: a good network's image changed by 0.2."""
MAX_CHANGE, LEAST_CHANGE = 3.0, 0.1
"""The change of the image without the samples that are left out, over that of l1-wavelet's, and beside it. Good
networks have at most 2.3 times that of l1-wavelet, or 0.07 where there is no noise. An image of another slice has 3 to
30 times."""


def doubt(trust: Trust) -> str:
    """Reasons against the image, in a few words; empty: none. Values that are not finite are one."""
    residual, least = trust.residual, trust.reference_residual
    if residual is not None and least is not None and not residual <= MAX_RESIDUAL * max(least, 1.0):
        return (
            f"its image differs from the measured samples by {residual:.3g} times their noise, "
            f"and that of l1-wavelet by {least:.3g}"
        )
    predicted, reference = trust.prediction, trust.reference
    slack = 0.0 if residual is None else SLACK
    if predicted is not None and reference is not None and not predicted <= MAX_WORSE * reference + slack:
        unit = "of their size" if residual is None else "times their noise"
        return (
            f"it predicts samples that were left out with an error of {predicted:.3g} {unit}, "
            f"and l1-wavelet with {reference:.3g}"
        )
    change, usual = trust.change, trust.reference_change
    if change is not None and usual is not None and not change <= MAX_CHANGE * usual + LEAST_CHANGE:
        return (
            f"its image changes by {change:.2g} of its size when {SHARE:.0%} of the samples are left out, "
            f"and that of l1-wavelet by {usual:.2g}"
        )
    return ""


def classical(scan: Scan) -> Estimate:
    """The l1-wavelet image of `scan`, each echo by itself. Raises InputError where it has no sensitivities."""
    return ended(L1Wavelet(), Preparation(consistency=None), "each")(scan)


def examined(
    network: Callable[[Scan], Estimate],
    scan: Scan,
    estimate: Estimate,
    reference: Estimate | None,
    simple: Callable[[Scan], Estimate] = classical,
) -> list[Trust]:
    """The measures of each slice of `estimate`, which `network` made of `scan`.

    reference: what `simple`, which is `classical`, makes of the scan. Empty without it. It costs one more run of the
    network, and one of l1-wavelet.
    """
    if scan.kspace is None or scan.mask is None or reference is None:
        return []
    held, whole_kspace = _chosen(scan.mask)
    kept = scan.mask & ~held
    kspace = torch.where(kept, scan.kspace, torch.zeros_like(scan.kspace))
    less = dataclasses.replace(scan, kspace=kspace, mask=kept)
    without = simple(less)
    image, predicted, whole, plain = (_unweighted(made) for made in (estimate, network(less), reference, without))
    unit = (_size(scan, held) if scan.noise is None else scan.noise).clamp_min(1e-20)
    errors, others = _difference(predicted, scan), _difference(plain, scan)
    measures = {
        "residual": None if scan.noise is None else _rms(_difference(image, scan), scan.mask) / unit,
        "prediction": _rms(errors, held) / unit,
        "reference": _rms(others, held) / unit,
        "reference_residual": None if scan.noise is None else _rms(others, kept) / unit,
        "share": _share(errors * held, others * held) * whole_kspace,
        "change": _change(image, predicted) * whole_kspace,
        "reference_change": _change(whole, plain),
    }
    some = held.flatten(1).any(dim=1).expand(len(image))
    given = {name: x for name, x in measures.items() if x is not None}
    rows = torch.stack([some, *given.values()]).tolist()  # a device is asked once
    values: dict[str, list[float | None]] = {name: [None] * len(image) for name in measures}
    values |= dict(zip(given, rows[1:], strict=True))
    for name in ("prediction", "reference", "share", "change", "reference_change"):
        values[name] = [x if there else None for x, there in zip(values[name], rows[0], strict=True)]
    return [Trust(**dict(zip(values, one, strict=True))) for one in zip(*values.values(), strict=True)]


def mixed(estimate: Estimate, reference: Estimate | None, shares: Sequence[float | None]) -> Estimate:
    """`estimate` with the mean of its image and that of `reference`, which has a share (batch,) of each slice."""
    if estimate.image is None or reference is None or reference.image is None or not any(shares):
        return estimate
    image = estimate.image
    part = sent(torch.tensor([share or 0.0 for share in shares]), image.device)[:, None, None, None]
    return dataclasses.replace(estimate, image=image + part * (reference.image - image))


def _share(errors: Tensor, others: Tensor) -> Tensor:
    """(batch,): w from 0 to 1 with the least (1 - w) `errors` + w `others`, both (batch, echo, coil, y, x)."""
    change = errors - others
    axes = (1, 2, 3, 4)
    gain = (errors.real * change.real + errors.imag * change.imag).sum(dim=axes)
    size = (change.real**2 + change.imag**2).sum(dim=axes)
    share: Tensor = (gain / size.clamp_min(1e-30)).nan_to_num(0.0).clamp(0, 1)
    return share


def _change(image: Tensor, other: Tensor) -> Tensor:
    """(batch,): norm of the difference, relative to that of `other`."""
    axes = (1, 2, 3, 4)
    change: Tensor = torch.linalg.vector_norm(image - other, dim=axes)
    return change / torch.linalg.vector_norm(other, dim=axes).clamp_min(1e-30)


def _unweighted(estimate: Estimate) -> Tensor:
    """The image (batch, echo, set, y, x) in the scale of the maps."""
    assert estimate.image is not None
    return estimate.image[:, :, None] if estimate.unweighted is None else estimate.unweighted


def together(trusts: Sequence[Trust]) -> Trust | None:
    """The measures of all slices as those of one: root mean squares, and the mean share. None of no slices."""
    if not trusts:
        return None

    def mean(name: str) -> float | None:
        there = [x for trust in trusts if (x := getattr(trust, name)) is not None]
        power = 1 if name == "share" else 2
        return float(np.mean(np.power(there, power)) ** (1 / power)) if there else None

    return Trust(**{field.name: mean(field.name) for field in dataclasses.fields(Trust)})


def left_out(mask: Tensor) -> Tensor:
    """Samples to leave out of `mask` (batch or 1, 1, 1, y, x) bool, of that shape; none where few lie outside a centre.

    Whole lines where all sampled lines have the same samples, else single places. They are spread from the centre
    outwards, so that some hold signal. They are the same for all scans with that mask.
    """
    return _chosen(mask)[0]


def _chosen(mask: Tensor) -> tuple[Tensor, Tensor]:
    """`left_out`, and (batch or 1,) bool: whether samples reach about as far to both sides of the centre.

    A device is asked once."""
    masks = mask[:, 0, 0].cpu().numpy()
    held = sent(torch.from_numpy(np.stack([_held(one) for one in masks])), mask.device)[:, None, None]
    sides = [all(_reach(one.any(axis)) >= ONE_SIDED for axis in (0, 1)) for one in masks]
    return held, sent(torch.tensor(sides), mask.device)


def _reach(sampled: NDArray[np.bool_]) -> float:
    """Reach of the samples of an axis to one side, the shorter one, over that to the other."""
    places = np.flatnonzero(sampled)
    if not len(places):
        return 0.0
    middle = len(sampled) // 2
    sides = (middle - int(places[0]), int(places[-1]) + 1 - middle)
    return min(sides) / max(sides)


def _held(sampled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(y, x)."""
    rows, columns = (np.asarray(sampled.any(axis=axis, keepdims=True)) for axis in (1, 0))
    centre = _block(sampled.shape, [min(n, CENTRE) for n in calibration_region(sampled)])
    if not (sampled == (rows & columns)).all():
        return _spread(sampled & ~centre)
    if _runs(columns) > 1 >= _runs(rows):
        return sampled & _spread(columns & ~centre.any(axis=0, keepdims=True))
    if _runs(rows) > 1 and _runs(columns) > 1:
        return _spread(sampled & ~centre)
    return sampled & _spread(rows & ~centre.any(axis=1, keepdims=True))


def _runs(places: NDArray[np.bool_]) -> int:
    """How many times sampled places follow ones that are not."""
    return int((np.diff(places.ravel().astype(np.int8), prepend=0) > 0).sum())


def _block(shape: tuple[int, ...], size: Sequence[int]) -> NDArray[np.bool_]:
    """(y, x): true in the middle `size` samples, as `fourier.resize` crops."""
    block = np.zeros(shape, bool)
    block[tuple(slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(shape, size, strict=True))] = True
    return block


def _spread(places: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Some of the `places`, evenly spread by their distance from the centre; none where there are too few."""
    held = np.zeros_like(places)
    found = np.argwhere(places)
    count = max(round(SHARE * len(found)), LEAST)
    if len(found) < 2 * count:
        return held
    middle = np.array(places.shape) // 2
    order = np.argsort((np.abs(found - middle) / np.maximum(middle, 1)).sum(axis=1), kind="stable")
    chosen = found[order[np.arange(count) * len(found) // count]]
    held[tuple(chosen.T)] = True
    return held


def _difference(image: Tensor, scan: Scan) -> Tensor:
    """F S x - y (batch, echo, coil, y, x) of an image (batch, echo, set, y, x)."""
    assert scan.sens is not None
    difference: Tensor = fftc(expand(image, scan.sens[:, None], sets=True))[:, :, 0] - scan.kspace
    return difference


def _size(scan: Scan, where: Tensor) -> Tensor:
    """(batch,): root mean square of the samples `where`."""
    assert scan.kspace is not None
    return _rms(scan.kspace, where)


def _rms(values: Tensor, where: Tensor) -> Tensor:
    squares = (values.real**2 + values.imag**2) * where
    count = where.expand(squares.shape).sum(dim=(1, 2, 3, 4)).clamp_min(1)
    total: Tensor = squares.sum(dim=(1, 2, 3, 4))
    return (total / count).sqrt()
