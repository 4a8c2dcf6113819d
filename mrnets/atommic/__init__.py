"""Weights of ATOMMIC 1.0.1: their import, and the forms of networks that differ from their papers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PREFIX", "PUBLISHED", "named"]

PREFIX = "atommic."
"""In front of the name of a published network: that network as ATOMMIC computes it."""
PUBLISHED: dict[str, Any] = {
    "padding": None,
    "start": "sense",
    "combination": "sense",
    "magnitude": False,
    "initializer_transform": "centred",
    "conjugate_gradient": True,
}
"""Options that only imported weights need, with the values of the published networks."""


def named(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and options of a network whose `options` may have those of `PUBLISHED`.

    Where all of these have the published values it is the published network, without them.
    """
    if any(options.get(key, value) != value for key, value in PUBLISHED.items()):
        return f"{PREFIX}{name}", dict(options)
    return name, {key: value for key, value in options.items() if key not in PUBLISHED}
