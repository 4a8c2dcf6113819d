"""A spool is bounded, and goes with the oldest scans."""

import os

import pytest

from gadgets.hosts.rules import Rules
from gadgets.hosts.spool import Record, Spool, create, discard, entries, make_room
from gadgets.messages import Close, ConfigFile, Header
from mrnets.errors import InputError
from tests.gadgets import toys
from tests.gadgets.clients import served, texts
from tests.gadgets.spools import filled, names, only
from tests.gadgets.toys import blob


def test_the_oldest_goes_first_and_what_failed_after_what_is_done(kept):
    made = [filled(kept, state) for state in ("failed", "done", "done", "coming")]
    one = entries(kept.folder)[0].size
    for left in ([0, 2, 3], [0, 3], [3], []):
        make_room(Spool(kept.folder, size=(len(left) + 0.5) * one), 0)
        assert names(kept) == [made[n].name for n in left]


def test_a_scan_that_is_queued_or_worked_on_stays_and_nothing_else_fits(kept):
    queued = filled(kept, "queued")
    working, number = create(kept, bytes(1000), b"", Record())
    filled(kept, "done")
    with pytest.raises(OSError, match="still needed"):
        make_room(Spool(kept.folder, size=1), 1)
    assert names(kept) == [queued.name, working.name]
    assert not discard(working)
    os.close(number)
    assert discard(working)


def test_what_is_too_old_goes(kept):
    old, new = filled(kept, "done"), filled(kept, "done")
    os.utime(old.stream, (0, 0))
    make_room(kept, 0)
    assert names(kept) == [new.name]


def test_files_of_others_are_neither_scans_nor_deleted(kept):
    """The folder of a spool may have been somebody's folder of scans."""
    scans = ["mine.stream", "mine.h5", ".stream", "patient.2.stream", "20261127T101500000000-0123456.stream"]
    for name in scans:
        (kept.folder / name).write_bytes(b"x")
        os.utime(kept.folder / name, (0, 0))
    filled(kept, "done")
    make_room(Spool(kept.folder, size=500), 0)
    assert sorted(path.name for path in kept.folder.iterdir()) == sorted(scans)


def test_a_small_spool_keeps_small_scans(place, kept):
    messages = [ConfigFile("toy.xml"), Header(toys.HEADER), *toys.scan(), Close()]
    with served(Rules(place, spool=Spool(kept.folder, size=4 * len(blob(messages))))) as client:
        client.send(*messages)
        client.receive()
    assert only(kept).stream.read_bytes() == blob(messages)


def test_a_scan_larger_than_the_spool_goes_on_without_it(place, kept, caplog, monkeypatch):
    monkeypatch.setattr("gadgets.hosts.keeping.STEP", 4096)
    small = Spool(kept.folder, size=100_000)
    with served(Rules(place, spool=small)) as client:
        client.send(ConfigFile("toy.xml"), Header(toys.HEADER), toys.lines(200, coils=16, samples=512), Close())
        assert texts(client.receive()) == []
    assert "the spool is full" in caplog.text
    assert list(kept.folder.iterdir()) == []


def test_a_damaged_record_is_a_sentence(kept):
    entry = filled(kept, "done")
    for text in (
        b"",
        b"[]",
        b'{"notes": 1}',
        b'{"notes": [], "attempts": "x"}',
        b'{"notes": [], "more": 1}',
        b"{" * 9999,
    ):
        entry.path("done").write_bytes(text)
        with pytest.raises(InputError, match="damaged"):
            only(kept).record()
