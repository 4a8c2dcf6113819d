"""How connections come in and are let go."""

import errno
import socket
import sys
import threading
from contextlib import contextmanager

import pytest

from gadgets.connection import Peer
from gadgets.hosts import conversation
from gadgets.hosts import serve as module
from gadgets.hosts.doors import Doors, Spare, accepted
from gadgets.hosts.ping import ping
from gadgets.hosts.rules import Rules
from gadgets.messages import Close, ConfigFile, Header, Query, Response
from gadgets.protocol import State
from mrnets.errors import InputError
from tests.gadgets.test_connection import Clock
from tests.gadgets.toys import blob


class Scripted:
    """A listener that does what a script says: raises errors, gives connections."""

    def __init__(self, *script):
        self.script = list(script)

    def settimeout(self, seconds):
        pass

    def accept(self):
        happens = self.script.pop(0)
        if isinstance(happens, BaseException):
            raise happens
        return happens, ("192.0.2.1", 1234)


@pytest.fixture
def pairs():
    """Pairs of connected sockets: the server's end, the client's."""
    made = [socket.socketpair() for _ in range(6)]
    yield made
    for pair in made:
        for end in pair:
            end.close()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
def test_when_files_run_out_a_connection_is_refused_and_the_next_is_served(pairs, code, caplog):
    (first, refused), (second, _), *_ = pairs
    spare = Spare()
    connected, address = accepted(Scripted(OSError(code, "Too many open files"), first, TimeoutError(), second), spare)
    spare.give()
    assert (connected, address) == (second, "192.0.2.1")
    assert refused.recv(10) == b""
    assert "a connection was refused: Too many open files" in caplog.text


def test_a_connection_that_was_gone_before_it_was_accepted_hurts_nobody(pairs):
    (first, _), *_ = pairs
    connected, _ = accepted(Scripted(OSError(errno.ECONNABORTED, "aborted"), first), Spare())
    assert connected is first


def test_a_listener_that_fails_ends_the_server():
    with pytest.raises(OSError, match="bad file"):
        accepted(Scripted(OSError(errno.EBADF, "bad file")), Spare())


class Visits:
    """Connections whose work lasts until they are let go."""

    def __init__(self, doors, pairs):
        self.doors, self.pairs, self.go = doors, list(pairs), threading.Event()

    def enter(self, address="192.0.2.1"):
        self.doors.wait()
        return self.doors.enter(self.pairs.pop()[0], address, lambda: self.go.wait(20), "visit")


def test_so_many_connections_of_one_address_and_not_more(pairs):
    visits = Visits(Doors(6, 2), pairs)
    assert visits.enter()
    assert visits.enter()
    assert not visits.enter()
    assert visits.enter("192.0.2.2")
    visits.go.set()
    assert visits.doors.finish(20) == 0
    assert visits.enter(), "places of an address are given back"
    visits.doors.finish(20)


def test_more_connections_than_there_is_room_for_wait(pairs):
    doors = Doors(1, 9, waiting=0)
    visits = Visits(doors, pairs)
    assert visits.enter()
    waiting = threading.Thread(target=visits.enter)
    waiting.start()
    assert len(doors) == 1
    visits.go.set()
    waiting.join(20)
    assert not waiting.is_alive()
    doors.finish(20)


def test_more_scans_than_places_wait_and_a_server_that_ends_begins_none():
    doors, begun, inside = Doors(1, 9), [], threading.Event()

    def scan():
        inside.set()
        with doors.place() as free:
            begun.append(free)

    with doors.place() as free:
        assert free
        thread = threading.Thread(target=scan)
        thread.start()
        assert inside.wait(20)
        assert begun == []
        doors.finish(0)
    thread.join(20)
    assert begun == [False]


def test_when_the_server_stops_connections_have_so_long_and_are_shut_then(pairs):
    """Work that reads from its socket, whose client says nothing, ends when the socket is shut."""
    doors, clock = Doors(2, 2), Clock()
    (ours, _), *_ = pairs
    doors.wait()
    doors.enter(ours, "192.0.2.1", lambda: ours.recv(1), "silent")

    def ticking():
        clock.now += 100
        return clock.now

    assert doors.finish(50, ticking) == 1
    assert doors.finish(20) == 0


