"""Memory of k-space and lines that is used again: the system clears new memory, which takes as long as filling it."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Spare"]

KEPT = 2
"""Pieces that are kept at most."""
KEPT_BYTES = 64 << 20
"""Larger pieces are not kept: there are few of them in a scan."""


@dataclass(frozen=True)
class Spare:
    """The memory of arrays that nobody uses any more, for the next ones of their size."""

    _pieces: list[NDArray[np.uint8]] = field(default_factory=list)

    def empty(self, shape: Sequence[int]) -> NDArray[np.complex64]:
        """Return an array whose values are arbitrary: mostly those of an earlier one.

        Its memory comes back here when nobody has the array any more, nor another view of its memory."""
        size = math.prod(shape) * np.dtype(np.complex64).itemsize
        piece: NDArray[np.uint8] | None = None
        while self._pieces and (piece is None or piece.nbytes != size):
            piece = self._pieces.pop()
        if piece is None or piece.nbytes != size:
            piece = np.empty(size, np.uint8)
        whole = np.frombuffer(piece.data, np.complex64)  # all views of it refer to this array, and not to `piece`
        weakref.finalize(whole, self._keep, piece).atexit = False
        return whole.reshape(shape)

    def _keep(self, piece: NDArray[np.uint8]) -> None:
        if len(self._pieces) < KEPT and piece.nbytes <= KEPT_BYTES:
            self._pieces.append(piece)
