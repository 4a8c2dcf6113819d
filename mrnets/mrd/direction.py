"""Signs that lines run backwards without their flag: every second line of an image, as in echo-planar scans by Pulseq,
or all lines of an echo, as in bipolar multi-echo scans of some converters.

Axes as in `mrnets.contract.Raw`, the centre of k-space at n // 2.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mrnets.mrd.encoding import ByHand
from mrnets.mrd.flags import Flag, bits
from mrnets.mrd.lines import Lines
from mrnets.physics.arrays import Array
from mrnets.physics.fourier import ifftc, resize

__all__ = ["along_readout", "around_centre", "backwards_doubt", "directed", "directed_headers", "opposite_doubt"]

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
SAME = 0.9
"""Agreement of the profiles of two echoes, at least, once one of them is turned round."""
CLOSER = 0.4
"""So much of their difference may be left by that. Real echoes with their flags had more than 3 times of it, and
symmetric objects in noise 0.59 at least. Echoes of a brain that were turned round had 0.3 at most, with one coil."""
DIFFERENT = 5e-4
"""A smaller difference tells nothing: rounding makes it."""


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


def along_readout(lines: Array, *, image: bool) -> NDArray[np.float64]:
    """Return (coil, x): the amplitude of all lines at each position along the readout, on the host.

    lines: (coil, line, x), NumPy. image: x is in image space, as in volumes."""
    pixels = np.asarray(lines if image else ifftc(lines, axes=(-1,)), np.complex128)
    return np.linalg.norm(pixels, axis=1)


def opposite_doubt(profiles: Sequence[NDArray[np.float64]], contrasts: Sequence[int]) -> str:
    """Return a sentence where echoes agree better with the one before when it is turned round; empty elsewhere.

    The amplitude along the readout does not know the phase, so that off-resonance does not matter. profiles: (coil, x)
    of each echo, as `along_readout` returns them; contrasts: their numbers."""
    turns = [_turned(before, after) for before, after in itertools.pairwise(profiles)]
    opposite = np.concatenate([[False], np.logical_xor.accumulate(turns)]) if turns else np.zeros(1, bool)
    if not opposite.any():
        return ""
    named = ", ".join(str(contrast) for contrast, other in zip(contrasts, opposite, strict=True) if other)
    return (
        f"contrast {named} seems to run against contrast {contrasts[0]} along the readout, and its image is wrong if "
        f"flag 22 was not set; sort.reversed_contrasts sets it for contrasts 1, 3, 5"
    )


def _turned(before: NDArray[np.float64], after: NDArray[np.float64]) -> bool:
    """Whether the profile (coil, x) of an echo is that of the echo before, turned round."""
    if before.shape != after.shape:
        return False
    mirrored = np.roll(before[:, ::-1], 1 - before.shape[-1] % 2, axis=-1)
    norms = np.linalg.norm(before) * np.linalg.norm(after)
    if not (np.isfinite(norms) and norms > 0):
        return False
    straight, backwards = (1 - float((own * after).sum()) / norms for own in (before, mirrored))
    return straight > DIFFERENT and backwards < CLOSER * straight and backwards < 1 - SAME


def directed(lines: Lines, by_hand: ByHand) -> Lines:
    """Return lines with the flag of those that a user knows to run backwards."""
    headers = directed_headers(lines.headers, by_hand)
    return lines if headers is lines.headers else replace(lines, headers=headers)


def directed_headers(headers: NDArray[np.void], by_hand: ByHand) -> NDArray[np.void]:
    """Return headers (line,) with the flag of lines that a user knows to run backwards; noise has no direction."""
    if by_hand.reversed_contrasts == "flagged":
        return headers
    odd = headers["idx"]["contrast"] % 2 == 1
    changed = headers.copy()
    changed["flags"][odd] |= np.uint64(bits(Flag.IS_REVERSE))
    return changed
