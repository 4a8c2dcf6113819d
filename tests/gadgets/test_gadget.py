from dataclasses import dataclass
from typing import Literal

import ismrmrd
import numpy as np
import pytest

from gadgets.gadget import gadget, lookup, names
from mrnets.errors import InputError
from tests.gadgets import synthetic, toys


@gadget
def sample(
    stream,
    header,
    *,
    whole: int = 1,
    number: float = 2.5,
    switch: bool = False,
    words: str = "",
    choice: Literal["svd", "gdcc"] = "svd",
    count: Literal[1, 2] = 1,
    coils: int | None = None,
):
    """Says what it was given."""
    yield from stream
    yield (whole, number, switch, words, choice, count, coils)


def test_properties_are_typed_by_the_signature():
    given = {"whole": "-3", "number": "1e-3", "switch": "true", "words": " a b ", "choice": "gdcc", "count": "2"}
    (said,) = sample.bind({**given, "coils": "8"})([], None)
    assert said == (-3, 0.001, True, "a b", "gdcc", 2, 8)
    assert [type(value) for value in said] == [int, float, bool, str, str, int, int]
    assert list(sample.bind({})(["x"], None)) == ["x", (1, 2.5, False, "", "svd", 1, None)]
    assert next(sample.bind({"coils": "none"})([], None))[-1] is None


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("whole", "1.5", "an integer"),
        ("whole", "", "an integer"),
        ("number", "nan", "a number"),
        ("number", "inf", "a number"),
        ("number", "fast", "a number"),
        ("switch", "1", '"true" or "false"'),
        ("switch", "True", '"true" or "false"'),
        ("choice", "SVD", '"svd" or "gdcc"'),
        ("count", "3", '"1" or "2"'),
        ("coils", "some", 'an integer or "none"'),
    ],
)
def test_a_value_of_another_type_is_refused(name, text, expected):
    with pytest.raises(InputError) as caught:
        sample.bind({name: text})
    assert str(caught.value) == f'Gadget sample: property {name} must be {expected}; got "{text}".'


def test_an_integer_that_nothing_can_count_is_refused():
    for text in ("2147483648", "-99999999999999999999"):
        with pytest.raises(InputError, match=f'property whole must be from -2147483647 to 2147483647; got "{text}"'):
            sample.bind({"whole": text})
    assert next(sample.bind({"whole": "2147483647"})([], None))[0] == 2147483647


def test_an_unknown_property_is_refused_and_those_there_are_listed():
    with pytest.raises(InputError) as caught:
        sample.bind({"wohle": "1"})
    assert 'Gadget sample has no property "wohle"' in str(caught.value)
    assert "whole, number, switch, words, choice, count, coils" in str(caught.value)


def test_a_property_without_default_must_be_given():
    @gadget
    def loader(stream, header, *, weights: str):
        yield weights

    with pytest.raises(InputError, match=r"Gadget loader needs the property weights \(text\)"):
        loader.bind({})
    assert list(loader.bind({"weights": "w"})([], None)) == ["w"]


def test_a_gadget_is_still_a_function():
    assert list(sample([], None, whole=7)) == [(7, 2.5, False, "", "svd", 1, None)]
    assert sample.__doc__ == "Says what it was given."


def test_gadgets_of_this_package_are_found_by_name():
    assert lookup("toy") is toys.toy
    assert "wire" not in names()


@pytest.mark.parametrize(
    "name", ["os", "wire", "__main__", "__init__", "hosts", "toy.toy", "../toy", "", "toy;", "gadget"]
)
def test_nothing_else_is_found(name):
    with pytest.raises(InputError, match="There is no gadget"):
        lookup(name)


def test_a_gadget_declares_what_it_takes_and_gives():
    @gadget(takes=("lines",), gives="kspace")
    def sorts(stream, header, *, size: int = 1):
        """Sorts."""
        yield from stream

    assert (sorts.takes, sorts.gives) == (("lines",), "kspace")
    assert (sorts.name, sorts.__doc__, list(sorts.properties)) == ("sorts", "Sorts.", ["size"])
    assert (sample.takes, sample.gives) == ((), None)


NEEDED = {"network": {"name": "zerofilled"}}
"""Properties without which a gadget does not start."""


@pytest.mark.parametrize("name", [name for name in names() if name != "retrieve"])  # it leaves out all that comes in
def test_every_gadget_passes_what_it_does_not_understand_in_order(name):
    waveform = ismrmrd.Waveform.from_array(np.zeros((1, 4), np.uint32))
    image = ismrmrd.Image.from_array(np.zeros((4, 4), np.float32))
    given = ["a text", waveform, *([] if "images" in lookup(name).takes else [image]), "another text"]
    assert list(lookup(name).bind(NEEDED.get(name, {}))(given, synthetic.header())) == given


@dataclass(frozen=True)
class Centre:
    line: int | None = None
    side: Literal["left", "right"] = "left"


def test_the_fields_of_a_dataclass_are_properties():
    @gadget
    def grouped(stream, header, *, scale: float = 1.0, centre: Centre = Centre(), last: str):
        """Says what it was given."""
        yield scale, centre, last

    assert list(grouped.properties) == ["scale", "line", "side", "last"]
    assert list(grouped.bind({"line": "3", "last": "z"})([], None)) == [(1.0, Centre(3, "left"), "z")]
    assert list(grouped([], None, side="right", last="z")) == [(1.0, Centre(None, "right"), "z")]
    with pytest.raises(InputError, match='property side must be "left" or "right"; got "up"'):
        grouped.bind({"side": "up", "last": "z"})
    with pytest.raises(InputError, match="its properties are: scale, line, side, last"):
        grouped.bind({"centre": "3"})
