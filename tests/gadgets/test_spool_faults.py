"""Spool and queue where their files, their disk or the system's threads fail."""

import errno
import math
import shutil
import socket
import threading
from contextlib import contextmanager

import pytest

from gadgets.gather import Memory
from gadgets.hosts import conversation, worker
from gadgets.hosts.spool import entries
from gadgets.hosts.worker import Worker
from gadgets.limits import usual_memory
from gadgets.messages import Close, ConfigText, Header
from gadgets.simulate import Settings, make_scan
from tests.gadgets.clients import Client, served, texts
from tests.gadgets.deferring import RETRIEVE, SLOW, comments, done, expected, header, scan, sent
from tests.gadgets.spools import eventually, only
from tests.gadgets.toys import blob, chain, stage


def look(rules, times: int = 2) -> Worker:
    """Let the queue be looked at, and wait for what it begins."""
    work = Worker(rules)
    for _ in range(times):
        work._begin(rules.spool)
        for thread in work._devices.values():
            thread.join(60)
    return work


def test_damaged_records_of_some_scans_hold_up_no_other(rules):
    for number in range(3):
        sent(rules, scan(measurement=f"M{number}"))
    coming, queued, sound = entries(rules.spool.folder)
    coming.path("queued").rename(coming.path("coming"))
    for path in (coming.path("coming"), queued.path("queued")):
        path.write_bytes(b"")
    look(rules)
    assert [entry.state for entry in entries(rules.spool.folder)] == ["coming", "failed", "done"]
    assert entries(rules.spool.folder)[1].record().reason == "its record is damaged"
    assert sound.images.exists()


def test_a_spool_that_vanishes_costs_the_quick_series_nothing(rules):
    """The other series will not come, and the client is told."""
    messages = scan()
    with served(rules) as client:
        client.send(*messages[:3])
        size = len(blob(messages[:3]))
        assert eventually(lambda: [e.stream.stat().st_size for e in entries(rules.spool.folder)] == [size])
        shutil.rmtree(rules.spool.folder)
        client.send(*messages[3:])
        received = client.receive()
    assert len(comments(received)) == 4
    assert "the scan could not be kept in the spool" in texts(received)[0]


def test_a_spool_that_is_gone_is_told_once(rules, caplog, monkeypatch):
    monkeypatch.setattr(worker, "LOOK", 0.001)
    shutil.rmtree(rules.spool.folder)
    looks, begin, work = threading.Semaphore(0), Worker._begin, Worker(rules)

    def beginning(self, spool):
        looks.release()
        begin(self, spool)

    monkeypatch.setattr(Worker, "_begin", beginning)
    work.start()
    for _ in range(20):
        assert looks.acquire(timeout=60)
    work.stop()
    work.join()
    assert caplog.text.count("the queue cannot be read") == 1


def test_images_that_a_power_failure_took_are_made_again(rules):
    sent(rules, scan())
    done(rules)
    only(rules.spool).images.write_bytes(b"")
    assert "quick series" in comments(sent(rules, scan()))[0]
    done(rules)
    assert blob(sent(rules, scan())) == expected(5)


def test_a_disk_that_gets_full_in_the_queue_is_one_sentence(rules, monkeypatch):
    sent(rules, scan())

    def full(file, message):
        raise OSError(errno.ENOSPC, "No space left on device", "images")

    monkeypatch.setattr(worker, "_put", full)
    look(rules)
    assert only(rules.spool).record().reason == "images: No space left on device"
    (text,) = sent(rules, [RETRIEVE, Header(header()), Close()])
    assert text.endswith("failed: images: No space left on device")


def test_a_scan_waits_in_the_queue_while_others_take_the_memory(rules):
    text = chain(stage("sort"), stage("network", name="zerofilled"), stage("images"))
    text = text.replace("<configuration><gadget", f"<configuration>{SLOW}<gadget")
    made, lines, _ = make_scan(Settings(matrix=32, coils=2, slices=1, acceleration=2.0, calibration=12))
    assert "quick series" in comments(sent(rules, [ConfigText(text.encode()), Header(made), *lines, Close()]))[0]
    others = Memory(math.inf)
    others.used = int(usual_memory() * 2**30)
    look(rules)
    assert (only(rules.spool).state, only(rules.spool).record().attempts) == ("queued", 0)
    others.used = 0
    look(rules)
    assert only(rules.spool).state == "done"


@contextmanager
def a_thread_short(monkeypatch, number: int):
    """While the block lasts, the system has no thread for the one that is started as that number."""
    start, left = threading.Thread.start, [number]

    def starting(self):
        left[0] -= 1
        if left[0] == -1:
            raise RuntimeError("can't start new thread")
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", starting)
        yield


@pytest.mark.parametrize("number", range(3))
def test_a_system_without_more_threads_loses_no_scan(rules, monkeypatch, number):
    """Neither the thread that keeps a scan, nor the one that sends images, nor a side of the chain."""
    ours, theirs = socket.socketpair()
    host = threading.Thread(target=conversation.handle, args=(theirs, rules))
    host.start()
    with ours, a_thread_short(monkeypatch, number):
        client = Client(ours)
        client.send(*scan())
        received = client.receive()
        client.peer.close()
    host.join(60)
    assert len(comments(received)) == 4
    assert texts(received) == []
