"""Badly written headers, of scans and of lines, give the same image in every host. Its comment says what was done."""

import io
import socket
import threading
from dataclasses import replace

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
from mrnets.mrd.lines import take
from tests.gadgets import synthetic
from tests.gadgets.clients import Client, served
from tests.gadgets.toys import blob, chain, configuration, stage

NETWORK = '<gadget name="network"><property name="name" value="cgsense"/></gadget>'
STAGES = stage("sort") + stage("coils") + NETWORK + stage("images")
HEADER = ToXML(synthetic.header(synthetic.encoding((16, 12, 1), mode="embedded"), te=[3.0])).encode()
LINES = synthetic.lines(synthetic.to_kspace(synthetic.coil_images(np.random.default_rng(3), 3, 12, 16)))


def through_serve(header, tmp_path, lines=LINES):
    with served(Rules(tmp_path)) as client:
        client.send(ConfigText(chain(STAGES).encode()), Header(header), lines, Close())
        return client.receive()


def through_external(header, tmp_path, lines=LINES):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        thread = threading.Thread(target=external.main, args=([port, "gadgets", "pipeline"],))
        thread.start()
        connected, _ = listener.accept()
        with connected:
            server = Client(connected)
            server.send(ConfigText(configuration(STAGES).encode()), Header(header), lines, Close())
            received = server.receive()
            server.peer.close()
        thread.join(60)
    return received


def through_pipe(header, tmp_path, lines=LINES):
    out = io.BytesIO()
    convey(Peer(io.BytesIO(blob([Header(header), lines, Close()])), out, State.PIPE), Chain.parse(chain(STAGES)))
    out.seek(len(blob([Header(header)])))
    return list(Peer(out, io.BytesIO(), State.ITEMS).items())


def through_replay(header, tmp_path, lines=LINES):
    write_scan(tmp_path / "scan.h5", header, [lines])
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


@pytest.mark.parametrize("host", [through_serve, through_external, through_pipe, through_replay])
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("kspace_encode_step_2", 7, "acquisition 9 has kspace_encode_step_2 7, other lines of its slice 0"),
        ("encoding_space_ref", 7, "acquisition 9: the header has 1 encoding spaces, but the data refer to encoding sp"),
        ("discard_pre", 60000, "acquisition 9 has 16 samples with centre 8 and 60000 + 0 discarded"),
    ],
)
def test_a_line_with_a_damaged_header_is_left_out_and_noted(host, name, value, words, tmp_path):
    damaged = replace(LINES, headers=LINES.headers.copy())
    fields = damaged.headers if name in damaged.headers.dtype.names else damaged.headers["idx"]
    fields[name][9] = value
    (expected,) = through_pipe(HEADER, tmp_path, take(LINES, np.delete(np.arange(12), 9)))
    (image,) = (item for item in host(HEADER, tmp_path, damaged) if isinstance(item, ismrmrd.Image))
    np.testing.assert_array_equal(np.squeeze(image.data), np.squeeze(expected.data))
    comment = ismrmrd.Meta.deserialize(image.attribute_string)["ImageComments"]
    assert f"1 of 12 lines were left out; the first: {words}" in comment
