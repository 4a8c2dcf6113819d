"""The table of the paper's features names tests, recipes and options that exist."""

from __future__ import annotations

import re
from pathlib import Path

import training
from mrnets import store
from mrnets.preparation import Preparation
from tests.mrnets.test_paper_options import PUBLISHED
from training.options import Options, read

ROOT = Path(__file__).parents[2]
TABLE = (Path(training.__file__).parent / "FEATURES.md").read_text(encoding="utf-8")
METRICS = ("ssim", "psnr", "nmse", "dice", "f1", "iou", "hd95", "ald", "avd", "lesion_f1")


def table(corner: str) -> list[str]:
    """The rows of all tables whose first column has this head."""
    after = TABLE.split(f"\n| {corner} |")[1:]
    return [row for each in after for row in each.partition("\n\n")[0].splitlines()[2:]]


def rows_of(corner: str, column: int) -> list[str]:
    return [row.strip("|").split("|")[column] for row in table(corner)]


def test_every_test_of_the_table_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TABLE)
    assert len(named) > 35
    for path, name in named:
        assert not name or f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"


def test_every_option_of_the_table_is_there() -> None:
    options = read(Path(training.__file__).parent / "recipes" / "self_supervised.yaml")
    parts = r"(preparation|masks|optimiser|loss|augmentation|self_supervised|noise_to_recon|reader|network)"
    named = re.findall(rf"`{parts}\.(\w+)", TABLE)
    assert len(named) > 25
    for part, name in named:
        assert hasattr(getattr(options, part), name), f"{part}.{name}"
    assert isinstance(options, Options)
    assert isinstance(options.preparation, Preparation)


def test_names_without_a_part_are_options_too() -> None:
    """They are of the part that the row names before them, or of the recipe itself."""
    options, counted = read(Path(training.__file__).parent / "recipes" / "self_supervised.yaml"), 0
    for cell in rows_of("feature", 1):
        part: object = options
        for name in re.findall(r"`([\w.]+)`", cell):
            if "." in name:
                part = getattr(options, name.partition(".")[0])
            elif name not in {"torchrun", "sens_net", *METRICS}:
                assert hasattr(part, name) or hasattr(options, name), f"{name} in {cell}"
                counted += 1
    assert counted > 15


def test_hyperparameters_of_networks_have_the_names_of_the_table() -> None:
    rows = [row.strip("|").split("|") for row in table("network")]
    assert [re.findall(r"`(\w+)`", row[0])[0] for row in rows] == list(PUBLISHED)
    for (network, published), (_, choices, fixed) in zip(PUBLISHED.items(), rows, strict=True):
        known, names = store.bind(network), store.describe(network).names_of_options
        ours = {name: own or name for name, own in re.findall(r"`(\w+)`(?: \(`(\w+)`\))?", choices)}
        assert ours == {name: names.get(name, name) for name in ours}
        assert set(ours.values()) <= set(known)
        none = set(re.findall(r"`(\w+)`", fixed))
        assert none <= set(store.fixed_options(network))
        assert {*ours, *none} == set(published)


def test_every_recipe_of_the_table_is_there() -> None:
    recipes = {name for row in table("data set") for name in re.findall(r"`(\w+)`", row)}
    there = {path.stem for path in (Path(training.__file__).parent / "recipes").glob("*.yaml")}
    assert len(recipes) == 12
    assert recipes <= there
