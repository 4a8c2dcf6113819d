"""A scan that fails is told with the name of its file, and a spool that fails costs no scan."""

import errno
import logging
import os
import socket

import pytest

from gadgets.chain import Chain
from gadgets.hosts.keeping import spool_of_chain
from gadgets.hosts.rules import Rules
from gadgets.hosts.spool import Spool, entries
from gadgets.limits import Limits
from gadgets.messages import Close, ConfigFile, ConfigText, Error, Header
from gadgets.speaker import GadgetError
from mrnets.errors import InputError
from tests.gadgets import toys
from tests.gadgets.clients import STAGES, attached, served, texts
from tests.gadgets.spools import only, replayed
from tests.gadgets.toys import blob, chain, configuration, stage


@pytest.mark.parametrize("fail", ["input", "bug"])
def test_a_failure_is_told_with_the_name_of_the_file(place, kept, fail):
    messages = [ConfigText(chain(stage("toy", fail=fail)).encode()), Header(toys.HEADER), *toys.scan(), Close()]
    with served(Rules(place, spool=kept)) as client:
        client.send(*messages)
        (text,) = texts(client.receive())
    entry = only(kept)
    assert text.endswith(f"; the scan is kept as {entry.stream.name}")
    assert entry.stream.read_bytes() == blob(messages)
    assert entry.state == "failed"
    assert entry.record().reason.rstrip(".") in text
    with pytest.raises((InputError, GadgetError)):
        replayed(entry)


def test_a_failure_is_told_at_once(place, kept):
    with served(Rules(place, spool=kept)) as client:
        client.send(ConfigText(chain(stage("toy", fail="input")).encode()), Header(toys.HEADER), *toys.scan()[:4])
        assert client.peer.read().startswith("[gadgets] ERROR: toy: acquisition 7 is not to its taste")
        client.send(*toys.scan(), Close())
        assert client.receive() == []


def test_gadgetron_is_told_with_the_name_of_the_file(tmp_path):
    own = f'<property name="spool" value="{tmp_path / "spool"}"/>'
    with attached() as (status, server):
        broken = configuration(own, stage("toy", fail="input"))
        server.send(ConfigText(broken.encode()), Header(toys.HEADER), *toys.scan(), Close())
        (error,) = server.receive()
    assert status == [1]
    entry = only(Spool(tmp_path / "spool"))
    assert error == Error(f"toy: acquisition 7 is not to its taste; the scan is kept as {entry.stream.name}")


def test_a_stream_that_cannot_be_understood_is_kept_and_told(place, kept, monkeypatch):
    monkeypatch.setattr("gadgets.connection.IDLE", 0.05)
    with served(Rules(place, spool=kept)) as client:
        client.send(ConfigFile("toy.xml"), Header(toys.HEADER))
        client.socket.sendall(b"\x1b\x04" + bytes(100))
        (text,) = texts(client.receive())
    assert "unknown id 1051" in text
    assert only(kept).stream.read_bytes().endswith(b"\x1b\x04" + bytes(100))


def test_a_silent_peer_is_refused_all_the_same(place, kept, monkeypatch):
    monkeypatch.setattr("gadgets.connection.IDLE", 0.05)
    with served(Rules(place, spool=kept, limits=Limits(silence=0.05))) as client:
        client.send(ConfigFile("toy.xml"), Header(toys.HEADER), *toys.scan()[:2])
        (text,) = texts(client.receive())
    assert "sent no byte for 0.05 s" in text


def test_a_peer_that_vanishes_leaves_what_it_had_sent(place, kept):
    sent = blob([ConfigFile("toy.xml"), Header(toys.HEADER), *toys.scan()])[:-9]
    with served(Rules(place, spool=kept)) as client:
        client.socket.sendall(sent)
        client.socket.shutdown(socket.SHUT_WR)
        client.receive()
    entry = only(kept)
    assert entry.stream.read_bytes() == sent
    assert entry.state == "failed"


def test_a_spool_that_cannot_be_used_is_a_warning_and_costs_no_scan(place, tmp_path, caplog):
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    os.chmod(folder, 0o755)
    own = f'<property name="spool" value="{folder}"/>'
    assert spool_of_chain(Chain.parse(configuration(own, *STAGES))) is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "chmod 700" in caplog.text
    gone = Rules(place, spool=Spool(tmp_path / "gone"))
    with served(gone) as client:
        client.send(ConfigFile("toy.xml"), Header(toys.HEADER), *toys.scan(), Close())
        assert texts(client.receive()) == []
    assert "the scan is not kept" in caplog.text


@pytest.mark.parametrize("room", [0, 1000, 1500])
def test_a_full_disk_is_one_warning_and_the_scan_goes_on(place, kept, caplog, monkeypatch, room):
    """After so many bytes: none, some of a message, and more."""
    messages = [ConfigFile("toy.xml"), Header(toys.HEADER), *toys.scan(), Close()]
    with served(Rules(place)) as client:
        client.send(*messages)
        expected = blob(client.receive())
    left, write = [room], os.write

    def writing(number, data):
        name = os.readlink(f"/proc/self/fd/{number}")
        if not name.endswith(".stream"):
            return write(number, data)
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = write(number, data[: left[0]])
        left[0] -= done
        return done

    monkeypatch.setattr(os, "write", writing)
    with served(Rules(place, spool=kept)) as client:
        client.send(*messages)
        assert blob(client.receive()) == expected
    warnings = [record.getMessage() for record in caplog.records if "spool" in record.getMessage()]
    assert warnings == ["the scan is not kept in the spool: No space left on device"]
    assert entries(kept.folder) == []
    assert list(kept.folder.iterdir()) == []
