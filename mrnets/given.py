"""Raw data of arrays that a user gives, checked. Axes: see `raw_of`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from array_api_compat import is_array_api_obj
from torch import Tensor

from mrnets.contract import Raw
from mrnets.errors import InputError, counted
from mrnets.mrd.calibration import centre_block
from mrnets.physics.arrays import Array, to_numpy
from mrnets.physics.fourier import ifftc
from mrnets.physics.whiten import covariance
from mrnets.stages import complete_axes
from mrnets.tensors import tensors

__all__ = ["raw_of"]

_AXES = {3: "coil, y, x", 4: "slice, coil, y, x", 5: "slice, echo, coil, y, x"}
_VOLUME_AXES = {4: "coil, z, y, x", 5: "echo, coil, z, y, x"}


def raw_of(
    kspace: Array,
    *,
    mask: Array | None = None,
    calibration: Array | None = None,
    noise: Array | None = None,
    echo_times: Sequence[float] | None = None,
    volume: bool = False,
    device: torch.device | str | None = None,
) -> Raw:
    """Return the arrays of a scan as `Raw`: torch tensors on `device` (None: where `kspace` is).

    Arguments as of `mrnets.reconstruct`. Raises InputError, in one sentence, for whatever does not fit together.
    """
    data = _kspace(kspace, device, volume=volume)
    sampled = _mask(mask, data, volume=volume)
    data = torch.where(sampled[:, None, None], data, 0)
    if not bool(torch.any(data != 0)):
        raise InputError("kspace: all samples are zero")
    block = None if calibration is None else _calibration(calibration, data, volume=volume)
    if volume:
        data, sampled = _along_batch(data[0]), sampled[:, :, :, 0]
        block = None if block is None else _along_batch(block)
    if block is None:
        block = centre_block(data, to_numpy(sampled).all(axis=0))
    sampled = sampled[:, None, None]
    return Raw(
        kspace=data,
        mask=sampled,
        calibration=block,
        noise=None if noise is None else _covariance(noise, data),
        echo_times=None if echo_times is None else _echo_times(echo_times, data),
        readout="batch" if volume else "x" if complete_axes(sampled)[1] else None,
    )


def _tensor(what: str, values: Any, device: torch.device | str | None) -> Tensor:
    """Return an array as a tensor. Raises InputError for what is no array, and for values that are not finite."""
    if not is_array_api_obj(values):
        raise InputError(f"{what} must be an array of NumPy, CuPy or torch, got {type(values).__name__}")
    (tensor,) = tensors((values,), device)
    if not bool(torch.isfinite(torch.view_as_real(tensor) if tensor.is_complex() else tensor).all()):
        raise InputError(f"{what}: some values are NaN or infinite")
    return tensor.detach()


def _complex(what: str, values: Any, device: torch.device | str | None) -> Tensor:
    tensor = _tensor(what, values, device)
    if not tensor.is_complex():
        raise InputError(f"{what} must be complex, got {str(tensor.dtype).removeprefix('torch.')}")
    return tensor.to(torch.complex64).resolve_conj()


def _kspace(kspace: Array, device: torch.device | str | None, *, volume: bool) -> Tensor:
    """(slice, echo, coil, y, x), or (1, echo, coil, z, y, x) of a volume."""
    data = _complex("kspace", kspace, device)
    known = _VOLUME_AXES if volume else _AXES
    if data.ndim not in known or 0 in data.shape:
        axes = " or ".join(f"({names})" for names in known.values())
        raise InputError(f"kspace must have the axes {axes}, got the shape {tuple(data.shape)}")
    if volume:
        return data[None] if data.ndim == 5 else data[None, None]
    return data if data.ndim == 5 else data.reshape(-1, 1, *data.shape[-3:])


def _mask(mask: Array | None, data: Tensor, *, volume: bool) -> Tensor:
    """(slice or 1, y, x) bool, or (1, z, y, 1) of a volume."""
    if mask is None:
        return _sampled(data, volume=volume)
    given = _tensor("mask", mask, data.device) != 0
    plane = tuple(data.shape[-3:-1] if volume else data.shape[-2:])
    shape = tuple(given.shape)
    if shape != plane and (volume or shape != (len(data), *plane)):
        axes = "(z, y)" if volume else "([slice,] y, x)"
        raise InputError(f"mask must be {axes} with the plane {plane}, as kspace has, got the shape {shape}")
    given = given.reshape(-1, *plane)
    return given[..., None] if volume else given


def _sampled(data: Tensor, *, volume: bool) -> Tensor:
    """Where a sample of any coil is not zero. Raises InputError where echoes differ in that."""
    sampled = (data != 0).any(dim=2)
    if volume:
        sampled = sampled.any(dim=-1, keepdim=True)
    if not bool((sampled == sampled[:, :1]).all()):
        raise InputError("kspace: the echoes were sampled differently, and one mask is taken for all of them")
    return sampled[:, 0]


def _calibration(calibration: Array, data: Tensor, *, volume: bool) -> Tensor:
    """(slice, 1, coil, y', x'), or (1, coil, z', y', x) of a volume."""
    block = _complex("calibration", calibration, data.device)
    coils, width = data.shape[2], data.shape[-1]
    if volume:
        if block.ndim != 4 or block.shape[0] != coils or block.shape[-1] != width:
            wanted = f"(coil, z, y, x) with {counted(coils, 'coil')} and x = {width}"
            raise InputError(f"calibration must be {wanted}, as kspace has, got the shape {tuple(block.shape)}")
        return block[None]
    many = block.reshape(-1, *block.shape[-3:]) if block.ndim in (3, 4) else block[None]
    if many.ndim != 4 or many.shape[1] != coils or len(many) != len(data):
        wanted = f"([slice,] coil, y, x) with {counted(len(data), 'slice')} and {counted(coils, 'coil')}"
        raise InputError(f"calibration must be {wanted}, as kspace has, got the shape {tuple(block.shape)}")
    return many[:, None]


def _along_batch(data: Tensor) -> Tensor:
    """k-space (echo, coil, z, y, x) of a volume as (x, echo, coil, z, y), inverse-transformed along x."""
    return ifftc(data, axes=(-1,)).movedim(-1, 0).contiguous()


def _covariance(noise: Array, data: Tensor) -> Tensor:
    """(coil, coil) complex64, of noise samples or as it is given."""
    given = _complex("noise", noise, data.device)
    coils = data.shape[2]
    if given.ndim != 2 or given.shape[0] != coils:
        wanted = f"(coil, sample), or a covariance (coil, coil), of {counted(coils, 'coil')}"
        raise InputError(f"noise must be {wanted}, got the shape {tuple(given.shape)}")
    return given if given.shape[1] == coils else covariance(given)


def _echo_times(echo_times: Sequence[float], data: Tensor) -> Tensor:
    times = [float(t) for t in echo_times]
    if len(times) != data.shape[1] or not all(0 < t < math.inf for t in times):
        raise InputError(f"echo_times must be one time in seconds for {counted(data.shape[1], 'echo')}, got {times}")
    return torch.tensor(times, device=data.device)
