"""One stream, four hosts, the same bytes out; and what each host does when something fails."""

import io
import socket
import subprocess
import sys

import ismrmrd
import pytest

from gadgets.chain import Chain
from gadgets.connection import Peer
from gadgets.hosts.pipe import convey
from gadgets.hosts.replay import replay
from gadgets.hosts.rules import Rules
from gadgets.messages import Close, ConfigFile, ConfigText, Error, Header
from gadgets.protocol import State
from gadgets.speaker import GadgetError
from mrnets.errors import InputError
from mrnets.mrd.files import write_scan
from mrnets.mrd.header import read_header
from tests.gadgets import toys
from tests.gadgets.clients import ROOT, SERVE, STAGES, WITH_TOYS, attached, served, started
from tests.gadgets.toys import blob, chain, configuration, stage


@pytest.fixture(scope="module")
def expected() -> bytes:
    """Output of the chain for the toy scan, run by hand."""
    made = Chain.parse(configuration(*STAGES)).run(iter(toys.scan()), read_header(toys.HEADER).header)
    return blob(made)


# The same bytes


def test_replay_gives_the_bytes(tmp_path, expected):
    write_scan(tmp_path / "scan.h5", toys.HEADER, toys.scan())
    (tmp_path / "toy.xml").write_text(chain(*STAGES))
    replay(tmp_path / "scan.h5", tmp_path / "images.h5", str(tmp_path / "toy.xml"))
    with ismrmrd.Dataset(tmp_path / "images.h5", mode="r") as dataset:
        series = [name for name in dataset.list() if name.startswith("image")]  # one for each shape
        images = [dataset.read_image(name, n) for name in series for n in range(dataset.number_of_images(name))]
        waveform = dataset.read_waveform(0)
    images.sort(key=lambda image: image.image_index)
    assert blob([images[0], waveform, *images[1:]]) == expected


def test_gadgetrons_external_target_gives_the_bytes(expected):
    with attached() as (status, server):
        server.send(ConfigText(configuration(*STAGES).encode()), Header(toys.HEADER), *toys.scan(), Close())
        assert blob(server.receive()) == expected
    assert status == []


def test_python_minus_m_gadgetron_gives_the_bytes():
    """The very command that a Gadgetron server runs."""
    with started("-m", "gadgetron") as (process, server):
        server.send(ConfigText(configuration(stage("noise")).encode()), Header(toys.HEADER), *toys.scan(), Close())
        whitened = Chain.parse(configuration(stage("noise"))).run(iter(toys.scan()), read_header(toys.HEADER).header)
        assert blob(server.receive()) == blob(whitened)
        assert process.wait(60) == 0


@pytest.mark.parametrize("form", ["name", "text", "connect"])
def test_the_resident_server_gives_the_bytes(form, tmp_path, expected, sent_to_clients):
    (tmp_path / "toy.xml").write_text(chain(*STAGES))
    first = {
        "name": ConfigFile("toy.xml"),
        "text": ConfigText(chain(*STAGES).encode()),
        "connect": ConfigText(b'<?xml version="1.0"?>' + configuration(*STAGES).encode()),
    }[form]
    with served(Rules(tmp_path)) as client:
        client.send(first, Header(toys.HEADER), *toys.scan(), Close())
        assert blob(client.receive()) == (expected if form == "connect" else sent_to_clients)


