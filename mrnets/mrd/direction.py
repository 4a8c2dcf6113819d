"""Signs that every second line of an image runs backwards without its flag, as in echo-planar scans by Pulseq.

Axes as in `mrnets.contract.Raw`, the centre of k-space at n // 2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mrnets.physics.arrays import Array, to_numpy

__all__ = ["backwards_doubt"]

LINES = 64
"""Lines around the centre that are looked at, at most."""
LEAST = 8
"""Fewer pairs of neighbours tell nothing."""
SHIFTS = (-2, -1, 0, 1, 2)
"""Samples by which one of two neighbours may be late: the echoes of both directions are."""
ALIKE = 0.4
"""Agreement of neighbours, at least. Those that are turned round had 0.8."""
BETTER = 1.1
"""Agreement of neighbours that are turned round, relative to that of lines as they are. Scans of all kinds had 1.0 at
most, and echo-planar scans without flags 1.16 at least."""


def backwards_doubt(kspace: Array, mask: NDArray[np.bool_]) -> str:
    """Return a sentence where lines agree better with their neighbours when these are turned round; empty elsewhere.

    kspace: (batch, echo, coil, y, x) of a slice, of which the first echo counts. mask: (y, x)."""
    start = max(mask.shape[0] // 2 - LINES // 2, 0)
    sampled = np.asarray(mask.any(axis=1))[start : start + LINES]
    pairs = np.flatnonzero(sampled[:-1] & sampled[1:])
    if len(pairs) < LEAST:
        return ""
    lines = np.moveaxis(to_numpy(kspace[0, 0, :, start : start + LINES]), 1, 0).astype(np.complex128)
    turned = np.roll(lines[..., ::-1], 1 - lines.shape[-1] % 2, axis=-1)  # the sample at n // 2 stays there
    straight, backwards = (_agreement(some[pairs], lines[pairs + 1]) for some in (lines, turned))
    if not (backwards > BETTER * straight and backwards > ALIKE):
        return ""
    return (
        f"every second line seems to run backwards: neighbours agree to {100 * straight:.0f} % as they came, and to "
        f"{100 * backwards:.0f} % where one of them is turned round; the image is wrong if their flag (22) was not set"
    )


def _agreement(lines: NDArray[np.complex128], others: NDArray[np.complex128]) -> float:
    """Return how alike lines (line, coil, x) are to others, from 0 to 1, at the shift at which each is most alike."""
    shifted = np.stack([np.roll(lines, shift, axis=-1) for shift in SHIFTS])
    products = np.abs(np.einsum("slcx,lcx->sl", shifted.conj(), others)).max(axis=0)
    norms = np.linalg.norm(lines, axis=(1, 2)) * np.linalg.norm(others, axis=(1, 2))
    return float(products.sum() / norms.sum()) if norms.any() else 0.0
