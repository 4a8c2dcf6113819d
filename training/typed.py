"""Values as YAML and the command line give them, made to fit type hints; what does not fit is named."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from mrnets.errors import InputError, unknown

__all__ = ["build", "fitted"]

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], place: str = "") -> T:
    """The dataclass `cls` of `values`, nested ones too. Raises InputError for an unknown key (naming the nearest right
    one), a missing one, or a value of another type. `place` is what stands before the keys, as in "loss."."""
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise unknown(f"option{f' of {place[:-1]}' if place else ''}", str(key), hints)
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        if f.name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise InputError(f"option {place}{f.name} is missing")
    return cls(**{key: fitted(hints[key], value, f"{place}{key}") for key, value in values.items()})


def fitted(hint: Any, value: Any, place: str) -> Any:
    """`value` as the type `hint`: lists become tuples, whole numbers floats. Raises InputError naming `place`."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return build(typing.cast("type[Any]", hint), value, f"{place}.")
    if origin in (typing.Union, types.UnionType):
        return _any_of(inner, hint, value, place)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [inner[0]] * len(value) if inner[-1] is ... else inner
        if len(kinds) == len(value):
            return tuple(fitted(kind, element, place) for kind, element in zip(kinds, value, strict=True))
    if origin is Literal and value in inner:
        return value
    if origin is dict and isinstance(value, dict):
        return value
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:  # YAML takes 1e-3 for a string
            number = float(value)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            return number
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    expected = hint.__name__ if isinstance(hint, type) and not inner else str(hint).replace("typing.", "")
    raise InputError(f"option {place} must be {expected}, got {value!r}")


def _any_of(choices: tuple[Any, ...], hint: Any, value: Any, place: str) -> Any:
    if value is None and type(None) in choices:
        return None
    for choice in (c for c in choices if c is not type(None)):
        try:
            return fitted(choice, value, place)
        except InputError:
            if len(choices) == 2 and type(None) in choices:
                raise
    raise InputError(f"option {place} must be {str(hint).replace('typing.', '')}, got {value!r}")
