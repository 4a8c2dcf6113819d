"""The table of the paper's features names tests, recipes and options that exist."""

from __future__ import annotations

import re
from pathlib import Path

import training
from mrnets.preparation import Preparation
from training.options import Options, read

ROOT = Path(__file__).parents[2]
TABLE = (Path(training.__file__).parent / "FEATURES.md").read_text(encoding="utf-8")


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


def test_every_recipe_of_the_table_is_there() -> None:
    rows = TABLE.partition("| data set | recipe |")[2].splitlines()[2:]
    recipes = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    there = {path.stem for path in (Path(training.__file__).parent / "recipes").glob("*.yaml")}
    assert len(recipes) == 12
    assert recipes <= there
