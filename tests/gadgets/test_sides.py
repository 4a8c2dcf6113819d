"""Sides of a chain run at the same time, and give what they give in one thread. Shown by events, never by the clock."""

import itertools
import logging
import socket
import threading
from dataclasses import replace

import numpy as np
import pytest

import gadgets.chain
import gadgets.coils
import gadgets.network
import gadgets.noise
import gadgets.sides
from gadgets.chain import Chain, Stage
from gadgets.connection import Peer
from gadgets.limits import PATIENT
from gadgets.protocol import State
from gadgets.sides import Ahead, together
from gadgets.speaker import GadgetError, IncompleteError, Speech, warn
from mrnets.contract import Estimate
from mrnets.errors import InputError
from mrnets.mrd.lines import take
from tests.gadgets import frames, synthetic, toys
from tests.gadgets.toys import blob

WAIT = 60
"""Seconds in which an event must come that nothing holds back."""
STAGES = (
    Stage("noise", {}),
    Stage("sort", {"incomplete": "warn"}),
    Stage("coils", {}),
    Stage("network", {"name": "zerofilled"}),
    Stage("images", {}),
)


def scan(slices=3, repetitions=2):
    lines = sorted({*range(0, frames.SIZE, 2), *range(10, 22)})
    for repetition in range(repetitions):
        for n in range(slices):
            yield synthetic.lines(
                frames.kspace((n + 1) * frames.disc()), lines, slice=n, repetition=repetition, first_counter=100 * n
            )


def header():
    limits = {"slice": (0, 3, 0), "repetition": (0, 1, 0)}  # one more slice than comes: a warning at the end
    return frames.header(limits=limits)


def serial(name, items):
    """A watch, for which a chain runs in one thread."""
    return items


def collected(items):
    """The items, and the error that ends them."""
    got = []
    try:
        for item in items:
            got.append(item)
    except Exception as error:  # noqa: BLE001
        return got, error
    return got, None


def test_the_bytes_are_those_of_one_thread():
    chain = Chain.of(STAGES)
    one, sides = (blob(chain.run(scan(), header(), Speech(), *watch)) for watch in ((serial,), ()))
    assert one == sides
    assert len(one) > 6 * 4 * frames.SIZE**2


def test_the_next_slice_is_read_while_this_one_is_in_the_network(monkeypatch):
    """And this one's image is taken while the next one is in the network."""
    read, taken = [threading.Event() for _ in range(6)], threading.Event()
    completed = gadgets.network._completed

    def source():
        for n, lines in enumerate(scan()):
            read[n].set()
            yield lines

    def network(some, *rest):
        idx = some[0].headers[0, 0]["idx"]
        assert read[4].wait(WAIT), "the next repetition is not read"
        if idx["slice"] == 1:
            assert taken.wait(WAIT), "the image of slice 0 waits for slice 1"
        return completed(some, *rest)

    monkeypatch.setattr(gadgets.network, "_completed", network)
    count = 0
    for _ in Chain.of(STAGES).run(source(), header()):
        taken.set()
        count += 1
    assert count == 6


def test_the_next_slices_maps_are_made_while_this_one_is_in_the_network(monkeypatch):
    """On a processor. On a device both are in one thread."""
    sensed = [threading.Event() for _ in range(6)]
    made, completed = gadgets.coils.sense_raw, gadgets.network._completed
    count = itertools.count()

    def maps(raw, *rest):
        sensed[next(count)].set()
        return made(raw, *rest)

    def network(some, *rest):
        assert sensed[some[0].headers[0, 0]["idx"]["slice"] + 1].wait(WAIT), "the next maps wait for this slice"
        return completed(some, *rest)

    monkeypatch.setattr(gadgets.coils, "sense_raw", maps)
    monkeypatch.setattr(gadgets.network, "_completed", network)
    assert len(list(Chain.of(STAGES).run(scan(), header()))) == 6


