"""One stream, four hosts, the same bytes out; and what each host does when something fails."""

import io
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from xml.etree.ElementTree import tostring

import gadgetron.external
import ismrmrd
import pytest

import gadgets
from gadgets.__main__ import main
from gadgets.chain import Chain
from gadgets.connection import Peer
from gadgets.hosts import conversation, doors
from gadgets.hosts.library import find, folder, shipped
from gadgets.hosts.log import name_gadgets
from gadgets.hosts.pipe import convey
from gadgets.hosts.preload import preload
from gadgets.hosts.replay import replay
from gadgets.hosts.rules import Rules
from gadgets.messages import Close, ConfigFile, ConfigText, Error, Header, Query, Response
from gadgets.protocol import State
from gadgets.speaker import GadgetError, Speech
from mrnets.errors import InputError
from mrnets.mrd.files import write_scan
from mrnets.mrd.header import read_header
from mrnets.mrd.xml import parse_xml
from tests.gadgets import toys
from tests.gadgets.toys import blob, chain, configuration, for_clients, stage

ROOT = Path(__file__).parents[2]
STAGES = (stage("noise"), stage("toy", scale=2))
WITH_TOYS = "import sys, tests.gadgets.toys; "


@pytest.fixture(scope="module")
def expected() -> bytes:
    """Output of the chain for the toy scan, run by hand."""
    made = Chain.parse(configuration(*STAGES)).run(iter(toys.scan()), read_header(toys.HEADER).header)
    return blob(made)


@pytest.fixture(scope="module")
def sent_to_clients() -> bytes:
    """The same without its waveform."""
    made = list(Chain.parse(configuration(*STAGES)).run(iter(toys.scan()), read_header(toys.HEADER).header))
    assert len(for_clients(made)) == len(made) - 1
    return blob(for_clients(made))


class Client:
    """The other side of a connection, with nothing of ours but the encoding of messages."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(60)
        self.socket, self.peer = connected, Peer.on(connected, State.ITEMS)

    def send(self, *messages) -> None:
        self.socket.sendall(blob(messages))

    def receive(self) -> list:
        """Messages up to CLOSE or the end of the stream, with acquisitions as Lines."""
        received = []
        for message in self.peer.items():
            received.append(message)
        return received


@contextmanager
def served(place: Path, weights: Path | None = None):
    """A client of the resident server's code, in this process."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=conversation.handle, args=(theirs, Rules(place, weights=weights)))
    thread.start()
    with ours:
        client = Client(ours)
        yield client
        client.peer.close()
    thread.join(60)
    assert not thread.is_alive()


