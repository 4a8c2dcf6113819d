"""Checks of constructor options, with errors that name the option, the expected values and the value that came."""

from __future__ import annotations

import math

from mrnets.errors import InputError

__all__ = ["number", "one_of", "whole"]


def whole(name: str, value: object, low: int, high: int) -> int:
    """Return `value`, an int from `low` to `high`. The upper bound keeps a hostile file from building forever.

    Raises InputError for any other value."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"{name} must be a whole number from {low} to {high}, not {value!r}")
    return value


def number(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """Return `value`, finite and from `low` to `high`, as a float. Raises InputError for any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{name} must be a finite number, not {value!r}")
    if not low <= value <= high:
        raise InputError(f"{name} must be a number from {low:g} to {high:g}, not {value!r}")
    return float(value)


def one_of(name: str, value: object, choices: tuple[object, ...]) -> object:
    """Return `value`, one of `choices`. Raises InputError for any other value."""
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")
    return value
