"""Gadgetron's ReconData, which its own gadgets have sorted, as the lines it was made of. No import of `gadgetron`.

Axes of its buffers: data [E0, E1, E2, CHA, N, S, LOC], headers [E1, E2, N, S, LOC]. E0 is x, the readout, with its
centre at E0 // 2. The chain that made them chooses the meaning of N and S. A position without a line has a header
without samples. Headers keep the counters of their lines, so that nothing else is needed to sort them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrnets.errors import InputError
from mrnets.mrd.flags import Flag, bits, has_flag
from mrnets.mrd.lines import ACQUISITION_HEADER, Item, Lines

__all__ = ["is_recon_data", "lines_of"]


def is_recon_data(item: Item) -> bool:
    """Whether `item` is a ReconData message."""
    return type(item).__name__ == "ReconData" and hasattr(item, "bits")


def lines_of(item: Item, embedded: Callable[[int], bool]) -> Iterator[Lines]:
    """All lines of a ReconData, calibration lines first; `embedded`: whether those of a space are image lines, too.

    Raises InputError for parts that do not fit together."""
    for index, bit in enumerate(item.bits):
        if bit.ref is not None:
            headers, samples = _filled(bit.ref, f"the reference of bit {index}")
            if len(headers) and embedded(index):  # lines for both are in the data already
                only = has_flag(headers, _CALIBRATION) & ~has_flag(headers, _BOTH)
                headers, samples = headers[only], samples[only]
            headers["flags"] |= np.uint64(bits(_CALIBRATION))
            headers["flags"] &= ~np.uint64(bits(_BOTH))
            yield from _lines(headers, samples, index)
    for index, bit in enumerate(item.bits):
        headers, samples = _filled(bit.data, f"bit {index}")
        headers["flags"] &= ~np.uint64(bits(_CALIBRATION))
        yield from _lines(headers, samples, index)


_CALIBRATION = Flag.IS_PARALLEL_CALIBRATION
_BOTH = Flag.IS_PARALLEL_CALIBRATION_AND_IMAGING


def _filled(buffer: Any, name: str) -> tuple[NDArray[np.void], NDArray[Any]]:
    """Headers (line,) and samples (line, coil, E0) of the places that have a line."""
    data, heads = np.asarray(buffer.data).T, np.asarray(buffer.headers).T
    if data.size == 0:
        return np.empty(0, ACQUISITION_HEADER), np.empty((0, 0, 0), np.complex64)
    if data.ndim != 7 or heads.shape != (*data.shape[:3], *data.shape[4:6]):
        raise InputError(
            f"{name} of ReconData has data of shape {data.T.shape} and headers of shape {heads.T.shape}, "
            f"which do not fit together"
        )
    headers = np.frombuffer(b"".join(bytes(head) for head in heads.flat), ACQUISITION_HEADER).reshape(heads.shape)
    filled = headers["number_of_samples"] > 0
    return headers[filled], np.moveaxis(data, 3, -2)[filled]


def _lines(headers: NDArray[np.void], samples: NDArray[Any], index: int) -> Iterator[Lines]:
    if len(headers):
        placed = _placed(headers, samples.shape, index)
        yield Lines(placed, np.ascontiguousarray(samples, np.complex64))


def _placed(headers: NDArray[np.void], shape: tuple[int, ...], index: int) -> NDArray[np.void]:
    """Headers for lines whose centre is at E0 // 2 of the buffer; what was not measured is discarded."""
    size = shape[-1]
    before = size // 2 - headers["center_sample"].astype(np.int64)
    start = before + headers["discard_pre"]
    stop = before + headers["number_of_samples"] - headers["discard_post"]
    placed = headers.copy()
    placed["active_channels"], placed["number_of_samples"] = shape[-2:]
    placed["trajectory_dimensions"] = 0
    placed["center_sample"] = size // 2
    placed["discard_pre"] = np.clip(start, 0, size)
    placed["discard_post"] = np.clip(size - stop, 0, size)
    placed["encoding_space_ref"] = index
    return placed
