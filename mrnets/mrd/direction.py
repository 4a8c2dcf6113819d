"""Signs that every second line of an image runs backwards without its flag, as in echo-planar scans by Pulseq.

Axes as in `mrnets.contract.Raw`, the centre of k-space at n // 2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mrnets.physics.arrays import Array
from mrnets.physics.fourier import resize

__all__ = ["around_centre", "backwards_doubt"]

LINES = 64
"""Lines around the centre that are looked at, at most."""
LOOKED_AT = 8, 32
"""Coils and samples of a line, in the middle of k-space, at most. On real scans all of them told the same."""
LEAST = 8
"""Fewer pairs of neighbours tell nothing."""
SHIFTS = (-2, -1, 0, 1, 2)
"""Samples by which one of two neighbours may be late: the echoes of both directions are."""
ALIKE = 0.4
"""Agreement of neighbours, at least. Those that are turned round had 0.8."""
BETTER = 1.1
"""Agreement of neighbours that are turned round, relative to that of lines as they are. Scans of all kinds had 1.0 at
most, and echo-planar scans without flags 1.16 at least."""


def around_centre(kspace: Array) -> Array:
    """Return (coil, line, x): some coils of the middle of the lines around the centre. A view.

    kspace: (batch, echo, coil, y, x) of a slice, of which the first echo counts."""
    coils, samples = LOOKED_AT
    some = kspace[0, 0, :: -(-kspace.shape[2] // coils), _lines(kspace.shape[-2])]
    return resize(some, (min(samples, some.shape[-1]),), axes=(-1,))


def _lines(size: int) -> slice:
    """Return the lines around the centre of a matrix."""
    start = max(size // 2 - LINES // 2, 0)
    return slice(start, start + LINES)


def backwards_doubt(around: NDArray[np.complex64], mask: NDArray[np.bool_]) -> str:
    """Return a sentence where lines agree better with their neighbours when these are turned round; empty elsewhere.

    around: (coil, line, x) of a slice, as `around_centre` returns it. mask: (y, x)."""
    sampled = np.asarray(mask.any(axis=1))[_lines(mask.shape[0])]
    pairs = np.flatnonzero(sampled[:-1] & sampled[1:])
    if len(pairs) < LEAST:
        return ""
    lines = np.moveaxis(around, 1, 0)
    lines = lines / max(float(np.abs(lines).max()), np.finfo(np.float32).tiny)  # their squares do not overflow
    turned = np.roll(lines[..., ::-1], 1 - lines.shape[-1] % 2, axis=-1)  # the sample at n // 2 stays there
    straight, backwards = (_agreement(own[pairs], lines[pairs + 1]) for own in (lines, turned))
    if not (backwards > BETTER * straight and backwards > ALIKE):
        return ""
    return (
        f"every second line seems to run backwards: neighbours agree to {100 * straight:.0f} % as they came, and to "
        f"{100 * backwards:.0f} % where one of them is turned round; the image is wrong if their flag (22) was not set"
    )


def _agreement(lines: NDArray[np.complex64], others: NDArray[np.complex64]) -> float:
    """Return how alike lines (line, coil, x) are to others, from 0 to 1, at the shift at which each is most alike."""
    n, own = lines.shape[-1], lines.conj()
    shifted = ((own[..., max(-s, 0) : n - max(s, 0)], others[..., max(s, 0) : n - max(-s, 0)]) for s in SHIFTS)
    products = np.abs([np.einsum("lcx,lcx->l", *pair) for pair in shifted]).max(axis=0)
    norms = np.linalg.norm(lines, axis=(1, 2)) * np.linalg.norm(others, axis=(1, 2))
    return float(products.sum() / norms.sum()) if norms.any() else 0.0
