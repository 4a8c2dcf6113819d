"""Typed values: what fits, what a text or a list becomes, and how an error names the type. Runs without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrnets.values import converted, described, fits, parsed


@dataclass(frozen=True)
class Part:
    number: int = 0


@pytest.mark.parametrize(
    ("hint", "yes", "no"),
    [
        (int, [0, -3], [1.0, True, "1", None]),
        (float, [0, 1.5, 10**300], [math.nan, math.inf, 10**400, True, "1", None]),
        (bool, [True, False], [0, 1, "true", None]),
        (str, ["", "a"], [1, None, b"a"]),
        (Literal["a", 1], ["a", 1], ["b", True, 1.0, ["a"]]),
        (int | None, [None, 2], [2.5, "none"]),
        (Optional[float], [None, 2], [True, "none"]),  # noqa: UP045
        (Union[int, str], [1, "one"], [1.5, None]),  # noqa: UP007
        (tuple[int, int], [(1, 2)], [(1,), (1, 2, 3), (1, 2.5), (1, True), [1, 2], 5, None]),
        (tuple[int, ...], [(), (1,), (1, 2, 3)], [("a",), [1], "1"]),
        (tuple[tuple[float, ...], ...], [(), ((1.0,), (2, 3))], [(1.0,)]),
        (tuple[int, int] | None, [(1, 2), None], [(1,)]),
        (dict[str, Any], [{}, {"a": 1}], [[], None]),
        (Any, [None, 1, "a", [1]], []),
        (Part, [Part()], [{}, None]),
    ],
    ids=str,
)
def test_fits(hint, yes, no):
    assert all(fits(value, hint) for value in yes)
    assert not any(fits(value, hint) for value in no)


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (3, float, 3.0),
        ("1e-3", float, 0.001),
        ("none", int | None, None),
        ("none", str | None, "none"),
        ("5", int | str, "5"),
        (3, float | None, 3.0),
        ([3, 4], tuple[float, float] | None, (3.0, 4.0)),
        ([[1], []], tuple[tuple[float, ...], ...], ((1.0,), ())),
        (["a"], tuple[Literal["a", "b"], ...], ("a",)),
    ],
)
def test_values_of_yaml_are_converted(value, hint, expected):
    made = converted(value, hint)
    assert made == expected
    assert type(made) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint"), [([3], tuple[int, int]), ([3, 4.5], tuple[int, int]), (1, bool), ("x", int | None), ({}, Part)]
)
def test_what_cannot_be_converted_is_refused(value, hint):
    with pytest.raises(ValueError, match=r".*"):
        converted(value, hint)


@pytest.mark.parametrize(
    ("text", "hint", "expected"),
    [
        ("-3", int, -3),
        ("1e-3", float, 0.001),
        ("true", bool, True),
        (" a ", str, " a "),
        ("2", Literal["1", 2], 2),
        ("", int | None, None),
        ("7", bool | int | float | str, 7),
        ("7.5", bool | int | float | str, 7.5),
        ("nan", bool | int | float | str, "nan"),
        ("false", bool | int | float | str, False),
    ],
)
def test_texts_are_parsed(text, hint, expected):
    made = parsed(text, hint)
    assert made == expected
    assert type(made) is type(expected)


@pytest.mark.parametrize(
    ("text", "hint"),
    [("1.5", int), ("nan", float), ("True", bool), ("3", Literal["1", "2"]), ("some", int | None), ("1", tuple[int])],
)
def test_texts_of_another_type_are_refused(text, hint):
    with pytest.raises(ValueError, match=r".*"):
        parsed(text, hint)


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int | None, 'an integer or "none"'),
        (tuple[float, ...], "[a number, ...]"),
        (tuple[tuple[int, int], ...], "[[an integer, an integer], ...]"),
        (Literal["a", 1], '"a" or "1"'),
        (dict[str, Any], "keys with values"),
        (Part, "keys with values"),
        (Path, "Path"),
    ],
)
def test_types_are_described(hint, text):
    assert described(hint) == text


HINTS = (int, float, str, bool, int | None, tuple[int, ...], tuple[float, float], Literal["a", 2], dict[str, Any])
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5)


@given(hint=st.sampled_from(HINTS), value=VALUES)
def test_what_is_converted_fits(hint, value):
    try:
        made = converted(value, hint)
    except ValueError:
        return
    assert fits(made, hint)


@given(hint=st.sampled_from(HINTS), text=st.text())
def test_what_is_parsed_fits(hint, text):
    try:
        made = parsed(text, hint)
    except ValueError:
        return
    assert fits(made, hint)