@pytest.mark.parametrize(("device", "alone"), [("auto", True), ("cpu", False)])
def test_frames_on_a_device_get_coils_and_estimates_in_one_thread(device, alone, monkeypatch):
    monkeypatch.setattr(gadgets.noise, "_cupy", lambda: object())
    _, sort, *others = STAGES
    names = [
        [STAGES[n].name for n in side]
        for side in Chain.of((Stage("noise", {"device": device}), sort, *others))._sides()
    ]
    on_frames = [["coils", "network"]] if alone else [["coils"], ["network"]]
    assert names == [["noise", "sort"], *on_frames, ["images"]]


def test_what_is_said_reaches_the_images_made_after_it_and_no_others():
    def run(*watch):
        speech = Speech.of(["said before"])
        images = list(Chain.of(STAGES).run(scan(), header(), speech, *watch))
        return [image.meta["ImageComments"] for image in images], speech.said()

    assert run() == run(serial)
    assert len(run()[1].notes) == 3


def test_what_two_sides_say_is_logged_once(caplog):
    speech = Speech()
    first, second = speech.side(), speech.side()
    log = logging.getLogger("gadgets.test")

    def saying():
        for word in ("alike", "alike", "own"):
            warn(word, log=log)
            yield word

    for side in (first, second):
        assert list(side.named("toy", saying())) == ["alike", "alike", "own"]
        assert side.said().notes == ("alike", "own")  # in the comments of its images
    assert [record.getMessage().split()[-1] for record in caplog.records] == ["alike", "own"]


def test_a_note_made_while_others_wait_does_not_reach_them():
    maker = Speech()
    taker = maker.side()
    all_made = threading.Event()

    def items():
        for n in range(3):
            maker.notes[f"note {n}"] = None
            yield n
        maker.lacking.append("a slice")
        all_made.set()

    ahead = Ahead(items(), maker, taker)
    heard = []
    for _ in together([ahead], ahead):
        assert all_made.wait(WAIT)
        heard.append((list(taker.notes), list(taker.lacking)))
    assert heard == [([f"note {m}" for m in range(n + 1)], []) for n in range(3)]
    assert taker.lacking == ["a slice"]


@pytest.mark.parametrize("place", range(5))
def test_failures_name_their_gadget_and_come_after_the_images_before(place, monkeypatch):
    """A gadget of each side fails at the last repetition."""

    def broken(stream, header, **options):
        for made, item in enumerate(original(stream, header, **options)):
            if made == 3:
                raise ZeroDivisionError("broken")
            yield item

    name = STAGES[place].name
    gadget = gadgets.chain.lookup(name)
    original = gadget.function
    object.__setattr__(gadget, "function", broken)
    try:
        one, sides = (collected(Chain.of(STAGES).run(scan(), header(), Speech(), *watch)) for watch in ((serial,), ()))
    finally:
        object.__setattr__(gadget, "function", original)
    assert blob(one[0]) == blob(sides[0])
    for _, error in (one, sides):
        assert isinstance(error, GadgetError)
        assert str(error) == f"Gadget {name} failed: ZeroDivisionError: broken"


def test_an_error_of_the_stream_passes_as_it_is():
    def source():
        yield from list(scan())[:4]
        raise InputError("the file is cut short")

    images = Chain.of(STAGES).run(source(), header())
    with pytest.raises(InputError, match=r"^the file is cut short$"):
        list(images)


def test_a_scan_that_lacks_slices_says_so_after_its_images():
    stages = (STAGES[0], Stage("sort", {}), *STAGES[2:])
    images, error = collected(Chain.of(stages).run(scan(), header()))
    assert len(images) == 6
    assert isinstance(error, IncompleteError)
    assert "sort: the scan ended before" in str(error)


def test_whoever_takes_no_more_ends_the_threads():
    before = threading.active_count()
    images = Chain.of(STAGES).run(scan(), header())
    next(images)
    sides = [thread for thread in threading.enumerate() if thread.daemon]
    images.close()
    for thread in sides:
        thread.join(WAIT)
    assert threading.active_count() == before


def test_after_an_error_no_thread_reads_any_more(monkeypatch):
    """A process that ended while a thread read an HDF5 file waited for ever."""
    stopped, read = threading.Event(), []

    class Heard(Ahead):
        def stop(self):
            super().stop()
            stopped.set()

    def source():
        stopped.wait(WAIT)
        for line in scan():
            read.append(line)
            yield line

    monkeypatch.setattr(gadgets.chain, "Ahead", Heard)
    stages = (*STAGES[:3], Stage("network", {"weights": "none/such.safetensors"}), STAGES[4])
    _, error = collected(Chain.of(stages).run(source(), header()))
    assert isinstance(error, InputError)
    assert read
    assert not [thread for thread in threading.enumerate() if thread.daemon]


