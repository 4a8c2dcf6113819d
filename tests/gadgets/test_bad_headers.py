"""Headers that are badly written give the same image in every host, and its comment says what was taken instead."""

import io
import socket
import threading

import ismrmrd
import numpy as np
import pytest
from ismrmrd.xsd import ToXML

from gadgets.chain import Chain
from gadgets.connection import Peer
from gadgets.hosts import external
from gadgets.hosts.pipe import convey
from gadgets.hosts.replay import replay
from gadgets.hosts.rules import Rules
from gadgets.messages import Close, ConfigText, Header
from gadgets.protocol import State
from mrnets.mrd.files import write_scan
from tests.gadgets import synthetic
from tests.gadgets.clients import Client, served
from tests.gadgets.toys import blob, chain, configuration, stage

NETWORK = '<gadget name="network"><property name="name" value="cgsense"/></gadget>'
STAGES = stage("sort") + stage("coils") + NETWORK + stage("images")
HEADER = ToXML(synthetic.header(synthetic.encoding((16, 12, 1), mode="embedded"), te=[3.0])).encode()
LINES = synthetic.lines(synthetic.to_kspace(synthetic.coil_images(np.random.default_rng(3), 3, 12, 16)))


def through_serve(header, tmp_path):
    with served(Rules(tmp_path)) as client:
        client.send(ConfigText(chain(STAGES).encode()), Header(header), LINES, Close())
        return client.receive()


def through_external(header, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        thread = threading.Thread(target=external.main, args=([port, "gadgets", "pipeline"],))
        thread.start()
        connected, _ = listener.accept()
        with connected:
            server = Client(connected)
            server.send(ConfigText(configuration(STAGES).encode()), Header(header), LINES, Close())
            received = server.receive()
            server.peer.close()
        thread.join(60)
    return received


def through_pipe(header, tmp_path):
    out = io.BytesIO()
    convey(Peer(io.BytesIO(blob([Header(header), LINES, Close()])), out, State.PIPE), Chain.parse(chain(STAGES)))
    out.seek(len(blob([Header(header)])))
    return list(Peer(out, io.BytesIO(), State.ITEMS).items())


def through_replay(header, tmp_path):
    write_scan(tmp_path / "scan.h5", header, [LINES])
    (tmp_path / "chain.xml").write_text(chain(STAGES))
    replay(tmp_path / "scan.h5", tmp_path / "images.h5", str(tmp_path / "chain.xml"))
    with ismrmrd.Dataset(tmp_path / "images.h5", mode="r") as dataset:
        return [dataset.read_image("image_1", 0)]


@pytest.mark.parametrize("host", [through_serve, through_external, through_pipe, through_replay])
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"<y>12</y>", b"<y>12.0</y>", 'matrixSize.y = "12.0"; "12" was taken'),
        (b"<z>1</z>", b"<z>0.9996</z>", 'matrixSize.z = "0.9996"; "1" was taken'),
        (b"<center>6</center>", b"<center>6.0</center>", 'center = "6.0"; "6" was taken'),
        (b"<TE>3.0</TE>", b"<TE>3,0</TE>", 'TE = "3,0"; 3 was taken'),
        (b"cartesian", b"Cartesian", 'trajectory = "Cartesian"; "cartesian" was taken'),
        (b"<y>24.0</y>", b"<y>NaN</y>", "fieldOfView_mm.y = nan; 24 mm was taken"),
        (b"<y>24.0</y>", b"<y>0</y>", "fieldOfView_mm.y = 0.0; 24 mm was taken"),
    ],
)
def test_a_badly_written_header_gives_the_image_and_a_note(host, old, new, words, tmp_path):
    assert old in HEADER
    (expected,) = through_pipe(HEADER, tmp_path)
    (image,) = host(HEADER.replace(old, new), tmp_path)
    np.testing.assert_array_equal(np.squeeze(image.data), np.squeeze(expected.data))
    comment = ismrmrd.Meta.deserialize(image.attribute_string)["ImageComments"]
    assert words in comment