@contextmanager
def started(*code: str):
    """A fake Gadgetron server and the external process that it starts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        command = [sys.executable, *code, str(listener.getsockname()[1]), "gadgets", "pipeline"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GADGETRON_EXTERNAL_LOG_LEVEL": "ERROR"}
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, env=environment)
        try:
            connected, _ = listener.accept()
            with connected:
                client = Client(connected)
                yield process, client
                client.peer.close()
        finally:
            process.kill()
            process.communicate()


@contextmanager
def attached(target=gadgets.pipeline):
    """A fake Gadgetron server, and the target called in a thread as a process would: exit status, client."""
    ours, theirs = socket.socketpair()
    status = []

    def external():
        with gadgetron.external.Connection(theirs) as connection:
            try:
                target(connection)
            except SystemExit as stop:
                status.append(stop.code)

    thread = threading.Thread(target=external)
    thread.start()
    with ours:
        client = Client(ours)
        yield status, client
        client.peer.close()
    thread.join(60)
    assert not thread.is_alive()


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
    with served(tmp_path) as client:
        client.send(first, Header(toys.HEADER), *toys.scan(), Close())
        assert blob(client.receive()) == (expected if form == "connect" else sent_to_clients)


def test_the_pipe_gives_the_bytes_between_header_and_close(tmp_path, expected):
    """And nothing else is ever on stdout, whatever prints."""
    (tmp_path / "toy.xml").write_text(chain(*STAGES, stage("toy", loud="true")))
    code = WITH_TOYS + "from gadgets.__main__ import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "pipe", "-c", str(tmp_path / "toy.xml")]
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


# Failures of the resident server


def texts(messages: list) -> list[str]:
    return [message for message in messages if isinstance(message, str)]


@pytest.mark.parametrize(
    ("first", "sentence"),
    [
        (ConfigFile("nobody.xml"), 'There is no chain "nobody.xml"; there are: toy.xml.'),
        (ConfigFile("../toy.xml"), 'There is no chain "../toy.xml"'),
        (ConfigFile("/etc/passwd"), "There is no chain"),
        (ConfigFile(""), "There is no chain"),
        (ConfigText(b"<configuration><stream>"), "not well-formed"),
        (ConfigText(chain(stage("toy", scale="x")).encode()), "property scale must be a number"),
        (ConfigText(chain(stage("toy", fail="bug")).encode()), "Gadget toy failed: ZeroDivisionError: toys break"),
    ],
)
def test_an_ordinary_client_is_told_in_a_text(tmp_path, first, sentence):
    (tmp_path / "toy.xml").write_text(chain(*STAGES))
    with served(tmp_path) as client:
        client.send(first, Header(toys.HEADER), *toys.scan(), Close())
        (text,) = texts(client.receive())
    assert text.startswith("[gadgets] ERROR: ")
    assert sentence in text


def test_a_client_is_told_at_once_and_not_after_its_close(tmp_path):
    """It has sent one slice of many when it hears that none can be reconstructed."""
    with served(tmp_path) as client:
        client.send(ConfigText(chain(stage("toy", fail="input")).encode()), Header(toys.HEADER), *toys.scan()[:4])
        assert client.peer.read() == "[gadgets] ERROR: toy: acquisition 7 is not to its taste."
        client.send(*toys.scan(), Close())
        assert client.receive() == []


def test_gadgetron_that_connects_is_told_by_an_error(tmp_path):
    with served(tmp_path) as client:
        client.send(
            ConfigText(configuration(stage("toy", fail="input")).encode()), Header(toys.HEADER), *toys.scan(), Close()
        )
        assert client.receive() == [Error("toy: acquisition 7 is not to its taste.")]


def test_a_bad_header_is_told(tmp_path):
    with served(tmp_path) as client:
        client.send(ConfigText(chain(*STAGES).encode()), Header(b"<ismrmrdHeader/>"), *toys.scan(), Close())
        assert "encoding" in texts(client.receive())[0]


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([Header(toys.HEADER)], "A Header message came where a configuration must come"),
        ([*toys.scan()], "A Line message came where a configuration must come"),
        ([ConfigText(chain(*STAGES).encode()), *toys.scan()], "A Line message came where the ISMRMRD header must come"),
    ],
    ids=["header", "lines", "lines before the header"],
)
def test_messages_in_the_wrong_order_are_told_at_once(tmp_path, monkeypatch, messages, sentence):
    """The stream stays in step: nobody waits until it falls silent."""
    monkeypatch.setattr("gadgets.connection.IDLE", 3600.0)
    with served(tmp_path) as client:
        client.send(*messages, Close())
        assert sentence in texts(client.receive())[0]


def test_a_truncated_stream_is_told_and_makes_no_image_of_half_a_slice(tmp_path):
    with served(tmp_path) as client:
        client.send(ConfigText(chain(*STAGES).encode()), Header(toys.HEADER))
        client.socket.sendall(blob(toys.scan()[:2])[:-9])
        client.socket.shutdown(socket.SHUT_WR)
        (text,) = client.receive()
        assert "in the middle of" in text


def test_an_unknown_message_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("gadgets.connection.IDLE", 0.05)
    with served(tmp_path) as client:
        client.send(ConfigText(chain(*STAGES).encode()), Header(toys.HEADER))
        client.socket.sendall(b"\x1b\x04" + bytes(100))
        assert "unknown id 1051" in texts(client.receive())[0]


def test_queries_are_answered_before_and_within_a_stream(tmp_path):
    with served(tmp_path) as client:
        client.send(Query(5, "gadgetron::version"), ConfigText(chain(stage("toy")).encode()), Query(6, "unknown"))
        client.send(Header(toys.HEADER), Query(7, "gadgetron::info"), Close())
        first, second, third = client.receive()
    assert first == Response(5, conversation.answer("gadgetron::version"))
    assert first.text
    assert second == Response(6, "Unknown query")
    assert (third.number, "gadgetron-networks" in third.text) == (7, True)


def test_a_connection_without_a_stream_is_closed(tmp_path):
    with served(tmp_path) as client:
        client.send(Close())
        assert client.receive() == []


def test_a_configuration_without_a_header_is_told(tmp_path):
    with served(tmp_path) as client:
        client.send(ConfigText(chain(stage("toy")).encode()), Close())
        (text,) = client.receive()
    assert text == "[gadgets] ERROR: The stream ended before the ISMRMRD header came; there are no images."


def test_texts_of_gadgets_reach_an_ordinary_client_but_not_gadgetron(tmp_path):
    for form, received in ((chain, ["hello"]), (configuration, [])):
        with served(tmp_path) as client:
            client.send(ConfigText(form(stage("toy", says="hello")).encode()), Header(toys.HEADER), Close())
            assert client.receive() == received


def test_texts_of_a_client_go_to_the_log_and_not_back(tmp_path, caplog):
    """python-ismrmrd-server's client sends its parameters as a text, between configuration and header or later."""
    with caplog.at_level("INFO"), served(tmp_path) as client:
        client.send(ConfigText(chain(stage("toy")).encode()), "{}", Header(toys.HEADER), "hello", Close())
        assert client.receive() == []
    assert "the client says: hello" in caplog.text


