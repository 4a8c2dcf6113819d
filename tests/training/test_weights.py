"""The weights that ship: small, with a card, and better than what needs no training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import training
from mrnets import store
from mrnets.physics.relaxation import fit
from mrnets.physics.simulate import phantom
from mrnets.preparation import Preparation
from training.metrics import psnr, ssim
from training.options import read
from training.readers.anatomy import Volume, load_folder
from training.readers.simulated import draw
from training.settings import Simulated
from training.targets import prepared
from training.weights import seen_in

FOLDER = Path(store.__file__).parent / "weights"


@pytest.mark.parametrize("name", store.shipped())
def test_weights_that_ship_have_a_card_and_are_small(name: str) -> None:
    assert (FOLDER / f"{name}.safetensors").stat().st_size <= 10 * 10**6
    card = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    for heading in ("Use", "Data", "Training", "Scores", "Limits"):
        assert f"**{heading}" in card
    assert store.header(name)["provenance"]["licence"] != "not stated"


@pytest.mark.slow
@torch.no_grad()
def test_varnet_beats_the_classical_reconstructions() -> None:
    """On a phantom: 12 coils, 4-fold, SNR 30."""
    trained = store.load("varnet_brain")
    volume = Volume("phantom", np.stack([phantom((192, 192))] * 3), (4.0, 1.0, 1.0))
    settings = Simulated(
        phantoms=0.0,
        matrix=(160,),
        coils=(12, 12),
        masks=("equispaced1d",),
        acceleration=(4, 4),
        calibration=(20, 20),
        snr=(30, 30),
    )
    preparation = Preparation.from_json(trained.preparation)
    gains = []
    for seed in range(4):
        sample = draw([volume], settings, 1, np.random.default_rng(seed))
        ready, target, *_ = prepared(sample.raw, sample.coil_images, preparation)
        target = target.abs()
        network = trained.network(ready.scan).image.abs()
        classical = [store.create("cgsense", regularisation=r)(ready.scan).image.abs() for r in (0.01, 0.1, 1.0)]
        for other in [*classical, store.create("zerofilled")(ready.scan).image.abs()]:
            gains.append(
                (float(psnr(network, target) - psnr(other, target)), float(ssim(network, target) - ssim(other, target)))
            )
    decibels, similarity = np.array(gains).T
    assert decibels.mean() > 2
    assert similarity.min() > 0


@pytest.mark.slow
@torch.no_grad()
def test_qvarnet_beats_the_fit_of_each_voxel() -> None:
    """R2* of a head that it was not trained on: 12 coils, 6-fold, SNR 30; the fit with the best of its settings."""
    pytest.importorskip("nilearn")
    trained = store.load("qvarnet_brain")
    settings = Simulated(
        phantoms=0.0,
        matrix=(112,),
        coils=(12, 12),
        masks=("poisson2d", "equispaced1d"),
        acceleration=(6, 6),
        calibration=(16, 16),
        partial_fourier=0.0,
        snr=(30, 30),
        echo_times=((0.003, 0.0115, 0.0200, 0.0285),),
    )
    preparation = Preparation.from_json(trained.preparation)
    volumes, ratios = load_folder(None), []
    for seed in range(6):
        sample = draw(volumes, settings, 1, np.random.default_rng(seed))
        assert sample.raw is not None
        assert sample.region is not None
        ready, target, *_ = prepared(sample.raw, sample.coil_images, preparation)
        want = fit(target, sample.raw.echo_times)[:, 0]
        images = [store.create("cgsense", regularisation=r)(ready.scan).image for r in (0.01, 0.03, 0.1, 0.3)]
        found = [fit(image, sample.raw.echo_times)[:, 0] for image in images]
        network, *fits = (
            float((r2 - want)[sample.region].abs().mean()) for r2 in (trained.network(ready.scan).maps["R2*"], *found)
        )
        ratios.append(network / min(fits))
    assert np.mean(ratios) < 0.97
    assert np.median(ratios) < 0.95


@pytest.mark.parametrize(
    ("recipe", "overrides", "expected"),
    [
        (
            "demo",
            ["simulated.matrix=[96,160,128]", "simulated.coils=[4,12]", "simulated.masks=[regular1d,regular1d]"],
            {"matrix": (96, 160), "coils": (4, 12), "masks": ("regular1d",), "anatomy": ()},
        ),
        ("demo", ["seen.anatomy=[knee]", "seen.snr=[20,30]"], {"anatomy": ("knee",), "snr": (20, 30)}),
        ("pool", [], {"matrix": (64, 320), "snr": (10, 3000), "acceleration": (2, 10)}),
        ("simulated_joint", [], {"anatomy": ("brain",), "contrasts": ("t1",), "matrix": (80, 144)}),
        (
            "fastmri_brains",
            [],
            {"anatomy": ("brain",), "acceleration": (4, 8), "masks": ("equispaced1d",), "snr": None},
        ),
        ("ismrmrd", ["masks.source=data"], {"acceleration": None, "masks": ()}),
        ("self_supervised", [], {"acceleration": None, "masks": ()}),
        ("tissue", [], {"anatomy": ("brain",), "acceleration": None, "masks": ()}),
    ],
)
def test_weights_files_say_what_their_network_has_seen(recipe: str, overrides: list[str], expected: Any) -> None:
    seen = seen_in(read(Path(training.__file__).parent / "recipes" / f"{recipe}.yaml", overrides))
    assert {name: getattr(seen, name) for name in expected} == expected
