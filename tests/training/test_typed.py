"""Values of YAML and the command line, made to fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrnets.errors import InputError
from training.typed import build, fitted


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5
    kind: Literal["one", "two"] = "one"


@dataclass(frozen=True, kw_only=True)
class Outer:
    size: tuple[int, int]
    inner: Inner = field(default_factory=Inner)
    several: tuple[Inner, ...] = ()
    maybe: tuple[int, int] | None = None
    either: int | str = 0
    free: dict[str, Any] = field(default_factory=dict)
    on: bool = False


def test_nested_values():
    made = build(
        Outer,
        {
            "size": [3, 4],
            "inner": {"rate": "1e-3", "kind": "two"},
            "several": [{}, {"rate": 2}],
            "maybe": [1, 2],
            "either": "many",
            "free": {"a": [1]},
            "on": True,
        },
    )
    assert made == Outer(
        size=(3, 4),
        inner=Inner(rate=0.001, kind="two"),
        several=(Inner(), Inner(rate=2.0)),
        maybe=(1, 2),
        either="many",
        free={"a": [1]},
        on=True,
    )
    assert isinstance(made.several[1].rate, float)
    assert build(Outer, {"size": (3, 4), "maybe": None}) == Outer(size=(3, 4))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "option size is missing"),
        ({"size": [3, 4], "inne": {}}, "unknown option: 'inne'; did you mean 'inner'"),
        ({"size": [3, 4], "inner": {"rat": 1}}, "unknown option of inner: 'rat'; did you mean 'rate'"),
        ({"size": [3, 4], "inner": {"rate": "fast"}}, "option inner.rate must be a number, got 'fast'"),
        ({"size": [3, 4], "inner": {"rate": True}}, "option inner.rate must be a number, got True"),
        ({"size": [3, 4], "inner": {"kind": "three"}}, 'option inner.kind must be "one" or "two", got \'three\''),
        ({"size": [3, 4], "inner": {"kind": ["one"]}}, 'option inner.kind must be "one" or "two", got ['),
        ({"size": [3, 4], "inner": 5}, "option inner must be keys with values, got 5"),
        ({"size": [3, 4], "several": [{"rate": None}]}, "option several.rate must be a number, got None"),
        ({"size": [3, 4], "several": {"rate": 1}}, "option several must be [keys with values, ...], got {"),
        ({"size": [3]}, "option size must be [an integer, an integer], got [3]"),
        ({"size": [3, 4.5]}, "option size must be [an integer, an integer], got [3, 4.5]"),
        ({"size": [3, True]}, "option size must be [an integer, an integer], got [3, True]"),
        ({"size": 34}, "option size must be [an integer, an integer], got 34"),
        ({"size": "34"}, "option size must be [an integer, an integer], got '34'"),
        ({"size": [3, 4], "maybe": [1]}, 'option maybe must be [an integer, an integer] or "none", got [1]'),
        ({"size": [3, 4], "either": 1.5}, "option either must be an integer or text, got 1.5"),
        ({"size": [3, 4], "free": [1]}, "option free must be keys with values, got [1]"),
        ({"size": [3, 4], "on": 1}, 'option on must be "true" or "false", got 1'),
        ({"size": [3, 4], 5: 1}, "unknown option: '5'"),
    ],
)
def test_mistakes_name_their_place(values, message):
    with pytest.raises(InputError) as caught:
        build(Outer, values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


HINTS = (int, float, str, bool, tuple[int, ...], Literal["a"], int | None, Inner, dict[str, Any])
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5)


@settings(deadline=None, max_examples=150)
@given(hint=st.sampled_from(HINTS), value=VALUES)
def test_whatever_comes_fits_or_is_refused_by_name(hint, value):
    try:
        made = fitted(hint, value, "part.key")
    except InputError as error:
        refused = str(error)
    else:
        refused = ""
        assert type(made) is hint or hint not in (int, float, str, bool)
        assert hint != tuple[int, ...] or all(type(n) is int for n in made)
    assert not refused or refused.startswith("option part.key must be ")