def test_a_system_without_more_threads_costs_no_image(monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    one = list(Chain.of(STAGES).run(scan(), header()))
    monkeypatch.setattr(threading.Thread, "start", start)
    assert blob(Chain.of(STAGES).run(scan(), header())) == blob(one)


def test_large_frames_are_made_one_at_a_time(monkeypatch):
    """The second is begun when the first is no longer needed: memory holds one."""
    monkeypatch.setattr(gadgets.sides, "MAX_BYTES", 0)
    begun, needed = [], []

    def items():
        for n, frame in enumerate(frames.frames(slices=3)):
            begun.append(n)
            assert not needed, "the frame before is still in use"
            yield frame

    ahead = Ahead(items(), Speech(), Speech())
    for frame in together([ahead], ahead):
        needed.append(frame)
        assert frame.behind == 0
        needed.clear()
    assert begun == [0, 1, 2]


def test_maps_count_like_kspace_where_frames_wait():
    (frame,) = frames.frames(slices=1)
    raw = replace(frame.raw, sens=frame.raw.kspace)
    plain = replace(frame, raw=replace(raw, sens=None), estimate=None)
    both = replace(plain, raw=raw, estimate=Estimate(image=raw.kspace[:, :, 0]))
    sizes = [one.nbytes for one in (plain, replace(plain, raw=raw), both)]
    assert sizes == [raw.kspace.nbytes, 2 * raw.kspace.nbytes, 2 * raw.kspace.nbytes + raw.kspace[:, :, 0].nbytes]


def test_a_frame_knows_how_many_have_come_behind_it():
    made = threading.Event()

    def items():
        first, second, third = frames.frames(slices=3)
        yield from (first, second, "text", third)
        made.set()

    ahead = Ahead(items(), Speech(), Speech())
    found = []
    for item in together([ahead], ahead):
        assert made.wait(WAIT)
        found.append(item if isinstance(item, str) else item.behind)
    assert found[1:] == [0, "text", 0]


def test_a_stream_is_drained_while_a_thread_reads_it():
    """The reader gets no more, and no byte is read by both."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = Peer.on(theirs, State.ITEMS, PATIENT)
        got, reading = [], threading.Event()

        def read():
            for item in peer.items():
                got.append(item)
                reading.set()

        reader = threading.Thread(target=read)
        reader.start()
        whole = next(iter(scan()))
        first, rest = take(whole, np.arange(4)), take(whole, np.arange(4, len(whole)))
        ours.sendall(blob([first, "text"]))
        assert reading.wait(WAIT)
        drainer = threading.Thread(target=peer.drain)
        drainer.start()
        ours.sendall(blob([rest, *toys.scan()]))
        ours.shutdown(socket.SHUT_WR)
        drainer.join(WAIT)
        reader.join(WAIT)
        assert not drainer.is_alive()
        assert not reader.is_alive()
        peer.close()


def test_a_thread_that_waits_for_a_silent_peer_ends_when_the_peer_is_closed():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        peer = Peer.on(theirs, State.ITEMS, PATIENT)
        ended = threading.Event()

        def items():
            try:
                yield from peer.items()
            finally:
                ended.set()

        side = Ahead(items(), Speech(), Speech())
        side.start()
        side.stop()  # a side that is stopped forgets how its source ends
        peer.close()
        assert ended.wait(WAIT)
        side.join()


def test_the_log_of_a_side_has_the_name_of_its_connection(caplog):
    names = []

    def items():
        logging.getLogger("gadgets").warning("here")
        yield 1

    def connection():
        ahead = Ahead(items(), Speech(), Speech())
        names.extend(together([ahead], ahead))

    thread = threading.Thread(target=connection, name="connection 7")
    with caplog.at_level(logging.WARNING):
        thread.start()
        thread.join(WAIT)
    assert [record.threadName for record in caplog.records] == ["connection 7"]
