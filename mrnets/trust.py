"""How far a network's image can be trusted, from the data of the scan alone.

Each slice has three measures. The residual says whether the image agrees with the measured samples. The prediction
error tests samples that the network has not seen: some are left out, the network reconstructs without them, and its
image predicts them. l1-wavelet does the same. A network that predicts worse adds nothing but errors. Where both predict
well and err differently, a mean of their images is better than each (stacking, Wolpert 1992). Both runs of the network
must agree: an image that is wrong by chance, as one of another slice, differs from that without the samples. The
difference is seen in k-space where nothing was measured, because consistency with the data hides it elsewhere.

Axes: see `mrnets.contract`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mrnets.contract import Estimate, Scan, Trust
from mrnets.ending import ended
from mrnets.nets.l1wavelet import L1Wavelet
from mrnets.physics.coils import expand
from mrnets.physics.fourier import fftc
from mrnets.preparation import Preparation
from mrnets.tensors import sent
from mrnets.trial import SHARE, Trial, trial_of

__all__ = [
    "MAX_CHANGE",
    "MAX_RESIDUAL",
    "MAX_WORSE",
    "SIGNIFICANT",
    "classical",
    "doubt",
    "examined",
    "measured",
    "mixed",
    "together",
]

MAX_RESIDUAL = 1.5
"""The residual over that of l1-wavelet, or over the noise where that is larger. Sensitivities explain not all of a scan
with little noise: there the residual is 3 to 11 for every method. Good images have at most 1.05 here."""
MAX_WORSE = 1.025
"""The network's prediction error over that of l1-wavelet. One of 190 good images of simulated scans is doubted
(`bench_trust`)."""
SIGNIFICANT = 2.0
"""Standard errors that the difference of the predictions must have as well. A few strong samples near the centre hold
most of the energy, and chance in these is no reason."""
SLACK, SLACK_OF_MISFIT = 0.45, 0.12
"""Noise that the prediction may add, in standard deviations of that of the samples, and over the residual of l1-wavelet
where that is more. Where little is left out, an image that keeps the data more exactly predicts their neighbours with
more noise. Data that the sensitivities do not explain are noise here, too."""
MAX_CHANGE, LEAST_CHANGE = 2.0, 0.1
"""The change between the samples, over that of l1-wavelet, and beside it in the unit of the prediction error. It was at
most 1.7 times as large in 386 good images of the network that ships. An image of another slice has 1 to 22 times."""


def doubt(trust: Trust) -> str:
    """Reasons against the image, in a few words; empty: none. Values that are not finite are one."""
    residual, least = trust.residual, trust.reference_residual
    if residual is not None and least is not None and not residual <= MAX_RESIDUAL * max(least, 1.0):
        return (
            f"its image differs from the measured samples by {residual:.3g} times their noise, "
            f"and that of l1-wavelet by {least:.3g}"
        )
    predicted, reference = trust.prediction, trust.reference
    unit = "of their size" if residual is None else "times their noise"
    slack = 0.0 if residual is None else max(SLACK, SLACK_OF_MISFIT * (least or 0.0))
    significant = trust.significance is None or not trust.significance <= SIGNIFICANT
    if (
        predicted is not None
        and reference is not None
        and significant
        and not predicted <= math.hypot(MAX_WORSE * reference, slack)
    ):
        return (
            f"it predicts samples that were left out with an error of {predicted:.3g} {unit}, "
            f"and l1-wavelet with {reference:.3g}"
        )
    change, usual = trust.change, trust.reference_change
    if change is not None and usual is not None and not change <= MAX_CHANGE * usual + LEAST_CHANGE:
        return (
            f"the samples between the measured ones change by {change:.2g} {unit} "
            f"when {SHARE:.0%} of these are left out, and those of l1-wavelet by {usual:.2g}"
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
    trial = trial_of(scan)
    if trial is None or reference is None:
        return []
    return measured(trial, scan, (estimate, network(trial.scan)), (reference, simple(trial.scan)))


def measured(
    trial: Trial, scan: Scan, network: tuple[Estimate, Estimate], simple: tuple[Estimate, Estimate]
) -> list[Trust]:
    """The measures of each slice of `scan`.

    network, simple: the estimates of the network, and of `classical`: of `scan`, and of the scan of the trial."""
    assert scan.mask is not None
    held, between = trial.held, trial.between
    image, predicted, whole, plain = (_unweighted(made) for made in (*network, *simple))
    unit = (_size(scan, held) if scan.noise is None else scan.noise).clamp_min(1e-20)
    misfit, errors, others = (_difference(x, scan) for x in (image, predicted, plain))
    measures = {
        "residual": None if scan.noise is None else _rms(misfit, scan.mask) / unit,
        "prediction": _rms(errors, held) / unit,
        "reference": _rms(others, held) / unit,
        "significance": _significance(errors, others, held),
        "reference_residual": None if scan.noise is None else _rms(others, scan.mask & ~held) / unit,
        "share": _share(errors * held, others * held) * trial.both_sides,
        "change": _rms(misfit - errors, between) / unit,
        "reference_change": _rms(_difference(whole, scan) - others, between) / unit,
    }
    some = held.flatten(1).any(dim=1).expand(len(image))
    given = {name: x for name, x in measures.items() if x is not None}
    rows = torch.stack([some, *given.values()]).tolist()  # a device is asked once
    values: dict[str, list[float | None]] = {name: [None] * len(image) for name in measures}
    values |= dict(zip(given, rows[1:], strict=True))
    for name in measures.keys() - {"residual", "reference_residual"}:
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


def _significance(errors: Tensor, others: Tensor, where: Tensor) -> Tensor:
    """(batch,): how many standard errors `errors` are above `others`, both (batch, echo, coil, y, x).

    Places `where` are compared one by one. The sum of the differences of their energies is divided by the root of
    the sum of squares. It is about normal with a variance of 1 where neither is better (Efron 1969, Student's t-test
    under symmetry conditions). It is found with these differences, and relative to the energies: strong and weak places
    count alike then. The larger one counts.
    """
    one, other = (_energy(x).sum(dim=(1, 2)) * where[:, 0, 0] for x in (errors, others))
    excess = torch.stack([one - other, (one - other) / (one + other).clamp_min(1e-30)])
    size = excess.square().sum(dim=(2, 3)).sqrt().clamp_min(1e-30)
    return (excess.sum(dim=(2, 3)) / size).amax(dim=0)


def _unweighted(estimate: Estimate) -> Tensor:
    """The image (batch, echo, set, y, x) in the scale of the maps."""
    assert estimate.image is not None
    return estimate.image[:, :, None] if estimate.unweighted is None else estimate.unweighted


def together(trusts: Sequence[Trust]) -> Trust | None:
    """The measures of all slices as those of one. None of no slices.

    These are root mean squares, the mean share, and the sum of the standard errors over its own (Stouffer 1949)."""
    if not trusts:
        return None

    def joint(name: str) -> float | None:
        there = [x for trust in trusts if (x := getattr(trust, name)) is not None]
        if not there:
            return None
        if name == "significance":
            return float(np.sum(there) / np.sqrt(len(there)))
        power = 1 if name == "share" else 2
        return float(np.mean(np.power(there, power)) ** (1 / power))

    return Trust(**{field.name: joint(field.name) for field in dataclasses.fields(Trust)})


def _difference(image: Tensor, scan: Scan) -> Tensor:
    """F S x - y (batch, echo, coil, y, x) of an image (batch, echo, set, y, x)."""
    assert scan.sens is not None
    difference: Tensor = fftc(expand(image, scan.sens[:, None], sets=True))[:, :, 0] - scan.kspace
    return difference


def _size(scan: Scan, where: Tensor) -> Tensor:
    """(batch,): root mean square of the samples `where`."""
    assert scan.kspace is not None
    return _rms(scan.kspace, where)


def _energy(values: Tensor) -> Tensor:
    return values.real**2 + values.imag**2


def _rms(values: Tensor, where: Tensor) -> Tensor:
    squares = _energy(values) * where
    count = where.expand(squares.shape).sum(dim=(1, 2, 3, 4)).clamp_min(1)
    total: Tensor = squares.sum(dim=(1, 2, 3, 4))
    return (total / count).sqrt()
