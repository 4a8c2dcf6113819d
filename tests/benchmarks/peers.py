"""The networks that `bench_networks` compares: ours, and those of ATOMMIC, DIRECT and fastMRI at the same options.

Every maker takes k-space and maps (1, coil, y, x) complex64 and a mask (1, 1, y, x) bool. It gives a function without
arguments that returns the image. The peers are given the maps, as ours are.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

__all__ = ["MAKERS", "OURS"]

Run = Callable[[], Tensor]
_RIM = {
    "recurrent_layer": "IndRNN",
    "conv_filters": [128, 128, 2],
    "conv_kernels": [5, 3, 3],
    "conv_dilations": [1, 2, 1],
    "conv_bias": [True, True, False],
    "recurrent_filters": [128, 128, 0],
    "recurrent_kernels": [1, 1, 0],
    "recurrent_dilations": [1, 1, 0],
    "recurrent_bias": [True, True, False],
}
_ORTHONORMAL: dict[str, Any] = {"fft_centered": True, "fft_normalization": "ortho", "spatial_dims": [-2, -1]}


def ours(name: str, kspace: Tensor, sens: Tensor, mask: Tensor) -> Run:
    from mrnets import store
    from mrnets.contract import Scan

    network = store.create(name).eval()
    scan = Scan(kspace=kspace[:, None], mask=mask[:, None], sens=sens[:, None])
    return lambda: network(scan).image


def _fastmri_varnet(kspace: Tensor, sens: Tensor, mask: Tensor) -> Run:
    from fastmri.models.varnet import NormUnet, VarNetBlock

    cascades = torch.nn.ModuleList(VarNetBlock(NormUnet(18, 4)) for _ in range(8))
    y, maps, mask = torch.view_as_real(kspace), torch.view_as_real(sens), mask[..., None]

    def run() -> Tensor:
        k = y
        for cascade in cascades:
            k = cascade(k, y, mask, maps)
        return cascades[0].sens_reduce(k, maps)

    return run


def _fastmri_unet(kspace: Tensor, sens: Tensor, mask: Tensor) -> Run:
    from fastmri.models.varnet import NormUnet, VarNetBlock

    unet = NormUnet(64, 4)
    y, maps = torch.view_as_real(kspace), torch.view_as_real(sens)
    block = VarNetBlock(unet)
    return lambda: unet(block.sens_reduce(y, maps))


class _WithoutParents:
    """Finds the packages of ATOMMIC as bare folders, so that a network's file can be had without Lightning and NeMo."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] != "atommic":
            return None
        found = PathFinder.find_spec(name, path)
        if found is None or found.submodule_search_locations is None:
            return found
        bare = ModuleSpec(name, None, is_package=True)
        bare.submodule_search_locations = list(found.submodule_search_locations)
        return bare


def _atommic(module: str) -> Any:
    if _WithoutParents not in sys.meta_path:
        sys.meta_path.insert(0, _WithoutParents)
    return importlib.import_module(f"atommic.collections.reconstruction.nn.{module}")


def _atommic_unet_block(channels: int) -> Any:
    return _atommic("unet_base.unet_block").NormUnet(chans=channels, num_pools=4, padding_size=11)


def _atommic_varnet(kspace: Tensor, sens: Tensor, mask: Tensor) -> Run:
    make = _atommic("varnet_base.varnet_block").VarNetBlock
    cascades = torch.nn.ModuleList(make(_atommic_unet_block(18), **_ORTHONORMAL) for _ in range(8))
    y, maps, mask = torch.view_as_real(kspace), torch.view_as_real(sens), mask[..., None]

    def run() -> Tensor:
        k = y.clone()
        for cascade in cascades:
            k = cascade(k, y, maps, mask)
        return cascades[0].sens_reduce(k, maps)

    return run


def _atommic_unet(kspace: Tensor, sens: Tensor, mask: Tensor) -> Run:
    unet = _atommic_unet_block(64)
    block = _atommic("varnet_base.varnet_block").VarNetBlock(unet, **_ORTHONORMAL)
    y, maps = torch.view_as_real(kspace), torch.view_as_real(sens)
    return lambda: unet(block.sens_reduce(y, maps))


