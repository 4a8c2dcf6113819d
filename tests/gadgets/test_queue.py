"""The queue of deferred scans, and servers that are killed while they work."""

import os
import socket
import threading

import numpy as np
import pytest

from gadgets.__main__ import main
from gadgets.hosts import worker
from gadgets.hosts.queue import told
from gadgets.hosts.rules import Rules
from gadgets.hosts.spool import entries, held, mark
from gadgets.hosts.worker import Worker, work_on
from gadgets.messages import Close, ConfigFile, Header
from tests.gadgets import toys
from tests.gadgets.clients import Client, texts
from tests.gadgets.deferring import NEVER, RETRIEVE, comments, done, expected, header, scan, sent
from tests.gadgets.spools import eventually, made_again, only, server
from tests.gadgets.toys import blob, for_clients, stage


def test_the_queue_says_where_each_scan_is(rules, capsys):
    for number in (1, 2):
        sent(rules, scan(measurement=f"M{number}"))
    sent(rules, [ConfigFile("toy.xml"), Header(toys.HEADER), *toys.scan(), Close()])
    first, second, third = entries(rules.spool.folder)
    with held(first):
        lines = list(told(rules.spool.folder))
        (text,) = texts(sent(rules, [RETRIEVE, Header(header("M1")), Close()]))
    assert text.endswith("is not there yet: it is being reconstructed")
    assert lines[0].startswith(f"{first.name}: 0.0 MiB, is being reconstructed, configuration, measurement M1")
    assert "number 2 of 2 in the queue, configuration, measurement M2" in lines[1]
    assert lines[2] == f"{third.name}: 0.0 MiB, done, chain toy.xml"
    done(rules)
    second.path("done").write_bytes(b"[]")
    assert main(["queue", str(rules.spool.folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "its images are there" in lines[0]
    assert lines[1] == f"{second.name}: 0.0 MiB, damaged, its record is damaged"
    assert main(["queue", str(rules.spool.folder / "nowhere")]) == 1


def test_a_scan_that_ends_the_server_again_and_again_is_given_up(rules):
    sent(rules, scan())
    entry = only(rules.spool)
    record = entry.record()
    mark(entry, "queued", type(record)(record.chain, record.measurement, deferred=True, attempts=worker.MAX_ATTEMPTS))
    done(rules)
    assert only(rules.spool).state == "failed"
    assert "the server ended 3 times" in only(rules.spool).record().reason


def test_a_server_that_stops_leaves_its_scan_in_the_queue(rules):
    sent(rules, scan())
    stopped = threading.Event()
    stopped.set()
    before = only(rules.spool).record()
    work_on(only(rules.spool), rules, stopped)
    assert (only(rules.spool).state, only(rules.spool).record()) == ("queued", before)
    assert not only(rules.spool).images.exists()


def test_a_scan_whose_device_is_lost_stays_in_the_queue(rules, monkeypatch):
    """For the process that comes next. It counts as one of the attempts."""
    monkeypatch.setattr("gadgets.hosts.worker.ends_without_device", lambda: True)
    sent(rules, scan(stage("toy", fail="bug")))
    work_on(only(rules.spool), rules, NEVER)
    assert only(rules.spool).state == "queued"
    assert only(rules.spool).record().attempts == 1


def test_two_servers_do_not_work_on_one_scan(rules):
    sent(rules, scan())
    entry = only(rules.spool)
    with held(entry):
        work_on(entry, rules, NEVER)
    assert only(rules.spool).state == "queued"


def test_what_a_scan_lacks_is_told_after_its_images(rules):
    sent(rules, scan(stage("lacking")))
    done(rules)
    *images, text = sent(rules, [RETRIEVE, Header(header()), Close()])
    assert len(comments(images)) == 4
    assert text == "[gadgets] ERROR: lacking: a slice is missing"
    assert only(rules.spool).record().reason == "lacking: a slice is missing"


def test_a_server_that_was_killed_finishes_its_queue_when_it_starts_again(rules):
    """The first one is killed before it begins; what it had received and not queued yet is taken up, too."""
    folder = rules.spool.folder
    with server(rules.chains, folder) as (process, port), socket.create_connection(("127.0.0.1", port)) as connected:
        first = Client(connected)
        first.send(*scan())
        assert "quick series" in comments(first.receive())[0]
        with socket.create_connection(("127.0.0.1", port)) as other:
            stream = blob(scan(measurement="M2"))
            other.sendall(stream)
            assert eventually(lambda: any(entry.record().measurement == "M2" for entry in entries(folder)))
            assert eventually(lambda: entries(folder)[-1].stream.stat().st_size == len(stream))
            process.kill()
            process.wait(60)
        first.peer.close()
    with server(rules.chains, folder):
        assert eventually(lambda: [entry.state for entry in entries(folder)] == ["done", "done"])
    assert blob(sent(rules, [RETRIEVE, Header(header()), Close()])) == expected(5)
    assert len(comments(sent(rules, [RETRIEVE, Header(header("M2")), Close()]))) == 4


def kill_when_it_has_come(rules: Rules, stream: bytes, images: int) -> None:
    """Kill a server that has received a whole scan, when it has sent so many images of the quick series."""
    folder = rules.spool.folder
    before = len(entries(folder))
    with server(rules.chains, folder) as (process, port), socket.create_connection(("127.0.0.1", port)) as connected:
        client = Client(connected)
        connected.sendall(stream)
        assert eventually(lambda: [e.stream.stat().st_size for e in entries(folder)[before:]] == [len(stream)])
        for _ in range(images):
            client.peer.read()
        process.kill()
        process.wait(60)
        client.peer.close()


@pytest.mark.slow
def test_no_deferred_scan_is_lost_by_a_server_that_is_killed_again_and_again(rules):
    """Where the server was killed three times at work on the same scan, that is told, and the scan is there."""
    rng = np.random.default_rng(20)
    folder = rules.spool.folder
    for number in range(20):
        kill_when_it_has_come(rules, blob(scan(measurement=f"M{number}")), int(rng.integers(5)))
    with server(rules.chains, folder):
        assert eventually(lambda: {entry.state for entry in entries(folder)} <= {"done", "failed"})
    found = entries(folder)
    assert len(found) == 20
    for number, entry in enumerate(found):
        if entry.state == "failed":
            assert "the server ended 3 times" in entry.record().reason
            assert blob(for_clients(made_again(entry))) == expected(5)
        else:
            assert blob(sent(rules, [RETRIEVE, Header(header(f"M{number}")), Close()])) == expected(5)


def test_a_server_that_was_killed_at_work_begins_again(rules, tmp_path):
    folder, gate = rules.spool.folder, tmp_path / "gate"
    slow = stage("waiting_for", path=gate) + stage("noted", scale=5)
    with server(rules.chains, folder) as (process, port), socket.create_connection(("127.0.0.1", port)) as connected:
        client = Client(connected)
        client.send(*scan(slow))
        assert "quick series" in comments(client.receive())[0]
        client.peer.close()
        assert eventually(lambda: only(rules.spool).record().attempts == 1)
        process.kill()
        process.wait(60)
    assert "number 1 of 1 in the queue" in next(told(folder))
    gate.touch()
    with server(rules.chains, folder):
        assert eventually(lambda: only(rules.spool).state == "done")
    assert only(rules.spool).record().attempts == 2
    assert blob(sent(rules, [RETRIEVE, Header(header()), Close()])) == expected(5)


def test_the_threads_of_a_server_work_off_the_queue(rules, monkeypatch):
    monkeypatch.setattr(worker, "LOOK", 0.01)
    work = Worker(rules)
    work.start()
    try:
        sent(rules, scan())
        assert eventually(lambda: only(rules.spool).state == "done")
    finally:
        work.stop()
        work.join()
    assert oct(os.stat(only(rules.spool).images).st_mode)[-3:] == "600"


def test_a_file_of_options_names_spool_and_quick_chain(tmp_path, capsys):
    (tmp_path / "toml").write_text(f'spool = "{tmp_path / "spool"}"\nspool-age = 3\ndefer = "nonesuch"\n')
    assert main(["serve", "--config", str(tmp_path / "toml")]) == 1
    assert 'There is no chain "nonesuch"' in capsys.readouterr().err
    assert oct(os.stat(tmp_path / "spool").st_mode)[-3:] == "700"


def test_defer_needs_a_spool(capsys):
    assert main(["serve", "--defer", "-p", "0"]) == 1
    assert "--defer needs --spool" in capsys.readouterr().err
