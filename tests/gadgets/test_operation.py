"""Tools of a server's operators: options in a file, words to systemd, numbers for Prometheus, memory of all scans."""

import argparse
import gc
import logging
import socket
import urllib.request

import pytest

from gadgets.chain import Chain
from gadgets.connection import sentence
from gadgets.gather import Memory, taken
from gadgets.hosts import log, serve
from gadgets.hosts.notify import notify
from gadgets.hosts.scan import reconstructed
from gadgets.hosts.totals import TOTALS
from gadgets.sort import sort
from gadgets.speaker import GadgetError
from mrnets.errors import InputError
from tests.gadgets import toys
from tests.gadgets.toys import configuration, stage
from tests.mrnets.mrd.test_plausible import HEADER, scan


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "server.toml"
    path.write_text(
        'port = 9010\nhost = "0.0.0.0"\nper-address = 3\nmemory = 1.5\n'
        'preload = ["varnet", "cgsense"]\nlog_file = "x"\n'
    )
    return path


def test_options_come_from_a_file(file):
    found = options("--config", str(file))
    assert (found.port, found.host, found.per_address, found.memory) == (9010, "0.0.0.0", 3, 1.5)
    assert found.preload == ["varnet", "cgsense"]
    assert str(found.log_file) == "x"
    assert found.connections == 16, "what the file does not say is as without it"


def test_options_behind_the_file_win(file):
    assert options("--config", str(file), "--port", "9011").port == 9011


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("prot = 9010", "there is no option 'prot'"),
        ('port = "ninety"', "argument -p/--port: invalid int value: 'ninety'"),
        ("port = [", "is no TOML"),
        ('config = "other.toml"', "there is no option 'config'"),
        (None, "cannot read"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path, capsys, text, sentence):
    path = tmp_path / "server.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit) as caught:
        options("--config", str(path))
    assert caught.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("form", ["path", "abstract"])
def test_systemd_is_told(tmp_path, monkeypatch, form):
    address = str(tmp_path / "notify") if form == "path" else f"@{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address.replace("@", "\0") if form == "abstract" else address)
        systemd.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify("READY=1")
        assert systemd.recv(100) == b"READY=1"


def test_without_systemd_nobody_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify("READY=1")


# The log


def test_a_client_writes_no_lines_into_the_log(monkeypatch, capsys):
    """Neither other lines, nor what a terminal takes for orders."""
    monkeypatch.setattr(logging.root, "handlers", [])
    for logger in (logging.root, logging.getLogger("mrnets")):
        monkeypatch.setattr(logger, "level", logger.level)
    monkeypatch.setattr(logging, "raiseExceptions", True)
    log.start("serve")
    logging.getLogger("gadgets").error("the client says: %s", "hello\n2026-11-27 all is well\x1b[2J\x07 é")
    logging.getLogger("gadgets").error("%s", sentence(InputError("\x1b]0;title\x07\r\n" + "a" * 10_000)))
    first, second, rest = capsys.readouterr().err.split("\n")
    assert first.endswith("the client says: hello 2026-11-27 all is well\ufffd[2J\ufffd é")
    assert "\x1b" not in second
    assert len(second) < 2200
    assert rest == ""


def test_totals_count_scans_that_end_and_that_fail():
    before = {name: value for name, value, _ in TOTALS.told()}
    sound, broken = (Chain.parse(configuration(stage("toy", fail=fail))) for fail in ("no", "bug"))
    list(reconstructed(sound, toys.scan(), toys.HEADER))
    with pytest.raises(GadgetError):
        list(reconstructed(broken, toys.scan(), toys.HEADER))
    now = {name: value - before[name] for name, value, _ in TOTALS.told()}
    assert (now["scans_begun"], now["scans_ended"], now["scans_failed"]) == (2, 1, 1)


def test_prometheus_finds_the_numbers():
    pytest.importorskip("prometheus_client")
    from gadgets.hosts.metrics import publish

    server = publish("127.0.0.1", 0, [1, 2, 3])
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics").read().decode()
    finally:
        server.shutdown()
        server.server_close()
    assert "gadgets_connections 3.0" in text
    for name, _, _ in TOTALS.told():
        assert f"gadgets_{name}_total " in text


# Memory of all scans


def test_all_scans_of_a_process_share_its_memory(monkeypatch):
    """The second scan does not fit while the first is in work, and fits when that is over."""
    gc.collect()
    allowed = 1.5 * _need()
    gc.collect()
    allowed += taken()
    monkeypatch.setattr("gadgets.gather.usual_memory", lambda: allowed / 2**30)
    first = sort(_open_scan(), HEADER)
    assert next(first) == "open"
    with pytest.raises(InputError, match="the scans in work here, this one and others, take"):
        list(sort([scan()], HEADER))
    first.close()
    del first
    gc.collect()
    assert len(list(sort([scan()], HEADER))) == 1


def _need() -> int:
    """The bytes that one scan takes."""
    before = taken()
    held = sort(_open_scan(), HEADER)
    next(held)
    return taken() - before


def _open_scan():
    yield scan()
    yield "open"
    yield scan(repetition=1)


def test_memory_of_a_scan_that_is_over_counts_no_longer():
    gc.collect()
    before = taken()
    memory = Memory(2**30)
    memory.hold(scan())
    assert taken() > before
    del memory
    gc.collect()
    assert taken() == before