def test_the_server_outlives_its_clients_and_finishes_them_when_stopped(tmp_path, sent_to_clients):
    (tmp_path / "toy.xml").write_text(chain(*STAGES))
    code = WITH_TOYS + "from gadgets.__main__ import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "serve", "--port", "0", "--chains", str(tmp_path)]
    server = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        started = server.stderr.readline()
        assert "listening on 127.0.0.1" in started
        address = ("127.0.0.1", int(started.split()[-1]))
        with socket.create_connection(address) as first, socket.create_connection(address) as other:
            slow, gone = Client(first), Client(other)
            slow.send(ConfigFile("toy"), Header(toys.HEADER), *toys.scan()[:2])  # and is open while others come and go
            gone.send(ConfigFile("toy"), Header(toys.HEADER))
            gone.socket.sendall(blob(toys.scan())[:500])
            gone.peer.close()
            other.close()  # within an acquisition
            for stages, failures in ((stage("toy", fail="bug"), 1), ("".join(STAGES), 0)):
                with socket.create_connection(address) as third:
                    client = Client(third)
                    client.send(ConfigText(chain(stages).encode()), Header(toys.HEADER), *toys.scan(), Close())
                    received = client.receive()
                    assert len(texts(received)) == failures
                    client.peer.close()
            assert blob(received) == sent_to_clients
            server.send_signal(signal.SIGTERM)
            iter_until(server.stderr, "finishing")
            slow.send(*toys.scan()[2:], Close())
            assert blob(slow.receive()) == sent_to_clients
            slow.peer.close()
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.communicate()


def test_ping_says_whether_a_server_answers(tmp_path, capsys):
    with doors.listen("127.0.0.1", 0) as listener:
        port = str(listener.getsockname()[1])

        def answer():
            connected, _ = listener.accept()
            conversation.handle(connected, Rules(tmp_path))

        thread = threading.Thread(target=answer)
        thread.start()
        assert main(["ping", "--port", port]) == 0
        thread.join(20)
    assert capsys.readouterr().out == f"{conversation.answer('gadgetron::info')}\n"
    assert main(["ping", "--port", port]) == 1
    assert f"No server answers at localhost port {port}" in capsys.readouterr().err


def test_a_preloaded_chain_has_its_network_and_the_log_says_what_each_scan_was(tmp_path, sent_to_clients):
    """In a process of its own, since the log is the process's."""
    (tmp_path / "toy.xml").write_text(chain(*STAGES))
    code = WITH_TOYS + "from gadgets.__main__ import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "serve", "--port", "0", "--chains", str(tmp_path), "--preload", "toy"]
    command += ["--log-file", str(tmp_path / "log")]
    server = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        port = int(iter_until(server.stderr, "listening").split()[-1])
        with socket.create_connection(("127.0.0.1", port)) as connected:
            client = Client(connected)
            client.send(ConfigFile("toy"), Header(toys.HEADER), *toys.scan(), Close())
            assert blob(client.receive()) == sent_to_clients
            client.peer.close()
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.communicate()
    log = (tmp_path / "log").read_text()
    before, _, after = log.partition("connection 1 from 127.0.0.1: scan begins: protocol unnamed, chain toy.xml")
    assert "MainThread: scan ends: " in before
    assert "connection 1 from 127.0.0.1: scan ends: 17 lines of 1 slices, 3 images, " in after