@contextmanager
def server(doors):
    """The address of a server in this process."""
    listener, stop = module.listen("127.0.0.1", 0), threading.Event()

    def serve():
        with pytest.raises(OSError, match=r"stop"):
            module.serve(Stopping(listener, stop), Rules(), doors)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with listener:
            yield listener.getsockname()
            stop.set()
            thread.join(20)
    finally:
        doors.finish(20)


SCAN = blob([ConfigFile("cgsense.xml")])


def answered(connected: socket.socket) -> list:
    connected.settimeout(20)
    peer = Peer.on(connected, State.ITEMS)
    items = list(peer.items())
    peer.close()
    return items


@pytest.mark.parametrize("start", [b"", SCAN, b"\xff\xff"], ids=["nothing", "a scan", "noise"])
def test_who_is_refused_is_told(monkeypatch, start):
    """Two connections of one address, where one is allowed: the second gets a sentence and CLOSE."""
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    with server(Doors(4, 1)) as address, socket.create_connection(address) as first:
        first.sendall(SCAN)
        with socket.create_connection(address) as second:
            second.sendall(start)
            (text,) = answered(second)
    assert text == "[gadgets] ERROR: This address has 1 connections already; no more are taken."


@pytest.mark.parametrize("bounds", [(1, 30), (9, 1)], ids=["all places", "all of the address"])
def test_a_full_server_answers_questions(bounds):
    with server(Doors(*bounds)) as address, socket.create_connection(address) as first:
        first.sendall(SCAN)
        for _ in range(20):
            assert ping(*address, 20).startswith("gadgetron-networks")


def test_a_scan_that_waited_for_a_place_is_served(monkeypatch):
    """Whatever it asked before. The time that it waits does not count."""
    with server(Doors(1, 9)) as address, socket.create_connection(address) as first:
        first.sendall(SCAN)
        with socket.create_connection(address) as second:
            second.sendall(blob([Query(7, "gadgetron::info"), ConfigFile("nonesuch"), Header(b"<x/>"), Close()]))
            second.settimeout(20)
            peer = Peer.on(second, State.ITEMS)
            assert peer.read() == Response(7, conversation.answer("gadgetron::info"))
            first.close()
            (text,) = peer.items()
            peer.close()
    assert "There is no chain" in text


def test_who_says_nothing_is_told_so():
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(InputError, match=r"did not send its ISMRMRD header within 0.01 s"):
        conversation.greeted(theirs, 0.01)


@pytest.mark.parametrize(("sent", "scan"), [(b"", False), ([Close()], False), ([Query(1, "x"), Close()], False)])
def test_who_brings_no_scan(sent, scan):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(blob(sent))
        ours.shutdown(socket.SHUT_WR)
        assert conversation.greeted(theirs, 20) == scan


class Stopping:
    """A listener that fails when it is told to stop."""

    def __init__(self, listener, stop):
        self.listener, self.stop = listener, stop

    def settimeout(self, seconds):
        self.listener.settimeout(0.01)

    def accept(self):
        if self.stop.is_set():
            raise OSError(errno.EBADF, "stop")
        return self.listener.accept()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--connections", "0"], "--connections must be positive; got 0."),
        (["--connections", "-1"], "--connections must be positive; got -1."),
        (["--per-address", "0"], "--per-address must be positive; got 0."),
        (["--memory", "0"], "--memory must be positive"),
        (["--memory", "nan"], "--memory must be positive"),
        (["--silence", "-5"], "--silence must be positive"),
        (["--weights", "/nowhere"], "There is no folder of weights /nowhere."),
        (["--chains", "/nowhere"], "There is no folder of chains /nowhere."),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments, sentence):
    import argparse

    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    with pytest.raises(InputError) as caught:
        module.run(parser.parse_args(arguments))
    assert sentence in str(caught.value)


def test_a_queue_may_have_no_limit():
    import argparse

    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    assert module._rules(parser.parse_args(["--queue", "inf"])).limits.queue == sys.maxsize
