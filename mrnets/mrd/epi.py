"""Echo-planar lines: those that run forwards and those that run backwards brought into phase by navigators.

Eddy currents and delays shift the echoes of the two directions against each other. In images that is a phase that is
linear along the readout, and ghosts come of it (Bruder 1992; Heid 1997). Phase-correction lines of both directions,
without phase encoding, tell the phase. Axes: line, coil, x for blocks of lines; z, y, coil, x for k-space.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.mrd.encoding import Encoding
from mrnets.mrd.flags import Flag, has_flag
from mrnets.mrd.kspace import Echo, clear_gaps
from mrnets.mrd.lines import Lines, take
from mrnets.mrd.plausible import TWICE, Repeats
from mrnets.mrd.readout import on_readout
from mrnets.mrd.refused import Refused
from mrnets.physics.arrays import array_namespace, asarray_like, to_numpy
from mrnets.physics.fourier import fftc, ifftc

__all__ = ["GHOSTS", "PhaseDifference", "phase_difference", "require_even", "united"]

GHOSTS = "lines of both directions came without phase-correction lines of both directions; there may be ghosts"
"""A sentence for the comment of images that could not be corrected."""

UNEVEN = 0.05
"""Deviation of one step between samples from their mean from which on they are not evenly spaced."""


@dataclass(frozen=True)
class PhaseDifference:
    """The phase of lines that run backwards, after they were turned round, minus that of lines that run forwards."""

    constant: float
    """rad, at the middle of the field of view."""
    slope: float
    """rad per pixel along x."""

    def half(self, size: int) -> NDArray[np.complex128]:
        """(x,): the factor that takes half of the difference away, over `size` pixels."""
        return np.exp(-0.5j * (self.constant + self.slope * (np.arange(size) - size // 2)))


def phase_difference(navigators: Sequence[Lines], encoding: Encoding) -> PhaseDifference | None:
    """The difference between the two directions, from phase-correction lines in the order in which they came.

    Every two neighbours of different directions count. With three or more (forwards, backwards, forwards, as Siemens
    has them) a phase that grows with time cancels. None: they are not of both directions, or without signal.
    Raises InputError for lines that do not fit the readout.
    """
    products: NDArray[np.complex128] | None = None
    lines = [take(block, np.asarray([n])) for block in navigators for n in range(len(block))]
    for first, second in itertools.pairwise(lines):
        backwards = [bool(has_flag(line.headers, Flag.IS_REVERSE)[0]) for line in (first, second)]
        if backwards[0] != backwards[1] and first.data.shape[1] == second.data.shape[1]:
            images = [_image(line, encoding) for line in (first, second)]
            forward, backward = images if backwards[1] else images[::-1]
            product = (np.conj(forward) * backward).sum(axis=0)
            if np.isfinite(product).all():
                products = product if products is None else products + product
    return None if products is None or not np.abs(products).sum() > 0 else _line_through(products)


def _image(line: Lines, encoding: Encoding) -> NDArray[np.complex128]:
    """(coil, x): one line in image space."""
    data = on_readout(line, encoding)[0]
    return np.asarray(to_numpy(data if encoding.volume else ifftc(data, axes=(-1,)))[0], np.complex128)


def _line_through(products: NDArray[np.complex128]) -> PhaseDifference:
    """The straight line through the phase of (x,), whose magnitudes are weights."""
    x = np.arange(len(products)) - len(products) // 2
    slope = float(np.angle(np.sum(products[1:] * np.conj(products[:-1]))))
    constant = float(np.angle(np.sum(products * np.exp(-1j * slope * x))))
    rest, weights = np.angle(products * np.exp(-1j * (constant + slope * x))), np.abs(products) ** 2
    mean = np.sum(weights * x) / np.sum(weights)
    spread = np.sum(weights * (x - mean) ** 2)
    tilt = float(np.sum(weights * (x - mean) * rest) / spread) if spread > 0 else 0.0
    shift = float(np.sum(weights * rest) / np.sum(weights)) - tilt * float(mean)
    return PhaseDifference(constant + shift, slope + tilt)


def united(echoes: Sequence[Echo], difference: PhaseDifference | None, encoding: Encoding) -> Echo:
    """One echo of the lines of both directions, brought into phase. Ends the use of `echoes`.

    echoes: of the lines that run forwards and of those that run backwards; or one, which is returned as it is.
    Raises InputError where the lines of a slice are of two partitions."""
    if len(echoes) == 1:
        return echoes[0]
    forwards, backwards = echoes
    if not encoding.volume and forwards.partition != backwards.partition:
        raise InputError(
            f"lines of one slice have kspace_encode_step_2 {forwards.partition} and {backwards.partition}, but "
            f"{encoding.name} has one partition; if it is 3-D, set sort.dimensions to 3d"
        )
    nearer, other = sorted((forwards, backwards), key=lambda echo: echo.distance)
    notes = forwards.notes | backwards.notes | ({} if difference else {GHOSTS: None})
    if (forwards.averages & backwards.averages).any():
        notes[TWICE] = None
    for echo in echoes:
        clear_gaps(echo)
    if difference is not None:
        _turn(forwards, np.conj(difference.half(encoding.reduced.matrix[0])), encoding)
        _turn(backwards, difference.half(encoding.reduced.matrix[0]), encoding)
    forwards.kspace += backwards.kspace
    first, last = np.minimum(nearer.times[:, 0], other.times[:, 0]), np.maximum(nearer.times[:, 1], other.times[:, 1])
    return replace(
        nearer,
        kspace=forwards.kspace,
        counts=forwards.counts + backwards.counts,
        start=np.maximum(forwards.start, backwards.start),
        stop=np.minimum(forwards.stop, backwards.stop),
        averages=forwards.averages | backwards.averages,
        times=np.stack([first, last], axis=-1),
        repeats=Repeats(
            forwards.repeats.energy + backwards.repeats.energy, forwards.repeats.samples + backwards.repeats.samples
        ),
        lines=forwards.lines + backwards.lines,
        outside=Refused.together([forwards.outside, backwards.outside]),
        refused=Refused.together([forwards.refused, backwards.refused]),
        centres=forwards.centres + backwards.centres,
        strength=None,
        notes=notes,
    )


def _turn(echo: Echo, factor: NDArray[np.complex128], encoding: Encoding) -> None:
    """Multiply the images of the lines of an echo by a factor (x,)."""
    xp = array_namespace(echo.kspace)
    turn = asarray_like(factor[echo.window], echo.kspace, dtype=xp.complex64)
    if encoding.volume:
        echo.kspace *= turn
    else:
        echo.kspace[...] = fftc(ifftc(echo.kspace, axes=(-1,)) * turn, axes=(-1,))


def require_even(lines: Lines) -> None:
    """Raises InputError for lines whose trajectory says that samples are not evenly spaced along the readout."""
    if lines.trajectory is None:
        return
    steps = np.diff(lines.trajectory[..., 0].astype(np.float64), axis=-1)
    mean = np.abs(steps.mean(axis=-1, keepdims=True)) if steps.size else steps
    uneven = (np.abs(np.abs(steps) - mean) > UNEVEN * mean).any(axis=-1)
    if uneven.any():
        first = int(lines.headers["scan_counter"][np.argmax(uneven)])
        raise InputError(
            f"acquisition {first} of an epi scan has samples that are not evenly spaced along the readout, as its "
            f"trajectory says; such lines must be regridded before"
        )
