"""Arrays of any library as torch tensors, whole scans or parts of their batch. Axes: see `mrnets.contract`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from array_api_compat import is_cupy_array, is_numpy_array
from torch.utils.dlpack import from_dlpack

from mrnets.contract import Estimate, Raw, Scan

__all__ = [
    "estimate_of",
    "handed_over",
    "joined",
    "lacks_memory",
    "part",
    "release_spare",
    "sent",
    "slices_in",
    "slices_of",
    "tensors",
    "to_torch",
]

SMALL = 1 << 16
"""Bytes, as of echo times."""


def to_torch(raw: Raw, device: torch.device | str | None = None) -> Raw:
    """Return `raw` with torch tensors on `device` (None: where they are). Memory is shared where that is possible."""
    names = [f.name for f in dataclasses.fields(raw)]
    values = tensors([getattr(raw, name) for name in names], device)
    return dataclasses.replace(raw, **dict(zip(names, values, strict=True)))


def handed_over(raw: Raw) -> Raw:
    """Return `raw` with CuPy's arrays as torch tensors in the same memory. All others stay as they are.

    CuPy has libraries and plans of its own for each thread, and a server has new threads for each scan. GDCC and
    ESPIRiT of a slice took 300 ms there (H200). Those of torch stay, and their operations can be recorded as graphs."""
    names = [f.name for f in dataclasses.fields(raw) if is_cupy_array(getattr(raw, f.name))]
    values = tensors([getattr(raw, name) for name in names])
    return dataclasses.replace(raw, **dict(zip(names, values, strict=True)))


def tensors(values: Iterable[Any], device: torch.device | str | None = None) -> Iterator[Any]:
    """Yield arrays as tensors on `device` (None: where they are). Other values stay as they are."""
    for x in values:
        if is_numpy_array(x):
            x = torch.from_numpy(x if x.flags.writeable else x.copy())
        elif is_cupy_array(x):  # a torch for processors alone, or for newer drivers, sees no device
            x = from_dlpack(x) if torch.cuda.is_available() else torch.from_numpy(x.get())
        yield x if device is None or not isinstance(x, torch.Tensor) else _moved(x, device)


def _moved(x: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Return a tensor on `device`. The host waits for large ones alone: pinned memory is kept for the next ones."""
    return sent(x, device) if x.nbytes <= SMALL else x.to(device)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error is a lack of memory, of the host or of a device.

    torch and CuPy have types for it. Triton and NVIDIA's libraries tell it by a RuntimeError: out of memory,
    CUFFT_ALLOC_FAILED, CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED."""
    text = str(error).lower()
    told = any(words in text for words in ("out of memory", "alloc_failed", "allocation_failed"))
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or (isinstance(error, RuntimeError) and told)


def release_spare() -> None:
    """Give memory of devices back that torch and CuPy keep for their next arrays. Neither has that of the other."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if (cupy := sys.modules.get("cupy")) is not None:
        cupy.get_default_memory_pool().free_all_blocks()


def sent(x: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Return a tensor on `device`. A CUDA device copies it from pinned memory by itself, and the host does not wait."""
    pinned = torch.device(device).type == "cuda" and x.device.type == "cpu"
    return (x.pin_memory() if pinned else x).to(device, non_blocking=pinned)


def part(raw: Raw, batch: slice) -> Raw:
    """Return a part of the batch. Arrays that are the same for all of it stay."""
    arrays = ("kspace", "mask", "calibration", "sens")
    values = {name: getattr(raw, name) for name in arrays}
    same = raw.mask.shape[0] == 1 and raw.kspace.shape[0] > 1
    cut = {name: x if x is None or (name == "mask" and same) else x[batch] for name, x in values.items()}
    return dataclasses.replace(raw, **cut)


def slices_of(scan: Scan, start: int, stop: int | None, step: int = 1) -> Scan:
    """Return a part of the batch. Arrays that are the same for all of it stay."""

    def own(name: str, x: Any) -> Any:
        return x if x is None or name == "echo_times" or x.shape[0] == 1 else x[start:stop:step]

    return Scan(**{f.name: own(f.name, getattr(scan, f.name)) for f in dataclasses.fields(Scan)})


def joined(scans: Sequence[Scan]) -> Scan:
    """Return slices of one form as a batch. They have the same echo times.

    Raises ValueError where some have an array that others lack, as the noise level where it is not known."""
    if len(scans) == 1:
        return scans[0]

    def batch(name: str) -> Any:
        arrays = [getattr(scan, name) for scan in scans]
        if name == "echo_times" or all(x is None for x in arrays):
            return arrays[0]
        if any(x is None for x in arrays):
            raise ValueError(f"{name} is not known for all slices of a batch")
        # Slices of a scan may share a mask, and each scan has its own.
        return torch.cat([x.expand(slices_in(scan), *x.shape[1:]) for x, scan in zip(arrays, scans, strict=True)])

    return Scan(**{f.name: batch(f.name) for f in dataclasses.fields(Scan)})


def slices_in(scan: Scan) -> int:
    """Return the size of a batch."""
    array: Any = scan.image if scan.kspace is None else scan.kspace
    return len(array)


def estimate_of(estimate: Estimate, some: slice) -> Estimate:
    """Return the estimate of some slices of a batch, without earlier steps."""

    def own(array: Any) -> Any:
        return None if array is None else array[some]

    return Estimate(
        image=own(estimate.image),
        unweighted=own(estimate.unweighted),
        maps={name: own(one) for name, one in estimate.maps.items()},
        logits=own(estimate.logits),
        trust=estimate.trust[some],
    )