def test_a_chain_that_cannot_be_loaded_is_not_preloaded(tmp_path):
    (tmp_path / "lost.xml").write_text(chain(stage("sort"), stage("network", weights="nonesuch"), stage("images")))
    with pytest.raises(InputError, match="no weights 'nonesuch'"):
        preload("lost", Rules(tmp_path))


def test_a_chain_that_does_not_fit_the_small_scan_is_preloaded_all_the_same(tmp_path, caplog):
    stages = stage("toy", fail="bug"), stage("sort"), stage("network", name="cgsense"), stage("images")
    (tmp_path / "picky.xml").write_text(chain(*stages))
    preload("picky", Rules(tmp_path))
    assert "chain picky.xml is loaded; it was not tried: Gadget toy failed" in caplog.text


def test_a_quiet_log_hides_no_warning_from_the_images(monkeypatch):
    """As under GADGETRON_EXTERNAL_LOG_LEVEL=ERROR."""
    written = []

    class Handler(logging.Handler):
        def emit(self, record):
            written.append(record.getMessage())

    root, ours = logging.getLogger(), logging.getLogger("mrnets")
    monkeypatch.setattr(root, "handlers", [Handler()])
    levels = root.level, ours.level
    try:
        root.setLevel(logging.ERROR)
        name_gadgets()
        speech = Speech()

        def items():
            logging.getLogger("mrnets.stages").warning("the background is kept")
            yield 1

        list(speech.named("coils", items()))
    finally:
        root.setLevel(levels[0])
        ours.setLevel(levels[1])
    assert list(speech.notes) == ["the background is kept"]
    assert written == []


def iter_until(lines, word: str) -> str:
    return next(line for line in lines if word in line)


def test_a_port_that_is_taken_is_one_sentence():
    with doors.listen("127.0.0.1", 0) as listener, pytest.raises(InputError, match="Cannot listen on 127"):
        doors.listen("127.0.0.1", listener.getsockname()[1])
    with pytest.raises(InputError, match="Cannot listen"):
        doors.listen("127.0.0.1", 70000)


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


# Chains


def test_shipped_chains_are_found_by_name():
    assert shipped("varnet") == shipped("varnet.xml")
    assert find("varnet")[1] == "chain varnet.xml"
    assert find(str(folder() / "varnet.xml"))[0] == shipped("varnet")[0]
    with pytest.raises(InputError, match=r"There is no chain file nowhere/varnet\.xml"):
        find("nowhere/varnet.xml")


@pytest.mark.parametrize(
    "name", ["../varnet", "/varnet.xml", "..", ".", "", "varnet\0", "sub/varnet", "\\varnet", "." * 300]
)
def test_no_name_leads_out_of_the_folder(name, tmp_path):
    (tmp_path / "varnet.xml").write_text("secret")
    (tmp_path / "chains" / "sub").mkdir(parents=True)
    (tmp_path / "chains" / "sub" / "varnet.xml").write_text("secret")
    with pytest.raises(InputError, match="There is no chain"):
        shipped(name, tmp_path / "chains")


@pytest.mark.parametrize("path", sorted(folder().glob("*.xml")), ids=lambda path: path.name)
def test_the_chains_that_ship_are_right(path):
    text = path.read_text()
    root = parse_xml(text, "chain")
    configuration = root.find("stream/external/configuration")
    chain = Chain.of(tuple(Chain.parse(tostring(configuration)).stages))
    assert chain.stages[-1].name == ("retrieve" if path.stem == "retrieve" else "images")
    stock = root.findall("stream/gadget")
    assert bool(stock) == ("buffered" in path.name)
    if stock:
        with pytest.raises(InputError, match="only on a Gadgetron server"):
            Chain.parse(text)
    else:
        assert Chain.parse(text).stages == chain.stages
    assert path.stem in text.partition("-->")[0], "the comment says how to start it"
