"""The resident server: what it tells its clients and its log, and how it starts and ends."""

import logging
import signal
import socket
import subprocess
import sys
import threading

import pytest

from gadgets.__main__ import main
from gadgets.hosts import conversation, doors
from gadgets.hosts.log import name_gadgets
from gadgets.hosts.preload import preload
from gadgets.hosts.rules import Rules
from gadgets.hosts.spool import entries
from gadgets.messages import Close, ConfigFile, ConfigText, Error, Header, Query, Response
from gadgets.speaker import Speech
from mrnets.errors import InputError
from tests.gadgets import toys
from tests.gadgets.clients import ROOT, SERVE, STAGES, Client, iter_until, served, texts
from tests.gadgets.toys import blob, chain, configuration, stage


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
    with served(Rules(tmp_path)) as client:
        client.send(first, Header(toys.HEADER), *toys.scan(), Close())
        (text,) = texts(client.receive())
    assert text.startswith("[gadgets] ERROR: ")
    assert sentence in text


def test_a_client_is_told_at_once_and_not_after_its_close(tmp_path):
    """It has sent one slice of many when it hears that none can be reconstructed."""
    with served(Rules(tmp_path)) as client:
        client.send(ConfigText(chain(stage("toy", fail="input")).encode()), Header(toys.HEADER), *toys.scan()[:4])
        assert client.peer.read() == "[gadgets] ERROR: toy: acquisition 7 is not to its taste."
        client.send(*toys.scan(), Close())
        assert client.receive() == []


def test_gadgetron_that_connects_is_told_by_an_error(tmp_path):
    with served(Rules(tmp_path)) as client:
        client.send(
            ConfigText(configuration(stage("toy", fail="input")).encode()), Header(toys.HEADER), *toys.scan(), Close()
        )
        assert client.receive() == [Error("toy: acquisition 7 is not to its taste.")]


def test_a_bad_header_is_told(tmp_path):
    with served(Rules(tmp_path)) as client:
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
    with served(Rules(tmp_path)) as client:
        client.send(*messages, Close())
        assert sentence in texts(client.receive())[0]


def test_a_truncated_stream_is_told_and_makes_no_image_of_half_a_slice(tmp_path):
    with served(Rules(tmp_path)) as client:
        client.send(ConfigText(chain(*STAGES).encode()), Header(toys.HEADER))
        client.socket.sendall(blob(toys.scan()[:2])[:-9])
        client.socket.shutdown(socket.SHUT_WR)
        (text,) = client.receive()
        assert "in the middle of" in text


def test_an_unknown_message_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("gadgets.connection.IDLE", 0.05)
    with served(Rules(tmp_path)) as client:
        client.send(ConfigText(chain(*STAGES).encode()), Header(toys.HEADER))
        client.socket.sendall(b"\x1b\x04" + bytes(100))
        assert "unknown id 1051" in texts(client.receive())[0]


def test_queries_are_answered_before_and_within_a_stream(tmp_path):
    with served(Rules(tmp_path)) as client:
        client.send(Query(5, "gadgetron::version"), ConfigText(chain(stage("toy")).encode()), Query(6, "unknown"))
        client.send(Header(toys.HEADER), Query(7, "gadgetron::info"), Close())
        first, second, third = client.receive()
    assert first == Response(5, conversation.answer("gadgetron::version"))
    assert first.text
    assert second == Response(6, "Unknown query")
    assert (third.number, "gadgetron-networks" in third.text) == (7, True)


def test_a_connection_without_a_stream_is_closed(tmp_path):
    with served(Rules(tmp_path)) as client:
        client.send(Close())
        assert client.receive() == []


def test_a_configuration_without_a_header_is_told(tmp_path):
    with served(Rules(tmp_path)) as client:
        client.send(ConfigText(chain(stage("toy")).encode()), Close())
        (text,) = client.receive()
    assert text == "[gadgets] ERROR: The stream ended before the ISMRMRD header came; there are no images."


def test_texts_of_gadgets_reach_an_ordinary_client_but_not_gadgetron(tmp_path):
    for form, received in ((chain, ["hello"]), (configuration, [])):
        with served(Rules(tmp_path)) as client:
            client.send(ConfigText(form(stage("toy", says="hello")).encode()), Header(toys.HEADER), Close())
            assert client.receive() == received


def test_texts_of_a_client_go_to_the_log_and_not_back(tmp_path, caplog):
    """python-ismrmrd-server's client sends its parameters as a text, between configuration and header or later."""
    with caplog.at_level("INFO"), served(Rules(tmp_path)) as client:
        client.send(ConfigText(chain(stage("toy")).encode()), "{}", Header(toys.HEADER), "hello", Close())
        assert client.receive() == []
    assert "the client says: hello" in caplog.text


def test_the_server_outlives_its_clients_and_finishes_them_when_stopped(tmp_path, sent_to_clients):
    (tmp_path / "toy.xml").write_text(chain(*STAGES))
    command = [sys.executable, "-c", SERVE, "serve", "--port", "0", "--chains", str(tmp_path)]
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


LOST = "import gadgets.failures; gadgets.failures.lost_device = lambda: 'an illegal memory access'; "
"""The stand-in for a device after a failure of its own. It is asked only when a scan has failed."""


def test_a_server_whose_device_is_lost_tells_its_client_and_ends_with_a_failure(tmp_path):
    (tmp_path / "toy.xml").write_text(chain(*STAGES))
    spool = tmp_path / "spool"
    command = [sys.executable, "-c", LOST + SERVE, "serve", "--port", "0", "--chains", str(tmp_path)]
    server = subprocess.Popen([*command, "--spool", str(spool)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        address = ("127.0.0.1", int(iter_until(server.stderr, "listening").split()[-1]))
        for stages, failures in (("".join(STAGES), 0), (stage("toy", fail="bug"), 1)):
            with socket.create_connection(address) as connected:
                client = Client(connected)
                client.send(ConfigText(chain(stages).encode()), Header(toys.HEADER), *toys.scan(), Close())
                assert len(texts(client.receive())) == failures
                client.peer.close()
        _, log = server.communicate(timeout=60)
    finally:
        server.kill()
        server.communicate()
    assert server.returncode == 1
    assert log.count("the CUDA device is lost to this process, and the server ends: an illegal memory access") == 1
    assert [entry.state for entry in entries(spool)].count("failed") == 1
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


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
    command = [sys.executable, "-c", SERVE, "serve", "--port", "0", "--chains", str(tmp_path), "--preload", "toy"]
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
    assert "connection 1 from 127.0.0.1: scan ends: 17 lines of 1 slice, 3 images, " in after


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


def test_a_port_that_is_taken_is_one_sentence():
    with doors.listen("127.0.0.1", 0) as listener, pytest.raises(InputError, match="Cannot listen on 127"):
        doors.listen("127.0.0.1", listener.getsockname()[1])
    with pytest.raises(InputError, match="Cannot listen"):
        doors.listen("127.0.0.1", 70000)
