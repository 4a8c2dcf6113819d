"""Reconstruction networks against ATOMMIC 1.0.1's, with its weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from mrnets import store
from mrnets.atommic import PUBLISHED
from mrnets.atommic.forms import FORMS
from mrnets.atommic.keys import state_dict
from mrnets.contract import Scan
from mrnets.errors import InputError
from tests.mrnets.examples import create, scan, scan_for, tensors
from tests.mrnets.vectors import relative_error, vector


@pytest.mark.parametrize("name", ["ccnn", "cirim", "modl", "rim", "rvn", "unet", "varnet"])
def test_imported_weights_give_the_same_image_also_through_a_file(name: str, tmp_path: Path) -> None:
    reference = vector(name)
    network = store.create(reference.name, **reference.options)
    network.load_state_dict(state_dict(name, reference.weights))
    path = tmp_path / "imported.safetensors"
    store.save(path, network, name=reference.name, options=reference.options, preparation={})
    kspace, sens, image = (torch.view_as_complex(reference.tensors[key]) for key in ("kspace", "sens", "image"))
    with torch.inference_mode():
        ours = store.load(path).network(Scan(kspace=kspace, mask=reference.tensors["mask"], sens=sens)).image
    assert relative_error(ours, image) < 1e-5


@pytest.mark.parametrize("name", FORMS)
def test_a_form_without_options_is_the_published_network(name: str) -> None:
    example, published = scan_for(name), create(name).eval()
    form = create(f"atommic.{name}").eval()
    with torch.inference_mode():
        for one, other in zip(tensors(form(example)), tensors(published(example)), strict=True):
            assert torch.equal(one, other)
    options = store.bind(f"atommic.{name}")
    assert {key: options[key] for key in options.keys() - store.bind(name).keys()}.items() <= PUBLISHED.items()
    assert form.state_dict().keys() == published.state_dict().keys()
    assert store.describe(f"atommic.{name}").title.endswith(", as ATOMMIC computes it")


def test_a_form_names_itself_in_errors() -> None:
    with pytest.raises(InputError, match=r"atommic\.cirim needs coil sensitivities"):
        create("atommic.cirim", start="rss_components")(dataclasses.replace(scan(), sens=None))


def test_a_key_that_is_not_the_network_s_is_refused() -> None:
    with pytest.raises(InputError, match=r"'cascades\.0\.extra' is not a weight of ATOMMIC's varnet"):
        state_dict("varnet", {"cascades.0.extra": torch.zeros(1)})


def test_a_network_that_cannot_be_imported_is_refused() -> None:
    with pytest.raises(InputError, match="'cgsense' cannot be imported"):
        state_dict("cgsense", {})


def test_a_shared_weight_that_is_not_shared_is_refused() -> None:
    weights = vector("ccnn").weights
    weights["reconstruction_module.1.model.conv.3.weight"] = torch.zeros(1)
    with pytest.raises(InputError, match="one of several names of one weight"):
        state_dict("ccnn", weights)
