"""Weights of ATOMMIC 1.0.1: their import, and its networks where they differ from their papers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["PREFIX", "PUBLISHED", "named", "own"]

PREFIX = "atommic."
"""In front of the name of a published network: that network as ATOMMIC computes it."""
PUBLISHED: dict[str, Any] = {
    "padding": None,
    "start": "sense",
    "combination": "sense",
    "magnitude": False,
    "initializer_transform": "centred",
    "conjugate_gradient": True,
    "checkered": False,
    "given_coils": None,
    "min_max": False,
    "scaled": False,
    "sens_region": "calibration",
    "sens_padding": None,
    "transform": "centred",
    "transposed": False,
}
"""Options that only imported weights need, with the values of the published networks."""


def named(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and options of a network whose `options` may have those of `PUBLISHED`.

    Where all of these have the published values it is the published network, without them.
    """
    if any(options.get(key, value) != value for key, value in PUBLISHED.items()):
        return f"{PREFIX}{name}", dict(options)
    return name, {key: value for key, value in options.items() if key not in PUBLISHED}


def own(name: str) -> Path | None:
    """The file of the published network `name` as ATOMMIC computes it; None: only its form differs, see `forms`."""
    path = Path(__file__).parent / "nets" / f"{name}.py"
    return path if path.exists() else None
