"""The weights that ship: small, with a card, and better than what needs no training."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mrnets import store
from mrnets.physics.simulate import phantom
from mrnets.prepare import Preparation
from training.batches import prepared
from training.metrics import psnr, ssim
from training.options import Simulated
from training.readers.anatomy import Volume
from training.readers.simulated import draw

FOLDER = Path(store.__file__).parent / "weights"


@pytest.mark.parametrize("name", store.shipped())
def test_weights_that_ship_have_a_card_and_are_small(name: str) -> None:
    assert (FOLDER / f"{name}.safetensors").stat().st_size <= 8 * 10**6
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
        ready, target, _ = prepared(sample.raw, sample.coil_images, preparation)
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
