"""The client of python-ismrmrd-server: its messages, the NUL behind each of its texts, its JSON, its order of CLOSE."""

import ctypes
import json
import socket
import struct
import threading
from contextlib import contextmanager

import ismrmrd
import numpy as np
import pytest
from ismrmrd.xsd import ToXML

from gadgets.chain import Chain, Stage
from gadgets.hosts import conversation
from gadgets.hosts.parameters import Order, order_of, parameters_in, with_parameters
from gadgets.hosts.rules import Rules
from gadgets.messages import ConfigFile
from mrnets.errors import InputError
from mrnets.mrd.header import read_header
from tests.gadgets import synthetic
from tests.gadgets.toys import chain, stage, to_acquisitions

HEADER = ToXML(synthetic.header(synthetic.encoding((16, 12, 1), mode="embedded")))
TRUTH = synthetic.coil_images(np.random.default_rng(3), 3, 12, 16)
LINES = synthetic.lines(synthetic.to_kspace(TRUTH))
NETWORK = '<gadget name="network"><property name="name" value="zerofilled"/></gadget>'


class FireClient:
    """The client, after its description in the public repository. It knows nothing of this project."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(60)
        self.socket = connected
        self.images: list[ismrmrd.Image] = []
        self.texts: list[str] = []

    def send_name(self, name: str) -> None:
        self.socket.sendall(struct.pack("<H1024s", 1, name.encode()))

    def send_text(self, number: int, text: str) -> None:
        contents = f"{text}\0".encode()
        self.socket.sendall(struct.pack("<HI", number, len(contents)) + contents)

    def send_acquisitions(self, acquisitions: list[ismrmrd.Acquisition]) -> None:
        for acquisition in acquisitions:
            self.socket.sendall(struct.pack("<H", 1008))
            acquisition.serialize_into(self.socket.sendall)

    def send_close(self) -> None:
        self.socket.sendall(struct.pack("<H", 4))

    def receive(self) -> None:
        """Everything up to CLOSE, which must come."""
        while (number := struct.unpack("<H", self.read(2))[0]) != 4:
            assert number in (5, 1022)
            if number == 5:
                (length,) = struct.unpack("<I", self.read(4))
                self.texts.append(self.read(length).split(b"\0", 1)[0].decode())
                continue
            head = self.read(ctypes.sizeof(ismrmrd.ImageHeader))
            (length,) = struct.unpack("<Q", self.read(8))
            image = ismrmrd.Image(head, self.read(length).split(b"\0", 1)[0].decode())
            image.data.ravel()[:] = np.frombuffer(self.read(image.data.nbytes), image.data.dtype)
            self.images.append(image)

    def read(self, size: int) -> bytes:
        """As much as is asked for. Nothing at the end of a stream, which must not come here."""
        got = self.socket.recv(size, socket.MSG_WAITALL)
        assert len(got) == size
        return got


@pytest.fixture
def rules(tmp_path):
    for name, output in (("recon", "magnitude"), ("other", "phase")):
        stages = (stage("sort"), stage("coils"), NETWORK, stage("images", output=output))
        (tmp_path / f"{name}.xml").write_text(chain(*stages))
    return Rules(tmp_path, memory=2.0)


@contextmanager
def served(rules):
    """A client of the resident server's code, in this process."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=conversation.handle, args=(theirs, rules))
    thread.start()
    with ours:
        yield FireClient(ours)
    thread.join(60)
    assert not thread.is_alive()


def comments(image):
    return ismrmrd.Meta.deserialize(image.attribute_string)["ImageComments"]


def session(rules, *, name=None, text=None, parameters=None, header=HEADER):
    with served(rules) as client:
        client.send_text(2, text) if name is None else client.send_name(name)
        client.send_text(3, header)
        if parameters is not None:
            client.send_text(5, json.dumps({"version": "1.1.0", "parameters": parameters}, indent=2))
        client.send_acquisitions(to_acquisitions(LINES))
        client.send_close()
        client.receive()
    return client


@pytest.mark.parametrize("form", ["name", "text"])
def test_the_client_gets_its_images(rules, form):
    given = {"name": "recon"} if form == "name" else {"text": (rules.chains / "recon.xml").read_text()}
    client = session(rules, **given)
    (image,) = client.images
    assert client.texts == []
    (expected,) = Chain.parse((rules.chains / "recon.xml").read_text()).run([LINES], read_header(HEADER).header)
    np.testing.assert_array_equal(image.data, expected.data)
    assert comments(image).startswith("Image by zerofilled")