def _atommic_modl(kspace: Tensor, sens: Tensor, mask: Tensor) -> Run:
    """Its conjugate gradients leave out the mask. The work is that of the published ones."""
    module = _atommic("modl_base.modl_block")
    net, weight = module.ResidualNetwork(5, 64, 0.1), torch.nn.Parameter(torch.tensor([0.05]))
    consistency = module.ConjugateGradient(10, weight, True, "ortho", [-2, -1])
    block = _atommic("varnet_base.varnet_block").VarNetBlock(net, **_ORTHONORMAL)
    y, maps = torch.view_as_real(kspace), torch.view_as_real(sens)

    def run() -> Tensor:
        first = x = block.sens_reduce(y, maps)[:, 0]
        for _ in range(5):
            x = net(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            x = consistency(first + weight * x, maps, mask)
        return x

    return run


def _atommic_cirim(kspace: Tensor, sens: Tensor, mask: Tensor) -> Run:
    make = _atommic("rim_base.rim_block").RIMBlock
    blocks = torch.nn.ModuleList(
        make(**_RIM, time_steps=8, no_dc=True, coil_combination_method="SENSE", **_ORTHONORMAL) for _ in range(5)
    )
    y, maps, mask = torch.view_as_real(kspace), torch.view_as_real(sens), mask[..., None]

    def run() -> Tensor:
        steps, state = blocks[0](y, y, maps, mask, None, None, 1.0, keep_prediction=False)
        for block in blocks[1:]:
            steps, state = block(steps[-1], y, maps, mask, steps[-1], state, 1.0, keep_prediction=True)
        return steps[-1]

    return run


def _atommic_rvn(kspace: Tensor, sens: Tensor, mask: Tensor) -> Run:
    module = _atommic("recurrentvarnet_base.recurrentvarnet_block")
    start = module.RecurrentInit(2, 64, channels=(32, 32, 64, 64), dilations=(1, 1, 2, 4), depth=4)
    blocks = torch.nn.ModuleList(module.RecurrentVarNetBlock(2, 64, 4, **_ORTHONORMAL) for _ in range(8))
    block = _atommic("varnet_base.varnet_block").VarNetBlock(start, **_ORTHONORMAL)
    y, maps, mask = torch.view_as_real(kspace), torch.view_as_real(sens), mask[..., None]
    one = torch.ones_like(maps[:, :1])
    one[..., 1] = 0

    def run() -> Tensor:
        first = block.sens_expand(block.sens_reduce(y, maps), one)
        state, k = start(first[:, 0].permute(0, 3, 1, 2)), y
        for step in blocks:
            k, state = step(k, y, mask, maps, state)
        return block.sens_reduce(k, maps)

    return run


def _direct_varnet(kspace: Tensor, sens: Tensor, mask: Tensor) -> Run:
    from direct.data.transforms import fft2, ifft2, reduce_operator
    from direct.nn.varnet.varnet import EndToEndVarNet

    network = EndToEndVarNet(fft2, ifft2, 8, 18, 4)
    y, maps, mask = torch.view_as_real(kspace), torch.view_as_real(sens), mask[..., None]
    return lambda: reduce_operator(ifft2(network(y, mask, maps), dim=(2, 3)), maps, dim=1)


def _direct_rvn(kspace: Tensor, sens: Tensor, mask: Tensor) -> Run:
    from direct.data.transforms import fft2, ifft2, reduce_operator
    from direct.nn.recurrentvarnet.recurrentvarnet import RecurrentVarNet
    from direct.nn.types import InitType

    network = RecurrentVarNet(
        fft2, ifft2, num_steps=8, learned_initializer=True, initializer_initialization=InitType.SENSE
    )
    y, maps, mask = torch.view_as_real(kspace), torch.view_as_real(sens), mask[..., None]
    return lambda: reduce_operator(ifft2(network(y, mask, maps), dim=(2, 3)), maps, dim=1)


OURS = "ours"
MAKERS: dict[str, dict[str, Callable[[Tensor, Tensor, Tensor], Run]]] = {
    "varnet": {"ATOMMIC": _atommic_varnet, "DIRECT": _direct_varnet, "fastMRI": _fastmri_varnet},
    "unet": {"ATOMMIC": _atommic_unet, "fastMRI": _fastmri_unet},
    "modl": {"ATOMMIC": _atommic_modl},
    "rvn": {"ATOMMIC": _atommic_rvn, "DIRECT": _direct_rvn},
    "cirim": {"ATOMMIC": _atommic_cirim},
}
"""The peers of each network of ours."""
