"""How far a network's image can be trusted, from the data of the scan alone.

Two measures for each slice. The residual says whether the image agrees with the measured samples. The prediction error
says whether the network has seen what it did not measure: some samples are left out, the network reconstructs without
them, and its image predicts them. l1-wavelet does the same, and a network that predicts worse adds nothing but errors.

Axes: see `mrnets.contract`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrnets.blocks.consistency import sparse
from mrnets.blocks.encoding import Encoding, initial_image
from mrnets.contract import Estimate, Scan
from mrnets.physics.coils import expand
from mrnets.physics.fourier import fftc
from mrnets.physics.masks import calibration_region

__all__ = ["MAX_RESIDUAL", "MAX_WORSE", "Trust", "examined", "left_out"]

SHARE = 0.06
"""Share of the samples outside the fully sampled centre that are left out, and at least `LEAST` of them."""
LEAST = 2
CENTRE = 24
"""Samples along each axis, at most, that are never left out."""
REFERENCE_ITERATIONS = 40
"""Of l1-wavelet, without the samples that are left out."""
MAX_RESIDUAL = 2.0
"""The residual over that of l1-wavelet, or over the noise where that is larger. Sensitivities explain not all of a scan
with little noise: there the residual is 3 to 11 for every method."""
MAX_WORSE = 1.1
"""The network's prediction error over that of l1-wavelet."""


@dataclass(frozen=True)
class Trust:
    """Measures of one or several slices together."""

    residual: float
    """Root mean square of E x - y over the measured samples, in standard deviations of their noise; 1 is right."""
    prediction: float
    """Root mean square error of the predicted left-out samples, in the same unit; 1 cannot be undercut."""
    reference: float
    """The prediction error of l1-wavelet."""
    reference_residual: float
    """The residual of l1-wavelet."""

    def doubt(self) -> str:
        """What speaks against the image, in a few words; empty: nothing does."""
        if not self.residual <= MAX_RESIDUAL * max(self.reference_residual, 1.0):
            return (
                f"its image differs from the measured samples by {self.residual:.3g} times their noise, "
                f"that of l1-wavelet by {self.reference_residual:.3g}"
            )
        if not self.prediction <= MAX_WORSE * self.reference:
            return (
                f"it predicts samples that were left out with an error of {self.prediction:.3g} times their noise, "
                f"l1-wavelet with {self.reference:.3g}"
            )
        return ""


def examined(network: Callable[[Scan], Estimate], scan: Scan, image: Tensor) -> Trust | None:
    """The measures of `image` (batch, echo, y, x), which `network` made of `scan`; None where they cannot be had.

    They need sensitivities, the noise level, and samples outside a fully sampled centre. It costs one more run of the
    network, and one of l1-wavelet.
    """
    if scan.kspace is None or scan.mask is None or scan.sens is None or scan.noise is None:
        return None
    held = left_out(scan.mask)
    if held is None:
        return None
    kept = scan.mask & ~held
    kspace = torch.where(kept, scan.kspace, torch.zeros_like(scan.kspace))
    without = dataclasses.replace(scan, kspace=kspace, mask=kept)
    encoding = Encoding(kspace, kept, scan.sens, initial_image(kspace, kept, scan.sens))
    predicted = network(without).image
    assert predicted is not None
    classical = sparse(encoding, scan.noise, iterations=REFERENCE_ITERATIONS)
    return Trust(
        residual=_misfit(image, scan, scan.mask),
        prediction=_misfit(predicted, scan, held),
        reference=_misfit(classical, scan, held),
        reference_residual=_misfit(classical, scan, kept),
    )


def left_out(mask: Tensor) -> Tensor | None:
    """Samples (1, 1, 1, y, x) bool to leave out of `mask`; None where there are too few outside of its centre.

    Whole lines where all sampled lines have the same samples, else single places. They are spread from the centre
    outwards, so that some hold signal. They are the same for all scans with that mask.
    """
    sampled = mask.reshape(-1, *mask.shape[-2:]).all(dim=0).cpu().numpy()
    rows, columns = (np.asarray(sampled.any(axis=axis, keepdims=True)) for axis in (1, 0))
    centre = _block(sampled.shape, [min(n, CENTRE) for n in calibration_region(sampled)])
    if (sampled == (rows & columns)).all():
        held = _spread(rows & ~centre.any(axis=1, keepdims=True))
    else:
        held = _spread(sampled & ~centre)
    if held is None:
        return None
    return torch.from_numpy(held & sampled).to(mask.device)[None, None, None]


def _block(shape: tuple[int, ...], size: Sequence[int]) -> NDArray[np.bool_]:
    """(y, x): true in the middle `size` samples, as `fourier.resize` crops."""
    block = np.zeros(shape, bool)
    block[tuple(slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(shape, size, strict=True))] = True
    return block


def _spread(places: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Some of the `places`, evenly spread by their distance from the centre; None where there are too few."""
    found = np.argwhere(places)
    count = max(round(SHARE * len(found)), LEAST)
    if len(found) < 2 * count:
        return None
    middle = np.array(places.shape) // 2
    order = np.argsort((np.abs(found - middle) / np.maximum(middle, 1)).sum(axis=1), kind="stable")
    chosen = found[order[np.arange(count) * len(found) // count]]
    held = np.zeros_like(places)
    held[tuple(chosen.T)] = True
    return held


def _misfit(image: Tensor, scan: Scan, where: Tensor) -> float:
    """Root mean square of E x - y over the samples `where`, in standard deviations of their noise."""
    assert scan.kspace is not None
    assert scan.noise is not None
    difference = (fftc(expand(image, scan.sens)) - scan.kspace) / scan.noise[:, None, None, None, None]
    squares = (difference.real**2 + difference.imag**2) * where
    count = where.expand(squares.shape).sum()
    return float((squares.sum() / count).sqrt())
