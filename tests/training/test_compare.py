"""Several networks trained alike: what they keep of the recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mrnets import store
from mrnets.errors import InputError
from tests.training.layouts import write_fastmri
from training import loop
from training.compare import compare
from training.options import read

RECIPE = Path(loop.__file__).parent / "recipes" / "fastmri_brains.yaml"


def test_networks_keep_the_recipes_sensitivity_network(tmp_path: Path, rng: np.random.Generator) -> None:
    write_fastmri(tmp_path / "data", rng)
    small = "{sens_channels: 2, sens_pooling_layers: 2, cascades: 1, channels: 2}"
    overrides = ["masks.accelerations=[2, 3]", "masks.centres=[0.2]", "device=cpu", "precision=float32", "workers=0"]
    overrides += [f"data={tmp_path / 'data'}", f"folder={tmp_path / 'run'}", f"network.options={small}"]
    options = read(RECIPE, [*overrides, "epochs=null", "steps=1", "validation.examples=1", "compare.ccnn={convs: 2}"])
    varnet, ccnn = (store.header(path)["options"] for path in compare(["varnet", "ccnn"], options))
    assert varnet["sens_net"]
    assert ccnn["sens_net"]
    assert (varnet["cascades"], ccnn["cascades"], ccnn["convs"]) == (1, 1, 2)
    assert (tmp_path / "run" / "evaluation.csv").exists()
    with pytest.raises(InputError, match=r"was made with another seed \(0, now 1\)"):
        compare(["varnet"], dataclasses.replace(options, seed=1))
