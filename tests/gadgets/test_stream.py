from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadgets.stream import Chain, GadgetError, Stage, gadget, is_whole, lookup, names
from mrnets.errors import InputError
from tests.gadgets import toys
from tests.gadgets.toys import chain, configuration, stage


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
    "name", ["os", "wire", "__main__", "__init__", "hosts", "toy.toy", "../toy", "", "toy;", "stream"]
)
def test_nothing_else_is_found(name):
    with pytest.raises(InputError, match="There is no gadget"):
        lookup(name)


# Chains


@pytest.mark.parametrize(
    "text",
    [
        chain(stage("toy", scale=2)),
        chain(stage("toy", scale=2)).encode(),
        configuration(stage("toy", scale=2)),
        chain(stage("toy", scale=2), execute='<connect port="9003"/>'),
        chain('<property name="scale" value="2"/>', execute='<execute name="gadgets.toy" target="toy" type="python"/>'),
        chain(
            "<property><name>scale</name><value>2</value></property>",
            execute='<execute name="gadgets.toy" target="toy"/>',
        ),
        """<gadgetronStreamConfiguration><reader><slot>1008</slot><dll>gadgetron_mricore</dll>
        <classname>GadgetIsmrmrdAcquisitionMessageReader</classname></reader>
        <gadget><name>a</name><dll>gadgetron_python</dll><classname>PythonGadget</classname>
        <property><name>python_path</name><value>/opt</value></property>
        <property><name>python_module</name><value>gadgets.toy</value></property>
        <property><name>python_class</name><value>toy</value></property>
        <property><name>scale</name><value>2</value></property></gadget></gadgetronStreamConfiguration>""",
    ],
    ids=["version 2", "bytes", "configuration", "connect", "standalone", "elements", "version 1"],
)
def test_every_form_of_a_chain_is_read(text):
    assert Chain.parse(text).stages == (Stage("toy", {"scale": "2"}),)


def test_one_gadget_with_the_properties_of_its_node():
    made = Chain.single("toy", configuration('<property name="scale" value="2"/>'))
    assert made.stages == (Stage("toy", {"scale": "2"}),)


NOISE_ADJUST = "<gadget><dll>gadgetron_mricore</dll><classname>NoiseAdjustGadget</classname></gadget>"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<configuration>", "not well-formed"),
        ("<html/>", "root element is <html>"),
        ("<configuration/>", "names no gadget"),
        (chain(), "names no gadget"),
        (chain(stage("toyy")), 'no gadget "toyy"'),
        (chain(stage("toy", sclae=1)), 'Gadget toy has no property "sclae"'),
        (chain(stage("toy", scale="big")), "Gadget toy: property scale must be a number"),
        (chain("<gadget/>"), "holds <gadget>"),
        (chain("<gadgets name='toy'/>"), "holds <gadgets>"),
        (chain('<gadget name="toy"><property value="1"/></gadget>'), "has no name"),
        (
            chain(stage("toy", scale=1).replace("</gadget>", '<property name="scale" value="2"/></gadget>')),
            "given twice",
        ),
        (chain(execute='<execute name="os" target="system" type="python"/>'), "runs os.system"),
        (chain(execute='<execute name="gadgets.toy" target="other"/>'), "runs gadgets.toy.other"),
        (chain(execute='<execute name="gadgets" target="pipeline" type="matlab"/>'), "matlab"),
        (chain(execute=""), "neither <execute> nor <connect>"),
        (
            chain(stage("toy")).replace("<external>", NOISE_ADJUST + "<external>"),
            "NoiseAdjustGadget of gadgetron_mricore",
        ),
        (
            "<configuration><stream><parallelprocess workers='2'><purestream>"
            + NOISE_ADJUST
            + "</purestream></parallelprocess></stream></configuration>",
            "NoiseAdjustGadget.*only on a Gadgetron server",
        ),
        (
            f"<gadgetronStreamConfiguration>{NOISE_ADJUST}</gadgetronStreamConfiguration>",
            "NoiseAdjustGadget.*only on a Gadgetron server",
        ),
        ('<!DOCTYPE c [<!ENTITY x "y">]>' + configuration(stage("toy")), "document type"),
    ],
)
def test_a_bad_chain_is_one_sentence_that_names_it(text, words):
    with pytest.raises(InputError, match=words) as caught:
        Chain.parse(text, "chain bad.xml")
    assert "chain bad.xml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_properties_can_be_set_over_the_chains():
    made = Chain.parse(chain(stage("toy", scale=2), stage("toy")))
    assert made.set("toy.scale", "3").stages == (Stage("toy", {"scale": "3"}),) * 2
    assert made.set("toy.2.scale", "3").stages == (Stage("toy", {"scale": "2"}), Stage("toy", {"scale": "3"}))
    for name in ("toy.3.scale", "toy.0.scale"):
        with pytest.raises(InputError, match=r'no gadget "toy\.[03]"; it has: toy, toy'):
            made.set(name, "3")
    assert made.stages[0].properties == {"scale": "2"}
    with pytest.raises(InputError, match='no gadget "noise"; it has: toy, toy'):
        made.set("noise.scale", "3")
    with pytest.raises(InputError, match="must be a number"):
        made.set("toy.scale", "x")


def test_items_move_through_a_chain_one_at_a_time_and_in_order():
    taken = []

    def source():
        for item in ["a", "b", "c"]:
            taken.append(item)
            yield item

    running = Chain.parse(configuration(stage("toy"), stage("toy"))).run(source(), None)
    assert next(running) == "a"
    assert taken == ["a"]
    assert list(running) == ["b", "c"]


def test_an_exception_in_a_gadget_names_the_gadget_once():
    made = Chain.parse(configuration(stage("toy", fail="bug"), stage("toy")))
    with pytest.raises(GadgetError) as caught:
        list(made.run(toys.scan(), None))
    assert str(caught.value) == "Gadget toy failed: ZeroDivisionError: toys break"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_input_error_passes_as_it_is():
    made = Chain.parse(configuration(stage("toy", fail="input"), stage("toy")))
    with pytest.raises(InputError, match=r"^toy: acquisition 7"):
        list(made.run(toys.scan(), None))


def test_whole_chains_are_told_from_the_configuration_of_a_node():
    assert is_whole(chain(stage("toy")))
    assert is_whole("<gadgetronStreamConfiguration/>")
    assert is_whole("no XML")
    assert not is_whole(configuration(stage("toy")))
    assert not is_whole("<configuration/>")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.text("<>/configuration stream=\"'gadget", max_size=60))
def test_any_text_is_a_chain_or_an_input_error(text):
    with pytest.raises(InputError):
        Chain.parse(text)
