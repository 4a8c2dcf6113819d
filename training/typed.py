"""Dataclasses built from YAML values; an error names the option that does not fit."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from mrnets.errors import Faults, InputError, unknown
from mrnets.values import converted, described

__all__ = ["build", "fitted"]

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Return the dataclass `cls` of `values`, nested ones too. `prefix` stands before the keys, as "loss." does.

    Raises InputError with all faults: unknown keys (naming the nearest right ones), missing ones, and values of another
    type.
    """
    hints, found, faults = typing.get_type_hints(cls), {}, Faults()
    for key, value in values.items():
        with faults.gathered():
            if key not in hints:
                raise unknown(f"option{f' of {prefix[:-1]}' if prefix else ''}", str(key), hints)
            found[key] = fitted(hints[key], value, f"{prefix}{key}")
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        with faults.gathered():
            if f.name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
                raise InputError(f"option {prefix}{f.name} is missing")
    faults.tell()
    return cls(**found)


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
