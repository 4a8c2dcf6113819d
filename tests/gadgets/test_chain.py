import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gadgets.chain import Chain, Stage, is_whole
from gadgets.gadget import gadget
from gadgets.speaker import GadgetError, Prefix
from mrnets.errors import InputError
from tests.gadgets import toys
from tests.gadgets.toys import chain, configuration, stage


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
    made = Chain.external("gadgets.toy", "toy", configuration('<property name="scale" value="2"/>'))
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
        (chain(*[stage("toy")] * 65), "names 65 gadgets; at most 64 are taken"),
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


def test_an_input_error_of_a_gadget_names_the_gadget_once():
    made = Chain.parse(configuration(stage("toy", fail="input"), stage("toy")))
    with pytest.raises(InputError) as caught:
        list(made.run(toys.scan(), None))
    assert str(caught.value) == "toy: acquisition 7 is not to its taste."


class LostError(InputError):
    """An error of a source."""


def test_an_error_of_the_source_passes_as_it_is():
    def source():
        yield from toys.scan()[:2]
        raise LostError("scan.h5 is cut short.")

    with pytest.raises(LostError, match=r"^scan\.h5 is cut short\.$"):
        list(Chain.parse(configuration(stage("toy"), stage("toy"))).run(source(), None))


def test_a_warning_names_the_gadget_whose_code_runs(monkeypatch):
    """Generators run one in another: the source's warnings carry no name, and those of a gadget its own."""
    log = logging.getLogger("gadgets.test")
    spoken = []

    class Handler(logging.Handler):
        def emit(self, record):
            spoken.append(record.getMessage())

    handlers = [Handler(), Handler()]
    for handler in handlers:
        handler.addFilter(Prefix())
        monkeypatch.setattr(log, "handlers", [*log.handlers, handler])

    def speaking(word):
        def speak(stream, header):
            for item in stream:
                log.warning("%s %d %%", word, item)
                yield item

        return speak

    def source():
        for n in range(2):
            log.warning("read")
            yield n

    monkeypatch.setattr("gadgets.noise.noise", gadget(speaking("whitened")))
    monkeypatch.setattr("gadgets.sort.sort", gadget(speaking("sorted")))
    list(Chain.of((Stage("noise", {}), Stage("sort", {}))).run(source(), None))
    log.warning("end")
    once = ["read", "noise: whitened 0 %", "sort: sorted 0 %", "read", "noise: whitened 1 %", "sort: sorted 1 %", "end"]
    assert spoken == [message for message in once for _ in handlers]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            "compress sort coils network images",
            "gadget compress takes kspace, and the scan gives lines; sort must come",
        ),
        ("noise coils network images", "gadget coils takes kspace, and noise gives lines; sort must come before it"),
        ("network images", "gadget network takes kspace or coil maps or estimates, and the scan gives lines"),
        ("noise sort coils compress network images", "gadget compress takes kspace, and coils gives coil maps"),
        ("noise sort noise network images", "gadget noise takes lines, and sort gives kspace"),
        ("noise sort sort network images", "gadget sort takes lines, and sort gives kspace"),
        ("noise sort coils images", "gadget images takes estimates, and coils gives coil maps; network must come"),
        (
            "noise sort coils network",
            "its last gadget, network, gives estimates, which cannot leave a chain; add images",
        ),
        ("noise sort", "its last gadget, sort, gives kspace"),
        ("sort network images images", "gadget images takes estimates, and images gives images"),
    ],
)
def test_gadgets_that_cannot_work_in_their_order_are_refused_when_a_chain_is_read(names, words):
    needs = {"network": {"name": "cgsense"}}
    stages = [stage(name, **needs.get(name, {})) for name in names.split()]
    with pytest.raises(InputError, match=words) as caught:
        Chain.parse(configuration(*stages), "chain wrong.xml")
    assert str(caught.value).startswith("chain wrong.xml: ")


@pytest.mark.parametrize("names", ["noise", "sort network images", "sort coils network network images", "toy sort toy"])
def test_gadgets_that_can_work_in_their_order_are_taken(names):
    needs = {"network": {"name": "cgsense"}}
    stages = [stage(name, **needs.get(name, {})) for name in names.split()]
    assert [made.name for made in Chain.parse(configuration(*stages)).stages] == names.split()


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