def test_json_sets_properties_and_what_it_does_not_know_is_a_warning(rules):
    parameters = {"images.output": "phase", "options": "", "network": {"name": "cgsense"}, "sendOriginal": "False"}
    (image,) = session(rules, name="recon", parameters=parameters).images
    assert image.image_type == ismrmrd.IMTYPE_PHASE
    assert "Image by cgsense" in comments(image)
    for name in ("options", "sendOriginal"):
        assert f'the parameter "{name}" means nothing to chain recon.xml; it was left out' in comments(image)


@pytest.mark.parametrize("parameters", [{"config": "other"}, {"config": "nobody", "customconfig": "other"}])
def test_json_names_the_chain(rules, parameters):
    (image,) = session(rules, name="recon", parameters=parameters).images
    assert image.image_type == ismrmrd.IMTYPE_PHASE


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "openrecon"}, 'There is no chain "openrecon"'),
        ({"name": "recon", "parameters": {"config": "nobody"}}, 'There is no chain "nobody"'),
        ({"name": "recon", "parameters": {"images.series": "many"}}, "series must be an integer"),
        ({"name": "recon", "parameters": {"network.weights": "/etc/passwd"}}, 'There are no weights "/etc/passwd"'),
        ({"name": "recon", "header": "Dummy XML header"}, "not well-formed"),
    ],
)
def test_what_cannot_be_is_told_before_close(rules, given, words):
    client = session(rules, **given)
    assert client.images == []
    (text,) = client.texts
    assert words in text


def test_a_text_that_is_no_json_is_for_the_log(rules, caplog):
    with served(rules) as client, caplog.at_level("INFO"):
        client.send_name("recon")
        client.send_text(3, HEADER)
        client.send_text(5, "hello")
        client.send_acquisitions(to_acquisitions(LINES))
        client.send_close()
        client.receive()
    assert (len(client.images), client.texts) == (1, [])
    assert "the client says: hello" in caplog.text


def test_an_unknown_name_gets_the_operators_default_chain(rules):
    (image,) = session(Rules(rules.chains, "recon", memory=2.0), name="openrecon").images
    assert 'there is no chain "openrecon"; chain recon.xml was taken' in comments(image)
    with pytest.raises(InputError, match="no chain"):
        order_of(ConfigFile("openrecon"), rules)


# Parameters


@pytest.mark.parametrize(
    "text",
    ["", "hello", "3", "[]", "{}", '{"parameters": 3}', "[" * 100_000, '{"parameters": {}}' + " " * (1 << 20)],
    ids=range(8),
)
def test_texts_without_parameters(text):
    assert parameters_in(text) is None


def test_values_are_as_in_the_xml_of_a_chain():
    text = '{"parameters": {"a.b": true, "c.d": 0.5, "e.f": null, "g": {"h": "False", "i": [1]}, "j": "Text"}}'
    found = parameters_in(text)
    assert found == {"a.b": "true", "c.d": "0.5", "e.f": "none", "g.h": "false", "g.i": "[1]", "j": "Text"}


def test_the_rules_hold_for_parameters():
    stages = (
        Stage("sort", {"memory": "1.5"}),
        Stage("network", {"weights": "/opt/own.safetensors"}),
        Stage("images", {}),
    )
    order = Order(Chain.of(stages, "chain own.xml"))
    rules = Rules(memory=2.0)
    less = with_parameters(order, {"sort.memory": "1", "network.batch": "2"}, rules).chain.stages
    assert less[0].properties["memory"] == "1.0"
    assert less[1].properties == {"weights": "/opt/own.safetensors", "batch": "2"}
    more = with_parameters(order, {"sort.memory": "1.8"}, rules).chain.stages
    assert more[0].properties["memory"] == "1.5"
    with pytest.raises(InputError, match="There are no weights"):
        with_parameters(order, {"network.weights": "/opt/other.safetensors"}, rules)


def test_parameters_are_bounded_and_numbered_gadgets_can_be_named():
    order = Order(Chain.of((Stage("noise", {}), Stage("noise", {})), "chain two.xml"))
    made = with_parameters(order, {"noise.2.device": "cpu"}, Rules())
    assert [stage.properties for stage in made.chain.stages] == [{}, {"device": "cpu"}]
    for name in ("noise.x.device", "noise.devise", "sort.memory", "a.b.c.d", "", ".", "noise."):
        assert "means nothing to chain two.xml" in with_parameters(order, {name: "1"}, Rules()).warnings[0]
    many = with_parameters(order, {f"p{n}": "" for n in range(300)}, Rules())
    assert many.warnings[-1] == "44 of 300 parameters were left out"
