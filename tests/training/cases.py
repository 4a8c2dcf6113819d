"""Recipes on tiny data sets: each module `tests/training/layouts*.py` has its own in `CASES`, by the recipes' names."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import tests.training

__all__ = ["Case", "cases"]


@dataclass(frozen=True)
class Case:
    """A recipe, who writes its data, and what it must be told for data so small."""

    write: Callable[..., None]
    task: str
    overrides: tuple[str, ...] = ()


def cases() -> dict[str, Case]:
    """Those of all layouts."""
    modules = [m.name for m in pkgutil.iter_modules(tests.training.__path__) if m.name.startswith("layouts")]
    found = [importlib.import_module(f"tests.training.{name}").CASES for name in sorted(modules)]
    return {recipe: case for each in found for recipe, case in each.items()}
