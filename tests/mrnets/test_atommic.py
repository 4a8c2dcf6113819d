"""Reconstruction networks against ATOMMIC 1.0.1's, with its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mrnets import atommic, store
from mrnets.contract import Scan
from mrnets.errors import InputError
from tests.mrnets.vectors import relative_error, vector


@pytest.mark.parametrize("name", ["ccnn", "cirim", "modl", "rim", "rvn", "unet", "varnet"])
def test_imported_weights_give_the_same_image_also_through_a_file(name: str, tmp_path: Path) -> None:
    reference = vector(name)
    network = store.create(name, **reference.options)
    network.load_state_dict(atommic.state_dict(name, reference.weights))
    path = tmp_path / "imported.safetensors"
    store.save(path, network, name=name, options=reference.options, preparation={})
    kspace, sens, image = (torch.view_as_complex(reference.tensors[key]) for key in ("kspace", "sens", "image"))
    with torch.inference_mode():
        ours = store.load(path).network(Scan(kspace=kspace, mask=reference.tensors["mask"], sens=sens)).image
    assert relative_error(ours, image) < 1e-4


def test_a_key_that_is_not_the_network_s_is_refused() -> None:
    with pytest.raises(InputError, match=r"'cascades\.0\.extra' is not a weight of ATOMMIC's varnet"):
        atommic.state_dict("varnet", {"cascades.0.extra": torch.zeros(1)})


def test_a_network_that_cannot_be_imported_is_refused() -> None:
    with pytest.raises(InputError, match="'kikinet' cannot be imported"):
        atommic.state_dict("kikinet", {})


def test_a_shared_weight_that_is_not_shared_is_refused() -> None:
    weights = vector("ccnn").weights
    weights["reconstruction_module.1.model.conv.3.weight"] = torch.zeros(1)
    with pytest.raises(InputError, match="one of several names of one weight"):
        atommic.state_dict("ccnn", weights)
