"""Sentences for people who look at images of ATOMMIC's networks. Weights files and image comments hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mrnets import store
from mrnets.atommic import PREFIX

__all__ = ["notes"]


def notes(name: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return sentences on the network `name` with these `options`; none for a network that follows its paper."""
    if not name.startswith(PREFIX):
        return ()
    differs = store.describe(name).differs
    if options.get("conjugate_gradient") is False:
        differs = "it has no data consistency"
    found = [f"{name}: as ATOMMIC, not as the paper: {differs}"] if differs else []
    if options.get("sens_net") and options.get("sens_region") != "calibration":
        found.append(
            f"{name}: its sensitivity network was trained on fully sampled k-space, and sees the measured lines"
        )
    if options.get("min_max"):
        found.append(f"{name}: classes are relative to the largest value of a slice, so that no slice is without any")
    return tuple(found)
