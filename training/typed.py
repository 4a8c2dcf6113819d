"""Dataclasses built from YAML values; an error names the option that does not fit."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from mrnets.errors import InputError, unknown
from mrnets.values import converted, described

__all__ = ["build", "fitted"]

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Return the dataclass `cls` of `values`, nested ones too. `prefix` stands before the keys, as "loss." does.

    Raises InputError for an unknown key (naming the nearest right one), a missing one, or a value of another type.
    """
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise unknown(f"option{f' of {prefix[:-1]}' if prefix else ''}", str(key), hints)
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        if f.name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise InputError(f"option {prefix}{f.name} is missing")
    return cls(**{key: fitted(hints[key], value, f"{prefix}{key}") for key, value in values.items()})


def fitted(hint: Any, value: Any, option: str) -> Any:
    """Return `value` as the type `hint`; see `mrnets.values.converted`. Raises InputError naming the `option`."""
    inner = typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return build(typing.cast("type[Any]", hint), value, f"{option}.")
    if inner and dataclasses.is_dataclass(inner[0]) and isinstance(value, list | tuple):
        return tuple(fitted(inner[0], element, option) for element in value)
    try:
        return converted(value, hint)
    except ValueError:
        raise InputError(f"option {option} must be {described(hint)}, got {value!r}") from None
