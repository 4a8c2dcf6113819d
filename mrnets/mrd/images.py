"""The lines that make one image, and the echo times in the header."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from ismrmrd.xsd import ismrmrdHeader
from numpy.typing import NDArray

__all__ = ["Key", "by_image", "distinct", "echo_times"]


class Key(NamedTuple):
    """The counters that the lines of one image share, in the order in which images are finished together."""

    repetition: int
    set: int
    phase: int
    slice: int
    encoding: int
    """The encoding space."""

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in zip(self._fields[:4], self[:4], strict=True))


def by_image(headers: NDArray[np.void], encoding: int) -> Iterator[tuple[Key, int, NDArray[np.int64]]]:
    """The image, the contrast and the indices of its lines, for each echo in lines (line,) of one encoding space.
    Echoes come in the order of their first lines."""
    if len(headers):
        counters = [headers["idx"][name] for name in (*Key._fields[:4], "contrast")]
        for (repetition, set_, phase, slice_, contrast), which in distinct(np.stack(counters, axis=-1)):
            yield Key(repetition, set_, phase, slice_, encoding), contrast, which


def distinct(rows: NDArray[np.generic]) -> Iterator[tuple[tuple[int, ...], NDArray[np.int64]]]:
    """Each distinct row of (line, field), in order of first appearance, and the lines that have it."""
    if (rows == rows[0]).all():
        yield tuple(int(value) for value in rows[0]), np.arange(len(rows))
        return
    unique, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(inverse.reshape(-1), kind="stable")
    lines = np.split(order, np.cumsum(np.bincount(inverse.reshape(-1)))[:-1])
    for n in np.argsort(first):
        yield tuple(int(value) for value in unique[n]), lines[n]


def echo_times(header: ismrmrdHeader, contrasts: Sequence[int]) -> NDArray[np.float32] | None:
    """(echo,) s, from the header's TE in ms; None where it does not tell all of them."""
    sequence = header.sequenceParameters
    times = [] if sequence is None else list(sequence.TE)
    if max(contrasts) >= len(times):
        return None
    return np.asarray([float(times[n]) * 1e-3 for n in contrasts], np.float32)
