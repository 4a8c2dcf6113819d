import io
import socket
import struct
import threading

import pytest

from gadgets.connection import Peer, PeerLostError, report, sentence
from gadgets.limits import Limits
from gadgets.messages import Close, ConfigText, Error, Header
from gadgets.protocol import Audience, State
from gadgets.speaker import GadgetError
from mrnets.errors import InputError
from tests.gadgets import toys


def send_thrice(peer):
    for _ in range(3):
        peer.send("anybody there?")
        peer.settle()


@pytest.fixture
def ends():
    """Our peer, and the other end's socket."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(20)
    peer = Peer.on(ours, State.ITEMS)
    with ours, theirs:
        yield peer, theirs
        peer.close()


def test_items_come_and_go(ends):
    peer, other = ends
    stream = toys.scan()
    other.sendall(toys.blob([*stream, Close()]))
    items = list(peer.items())
    assert toys.blob(items) == toys.blob(stream)
    assert peer.incoming.state is State.CLOSED
    peer.send(items[0])
    assert other.recv(1 << 16) == toys.blob(stream[:1])


def test_a_peer_that_sends_all_before_it_reads_anything_is_served(ends):
    """Far more than socket buffers hold goes out while nobody reads, and still we read on."""
    peer, other = ends
    peer.connected.settimeout(20)  # a send that waits for the peer fails here, instead of hanging
    stream = toys.scan()
    for _ in range(64):
        peer.send("x" * (1 << 20))
    other.sendall(toys.blob([*stream, Close()]))
    assert toys.blob(list(peer.items())) == toys.blob(stream)
    total = 64 * ((1 << 20) + 6)
    received = 0
    while received < total:
        received += len(other.recv(1 << 20))
    peer.settle()


def test_a_peer_that_vanishes_within_a_message_is_an_error_not_a_loop(ends):
    peer, other = ends
    other.sendall(toys.blob(toys.scan())[:-5])
    other.close()
    items = peer.items()
    with pytest.raises(InputError, match="in the middle of an acquisition's samples"):
        list(items)


def test_a_reset_connection_is_a_lost_peer():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, _ = listener.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer = Peer.on(ours)
        theirs.close()  # with a reset
        with pytest.raises(PeerLostError, match="vanished while it was sending"):
            peer.read()
        with pytest.raises(PeerLostError, match="vanished while it was sent to"):
            send_thrice(peer)
        peer.close()


def test_what_no_message_carries_is_refused_before_a_byte_is_sent(ends):
    peer, other = ends
    with pytest.raises(InputError, match="last gadget gives what cannot be sent: no message carries a dict"):
        peer.send({})
    peer.send("x")
    assert other.recv(100) == toys.blob(["x"])


def test_a_failure_is_reported_after_the_stream_was_drained(ends):
    """The peer sends more than any buffer holds and reads only then: it would never finish if nobody drained."""
    peer, other = ends
    big = toys.lines(200, coils=16, samples=512)
    seen = []

    def send_then_read():
        other.sendall(toys.blob([*[big] * 3, Close()]))
        theirs = Peer.on(other, State.ITEMS)
        seen.append(theirs.read())
        theirs.close()

    thread = threading.Thread(target=send_then_read)
    thread.start()
    next(peer.items())
    report(peer, InputError("no."), Audience.GADGETRON)
    thread.join(20)
    assert seen == [Error("no.")]


def test_a_stream_that_cannot_be_understood_is_drained_until_it_falls_silent(ends, monkeypatch):
    monkeypatch.setattr("gadgets.connection.IDLE", 0.05)
    peer, other = ends
    other.sendall(b"\xff\xff" + bytes(50_000))
    with pytest.raises(InputError, match="unknown id 65535") as caught:
        peer.read()
    report(peer, caught.value, Audience.GADGETRON)
    assert other.recv(1 << 16) == toys.blob([Error(str(caught.value))])


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_peer_has_so_long_for_its_header_however_it_drips():
    """Every byte comes in time, and the whole does not."""
    clock = Clock()

    class Dripping(io.BytesIO):
        def readinto(self, buffer):
            clock.now += 20
            return super().readinto(memoryview(buffer)[:1])

    ours, theirs = socket.socketpair()
    with ours, theirs:
        source = Dripping(toys.blob([ConfigText(b"<configuration/>"), Header(b"<a/>")]))
        peer = Peer(source, io.BytesIO(), State.START, ours, Limits(start=60), clock)
        with pytest.raises(InputError, match="did not send its ISMRMRD header within 60 s"):
            peer.read()


def test_after_the_header_a_peer_may_be_silent_for_so_long(monkeypatch):
    monkeypatch.setattr("gadgets.connection.IDLE", 0.01)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = Peer.on(ours, State.ITEMS, Limits(silence=0.01))
        theirs.sendall(toys.blob(toys.scan())[:5000])
        with pytest.raises(InputError, match=r"sent no byte for 0\.01 s") as caught:
            list(peer.items())
        report(peer, caught.value, Audience.CLIENT)
        assert b"[gadgets] ERROR: The peer sent no byte" in theirs.recv(1000)
        peer.close()


def test_what_waits_for_a_peer_is_bounded_and_then_its_patience():
    """The queue takes so many bytes and no more; a peer that takes none of them is lost."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        peer = Peer.on(ours, State.ITEMS, Limits(queue=1 << 20, unread=0.01))
        for _ in range(4):
            peer.send("x" * (250 << 10))
        with pytest.raises(PeerLostError, match=r"took no byte for 0\.01 s"):
            peer.send("x" * (250 << 10))
        with pytest.raises(PeerLostError):
            peer.settle()
        peer.close()


def test_a_message_larger_than_the_queue_is_sent_all_the_same():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = Peer.on(ours, State.ITEMS, Limits(queue=10))
        for _ in range(3):
            peer.send("x" * 1000)
            assert theirs.recv(2000) == toys.blob(["x" * 1000])
        peer.settle()
        peer.close()


def test_nobody_is_told_when_nobody_is_there(ends):
    peer, other = ends
    other.close()
    report(peer, PeerLostError("gone."), Audience.GADGETRON)


def test_sentences_are_one_line():
    assert sentence(InputError("a\n b")) == "a b"
    assert sentence(GadgetError("a")) == "a"
    assert sentence(KeyError("a")) == "KeyError: 'a'"
    assert sentence(ValueError()) == "ValueError: no message"
