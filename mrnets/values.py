"""Typed values: whether a value fits a type hint, how a text or a list becomes one, how an error names the type.

Hints: int, float, str, bool, None, Literal, tuple, dict, a class, and unions of these. A float is a finite number.
"""

from __future__ import annotations

import dataclasses
import math
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

__all__ = ["converted", "described", "fits", "parsed"]

_NAMES: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: '"true" or "false"',
    str: "text",
    NoneType: '"none"',
    dict: "keys with values",
    Any: "anything",
}
_NAMED: dict[Any, dict[str, Any]] = {bool: {"true": True, "false": False}, NoneType: {"none": None, "": None}}


def fits(value: object, hint: Any) -> bool:
    """Return whether `value` is of the type `hint`. An integer fits float; a bool fits only bool."""
    kinds, origin = _alternatives(hint), get_origin(hint)
    if len(kinds) > 1:
        return any(fits(value, kind) for kind in kinds)
    if hint is Any:
        return True
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(hint))
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        return isinstance(value, int | float) and _is_finite(value)
    if origin is tuple:
        elements = _elements(hint, len(value)) if isinstance(value, tuple) else ()
        return isinstance(value, tuple) and len(value) == len(elements) and all(map(fits, value, elements))
    return isinstance(value, origin or hint)


def converted(value: object, hint: Any) -> Any:
    """Return `value`, of YAML or JSON, as `hint`: lists become tuples, and integers floats. Raises ValueError.

    Texts are parsed where no text is wanted, because YAML takes 1e-3 for a text."""
    kinds = _alternatives(hint)
    if len(kinds) > 1:
        return _first(converted, value, sorted(kinds, key=lambda kind: not fits(value, kind)))
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(converted(*pair) for pair in zip(value, _elements(hint, len(value)), strict=True))
    if fits(value, hint):
        return float(value) if hint is float else value  # type: ignore[arg-type]
    if isinstance(value, str):
        return parsed(value, hint)
    raise ValueError(value)


def parsed(text: str, hint: Any) -> Any:
    """Return the value of type `hint` that `text`, from XML or a command line, stands for. Raises ValueError.

    The first type of a union that `text` can stand for is taken.
    """
    kinds = _alternatives(hint)
    if len(kinds) > 1:
        return _first(parsed, text, kinds)
    if hint is str:
        return text
    if hint in (int, float):
        value = hint(text)
    else:
        choices = _NAMED.get(hint) or {str(choice): choice for choice in _choices(hint)}
        value = choices.get(text, dataclasses.MISSING)
    if not fits(value, hint):
        raise ValueError(text)
    return value


def described(hint: Any) -> str:
    """Return the type as an error names it: "an integer or "none"", "[a number, a number]"."""
    kinds, origin, inner = _alternatives(hint), get_origin(hint), get_args(hint)
    if len(kinds) > 1:
        return " or ".join(map(described, kinds))
    if origin is Literal:
        return " or ".join(f'"{choice}"' for choice in inner)
    if origin is tuple:
        return f"[{', '.join('...' if element is ... else described(element) for element in inner)}]"
    if dataclasses.is_dataclass(hint):
        return _NAMES[dict]
    return _NAMES.get(origin or hint) or str(getattr(hint, "__name__", hint))


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _choices(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) is Literal else ()


def _elements(hint: Any, count: int) -> tuple[Any, ...]:
    """The types of the elements of a tuple; of `count` elements where the hint leaves their number open."""
    inner = get_args(hint)
    return inner[:1] * count if inner[-1:] == (...,) else inner


def _first(convert: Any, value: object, kinds: Any) -> Any:
    for kind in kinds:
        try:
            return convert(value, kind)
        except ValueError:
            continue
    raise ValueError(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        return False
