"""What stands around ATOMMIC's networks: the order of the axes, empty coils, and the scaling of logits.

Each function takes a network and gives it back with hooks.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from mrnets.blocks.encoding import name_of
from mrnets.contract import Estimate, Scan
from mrnets.errors import InputError

__all__ = ["with_empty_coils", "with_min_max", "with_transposed"]

_SMALLEST = 1e-6
"""Least probability of a class, so that logits are finite."""


def with_min_max(network: nn.Module, *, min_max: bool = False) -> nn.Module:
    """`network`; with `min_max` the sigmoid of its logits is what ATOMMIC gives.

    That are the logits of a sample with their least value taken to 0 and their largest to 1, over all classes. ATOMMIC
    trained with the Dice of these numbers as probabilities. A class is where they are above one half.
    """
    if min_max:
        network.register_forward_hook(_as_probabilities)
    return network


def _as_probabilities(network: nn.Module, inputs: object, estimate: Estimate) -> Estimate:
    logits = estimate.logits
    assert isinstance(logits, Tensor)
    low, high = (limit.reshape(-1, *[1] * (logits.ndim - 1)) for limit in torch.aminmax(logits.flatten(1), dim=1))
    span = high - low
    share = (logits - low) / torch.where(span > 0, span, torch.ones_like(span))
    return dataclasses.replace(estimate, logits=torch.logit(share, eps=_SMALLEST))


def with_empty_coils(network: nn.Module, *, given_coils: int | None = None) -> nn.Module:
    """`network` of a fixed number of coils; with `given_coils` it gets so many, and zeros in place of the others.

    Raises InputError for another number of coils in the scan.
    """
    if given_coils is None:
        return network
    coils = int(network.coils)  # type: ignore[arg-type]
    if not 1 <= given_coils <= coils:
        raise InputError(f"given_coils must be from 1 to the coils of the network, {coils}, not {given_coils}")

    def filled(module: nn.Module, inputs: tuple[Scan]) -> tuple[Scan]:
        (scan,) = inputs
        changed = {}
        for name in ("kspace", "sens"):
            array = getattr(scan, name)
            if array is None:
                continue
            if array.shape[-3] != given_coils:
                raise InputError(f"{name_of(module)} takes {given_coils} coils, and the scan has {array.shape[-3]}")
            empty = torch.zeros_like(array[..., :1, :, :]).expand(*array.shape[:-3], coils - given_coils, -1, -1)
            changed[name] = torch.cat((array, empty), dim=-3)
        return (dataclasses.replace(scan, **changed),)

    network.register_forward_pre_hook(filled)
    return network


def with_transposed(network: nn.Module, *, transposed: bool = False) -> nn.Module:
    """`network`; with `transposed` it sees planes whose axes are exchanged: undersampled along x, readout along y."""
    if transposed:
        network.register_forward_pre_hook(lambda module, inputs: (_swapped_scan(inputs[0]),))
        network.register_forward_hook(lambda module, inputs, estimate: _swapped(estimate))
    return network


def _swapped_scan(scan: Scan) -> Scan:
    planes = ("kspace", "mask", "sens", "image", "calibration")
    return dataclasses.replace(scan, **{name: _mirrored(getattr(scan, name)) for name in planes})


def _swapped(estimate: Estimate) -> Estimate:
    return dataclasses.replace(
        estimate,
        image=_mirrored(estimate.image),
        maps={name: _mirrored(array) for name, array in estimate.maps.items()},
        logits=_mirrored(estimate.logits),
        steps=tuple(_swapped(step) for step in estimate.steps),
    )


def _mirrored(planes: Tensor | None) -> Tensor | None:
    return None if planes is None else planes.mT
