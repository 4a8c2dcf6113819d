from __future__ import annotations

from pathlib import Path

import pytest

from mrnets import store
from training import options

RECIPES = Path(options.__file__).parent / "recipes"
SEGMENTATION = ("brats", "isles", "skmtea_segmentation")
TASKS = {"ahead": "reconstruction", "ahead_maps": "quantitative", "skmtea_joint": "joint"} | dict.fromkeys(
    SEGMENTATION, "segmentation"
)


@pytest.mark.parametrize(("recipe", "task"), TASKS.items())
def test_recipes_hold_for_every_network_of_their_task(recipe: str, task: str) -> None:
    names = [name for name in store.names() if store.describe(name).task == task]
    assert names
    for name in names:
        read = options.read(RECIPES / f"{recipe}.yaml", [f"network.name={name}"])
        assert read.network.name == name
        assert read.reader.split.counts