def test_the_pipe_gives_the_bytes_between_header_and_close(tmp_path, expected):
    """And nothing else is ever on stdout, whatever prints."""
    (tmp_path / "toy.xml").write_text(chain(*STAGES, stage("toy", loud="true")))
    command = [sys.executable, "-c", SERVE, "pipe", "-c", str(tmp_path / "toy.xml")]
    stream = blob([Header(toys.HEADER), *toys.scan(), Close()])
    done = subprocess.run(command, cwd=ROOT, input=stream, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stdout == blob([Header(toys.HEADER)]) + expected + blob([Close()])
    assert b"print: toy\nsystem: toy\n" in done.stderr


# Failures under Gadgetron


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        (stage("toy", fail="bug", after=1), "Gadget toy failed: ZeroDivisionError: toys break"),
        (stage("toy", fail="input"), "toy: acquisition 7 is not to its taste."),
        (stage("toy", sclae=1), 'Gadget toy has no property "sclae"'),
        (stage("nobody"), 'There is no gadget "nobody"'),
    ],
)
def test_gadgetron_is_told_what_failed(stages, sentence):
    """With more data than any buffer holds: they must be drained before it is told."""
    big = [toys.lines(200, coils=16, samples=512)] * 2
    with attached() as (status, server):
        server.send(ConfigText(configuration(stages).encode()), Header(toys.HEADER), *toys.scan(), *big, Close())
        *images, error = server.receive()
    assert isinstance(error, Error)
    assert sentence in error.text
    assert len([image for image in images if isinstance(image, ismrmrd.Image)]) == ("after" in stages)
    assert status == [1]


def test_a_failure_at_the_very_last_lines_is_told_too():
    """They are given out when CLOSE has been read: there is nothing left to wait for."""
    with attached() as (status, server):
        broken = configuration(stage("toy", fail="input"))
        server.send(ConfigText(broken.encode()), Header(toys.HEADER), toys.lines(3), Close())
        assert server.receive() == [Error("toy: acquisition 7 is not to its taste.")]
    assert status == [1]


def test_a_process_that_failed_told_gadgetron_and_exits_with_1():
    code = WITH_TOYS + "from gadgetron.__main__ import main; main(sys.argv[1:])"
    with started("-c", code) as (process, server):
        broken = configuration(stage("toy", fail="bug"))
        server.send(ConfigText(broken.encode()), Header(toys.HEADER), *toys.scan(), Close())
        assert server.receive() == [Error("Gadget toy failed: ZeroDivisionError: toys break")]
        assert process.wait(60) == 1


def test_a_gadgetron_server_that_ends_early_is_an_error():
    with attached() as (status, server):
        server.send(ConfigText(configuration(*STAGES).encode()), Header(toys.HEADER))
        server.socket.sendall(blob(toys.scan())[:-9])
        server.socket.shutdown(socket.SHUT_WR)
        (*_, error) = server.receive()
        assert "in the middle of an acquisition's samples" in error.text
    assert status == [1]


def test_a_gadget_alone_is_a_target_too():
    with attached(toys.toy) as (status, server):
        properties = configuration('<property name="scale" value="2"/>').encode()
        server.send(ConfigText(properties), Header(toys.HEADER), *toys.scan(), Close())
        made = toys.toy(toys.scan(), None, scale=2.0)
        assert blob(server.receive()) == blob(made)
    assert status == []


# Failures of the pipe


@pytest.mark.parametrize(
    ("stages", "stream", "sentence"),
    [
        (stage("toy"), b"", "starts with nothing"),
        (stage("toy"), blob([Close()]), "starts with a Close message"),
        (stage("toy"), blob([Header(toys.HEADER), *toys.scan()])[:-7], "in the middle of an acquisition's samples"),
        (stage("toy", fail="bug"), blob([Header(toys.HEADER), *toys.scan(), Close()]), "toys break"),
    ],
)
def test_a_pipe_that_fails_does_not_close_its_stream(stages, stream, sentence):
    out = io.BytesIO()
    with pytest.raises((InputError, GadgetError), match=sentence):
        convey(Peer(io.BytesIO(stream), out, State.PIPE), Chain.parse(chain(stages)))
    assert not out.getvalue().endswith(blob([Close()]))


def test_a_configuration_in_a_pipe_is_skipped():
    out = io.BytesIO()
    stream = blob([ConfigFile("default.xml"), Header(toys.HEADER), "text", Close()])
    convey(Peer(io.BytesIO(stream), out, State.PIPE), Chain.parse(chain(stage("toy"))))
    assert out.getvalue() == blob([Header(toys.HEADER), "text", Close()])
