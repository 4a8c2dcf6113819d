"""The spool: what came is on the disk before it is computed, and is replayed to the same bytes."""

import errno
import logging
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import ismrmrd
import numpy as np
import pytest

from gadgets.__main__ import main
from gadgets.chain import Chain
from gadgets.connection import Peer
from gadgets.hosts import conversation
from gadgets.hosts.keeping import keeping, spool_of_chain
from gadgets.hosts.pipe import convey
from gadgets.hosts.recording import open_recording
from gadgets.hosts.rules import Rules
from gadgets.hosts.scan import reconstructed
from gadgets.hosts.spool import Record, Spool, create, discard, entries, held, make_room, mark, opened
from gadgets.hosts.tap import Recorder, Tap
from gadgets.limits import Limits
from gadgets.messages import Close, ConfigFile, ConfigText, Error, Header
from gadgets.protocol import State
from gadgets.speaker import GadgetError
from mrnets.errors import InputError
from mrnets.mrd.lines import MAX_RUN_BYTES
from tests.gadgets import toys
from tests.gadgets.test_hosts import Client, attached, texts
from tests.gadgets.toys import blob, chain, configuration, for_clients, stage

ROOT = Path(__file__).parents[2]
TOYS = (stage("noise"), stage("toy", scale=2))
SERVE = "import sys, tests.gadgets.toys; from gadgets.__main__ import main; sys.exit(main(sys.argv[1:]))"
PARAMETERS = '{"parameters": {"toy.scale": 3}}'


@pytest.fixture
def place(tmp_path):
    """A folder with the chain toy.xml."""
    folder = tmp_path / "chains"
    folder.mkdir()
    (folder / "toy.xml").write_text(chain(*TOYS))
    return folder


@pytest.fixture
def kept(tmp_path):
    return opened(tmp_path / "spool")


@contextmanager
def served(rules):
    """A client of the resident server's code, in this process."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=conversation.handle, args=(theirs, rules))
    thread.start()
    with ours:
        client = Client(ours)
        yield client
        client.peer.close()
    thread.join(60)
    assert not thread.is_alive()


def made_again(entry) -> list:
    """The items that the stream of an entry gives by its chain, without texts."""
    with open_recording(entry.stream) as source:
        made = reconstructed(Chain.parse(entry.chain.read_bytes()), source.items, source.header, source.notes)
        return [item for item in made if not isinstance(item, str)]


def replayed(entry) -> bytes:
    """The bytes of these items."""
    return blob(made_again(entry))


def only(kept: Spool):
    (entry,) = entries(kept.folder)
    return entry


def eventually(true) -> bool:
    """Whether something becomes true within a minute."""
    end = time.monotonic() + 60
    pause = threading.Event()
    while not true() and time.monotonic() < end:
        pause.wait(0.005)
    return true()


# Kept as it came


@pytest.mark.parametrize(
    ("first", "more"),
    [
        (ConfigFile("toy.xml"), ()),
        (ConfigText(chain(*TOYS).encode()), ()),
        (ConfigFile("toy.xml"), (PARAMETERS,)),
        (ConfigText(configuration(*TOYS).encode()), ()),
    ],
    ids=["name", "text", "parameters", "connect"],
)
def test_a_scan_is_kept_as_it_came_and_replays_to_the_same_bytes(place, kept, first, more):
    messages = [first, Header(toys.HEADER), *more, *toys.scan(), Close()]
    with served(Rules(place, spool=kept)) as client:
        client.send(*messages)
        came = blob(for_clients(client.receive()))
    entry = only(kept)
    assert entry.state == "done"
    assert entry.stream.read_bytes() == blob(messages)
    assert blob(for_clients(made_again(entry))) == came


def test_what_was_said_of_the_order_stands_in_the_images_of_the_replay_too(place, kept):
    """A parameter that means nothing, a chain that is not there, and images without a header."""
    (place / "toy.xml").write_text(chain(stage("noted")))
    image = ismrmrd.Image.from_array(np.ones((4, 4), np.float32))
    unknown = '{"parameters": {"toy.nothing": 3}}'
    rules = Rules(place, "toy", spool=kept)
    for messages in (
        [ConfigFile("other.xml"), Header(toys.HEADER), unknown, *toys.scan(), Close()],
        [ConfigFile("toy.xml"), Header(b"none"), unknown, "hello", image, Close()],
    ):
        with served(rules) as client:
            client.send(*messages)
            came = client.receive()
        entry = entries(kept.folder)[-1]
        assert blob(for_clients(made_again(entry))) == blob(came)
        assert "toy.nothing" in str(came[-1].meta)
    assert "one was made from the first image" in str(came[-1].meta)


def test_the_command_replay_takes_a_stream_and_a_chain_from_the_spool(place, kept, tmp_path):
    with served(Rules(place, spool=kept)) as client:
        client.send(ConfigFile("toy.xml"), Header(toys.HEADER), *toys.scan(), Close())
        images = [item for item in client.receive() if isinstance(item, ismrmrd.Image)]
    entry = only(kept)
    assert main(["replay", str(entry.stream), "-C", str(entry.chain), "-o", str(tmp_path / "out.h5"), "-q"]) == 0
    with ismrmrd.Dataset(tmp_path / "out.h5", mode="r") as dataset:
        names = [name for name in dataset.list() if name.startswith("image")]
        found = [dataset.read_image(name, n) for name in names for n in range(dataset.number_of_images(name))]
    found.sort(key=lambda image: image.image_index)
    assert blob(found) == blob(images)


def test_gadgetrons_external_process_keeps_a_scan_where_its_pipeline_says(tmp_path):
    folder = tmp_path / "spool"
    own = f'<property name="spool" value="{folder}"/>'
    messages = [ConfigText(configuration(own, *TOYS).encode()), Header(toys.HEADER), *toys.scan(), Close()]
    with attached() as (status, server):
        server.send(*messages)
        came = blob(server.receive())
    assert status == []
    entry = only(Spool(folder))
    assert entry.stream.read_bytes() == blob(messages)
    assert replayed(entry) == came


@pytest.mark.parametrize("by_chain", [False, True])
def test_the_pipe_keeps_a_scan(tmp_path, by_chain):
    folder = tmp_path / "spool"
    own = f'<property name="spool" value="{folder}"/>' if by_chain else ""
    stream, out = tmp_path / "in", tmp_path / "out"
    stream.write_bytes(blob([Header(toys.HEADER), *toys.scan(), Close()]))
    with open(stream, "rb", 0) as source, open(out, "wb") as sink:
        peer = Peer(source, sink, State.PIPE)
        convey(peer, Chain.parse(configuration(own, *TOYS)), None if by_chain else opened(folder))
        peer.close()
    entry = only(Spool(folder))
    assert entry.stream.read_bytes() == stream.read_bytes()
    assert blob([Header(toys.HEADER)]) + replayed(entry) + blob([Close()]) == out.read_bytes()


def test_a_client_cannot_name_a_spool(place, kept, tmp_path):
    own = f'<property name="spool" value="{tmp_path / "mine"}"/>'
    with served(Rules(place, spool=kept)) as client:
        client.send(ConfigText(configuration(own, *TOYS).encode()), Header(toys.HEADER), *toys.scan(), Close())
        client.receive()
    assert only(kept).state == "done"
    assert not (tmp_path / "mine").exists()


def test_a_ping_is_no_scan(place, kept):
    with served(Rules(place, spool=kept)) as client:
        client.send(Close())
        assert client.receive() == []
    assert entries(kept.folder) == []


# Before anything is computed


@toys.gadget
def waiting(stream, header):
    """Take nothing before `LET` is set."""
    assert LET.wait(60)
    yield from toys.toy(stream, header)


LET = threading.Event()
sys.modules["gadgets.waiting"] = sys.modules[__name__]


def test_all_that_came_is_on_the_disk_before_a_gadget_takes_the_first_line(place, kept):
    """More than any buffer of a socket holds; the sender is not held up."""
    LET.clear()
    big = [toys.lines(200, coils=16, samples=512)] * 4
    messages = [ConfigText(chain(stage("waiting")).encode()), Header(toys.HEADER), *big, Close()]
    with served(Rules(place, spool=kept)) as client:
        client.send(*messages)
        entry = only(kept)
        assert eventually(lambda: entry.stream.stat().st_size == len(blob(messages)))
        assert entry.stream.read_bytes() == blob(messages)
        with held(entry) as mine:
            assert not mine
        LET.set()
        assert len(client.receive()) == 4 * 200 * 16 * 512 * 8 // MAX_RUN_BYTES + 1
    assert only(kept).state == "done"


# Failures


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


@pytest.mark.parametrize("with_spool", [True, False])
@pytest.mark.parametrize("number", [0, 1])
def test_a_fault_in_a_line_is_told_before_its_run_ends(place, kept, with_spool, number):
    """Nothing comes after the line, which is the first or the second of the scan."""
    fault = toys.lines(number + 1)
    fault.data[number, 0, 0] = np.nan
    with served(Rules(place, spool=kept if with_spool else None)) as client:
        client.send(ConfigFile("toy.xml"), Header(toys.HEADER), fault)
        assert f"acquisition {number} (scan_counter) has NaN or infinite samples" in client.peer.read()
        client.send(Close())
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
    assert spool_of_chain(Chain.parse(configuration(own, *TOYS))) is None
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


# Private


def test_files_and_folders_are_private_and_names_have_no_patient(place, kept):
    header = toys.HEADER.replace(
        b"<experimentalConditions>",
        b"<subjectInformation><patientName>DOE^JANE</patientName><patientID>4711</patientID></subjectInformation>"
        b"<experimentalConditions>",
        1,
    )
    with served(Rules(place, spool=kept)) as client:
        client.send(ConfigFile("toy.xml"), Header(header), *toys.scan(), Close())
        client.receive()
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o700
    files = list(kept.folder.iterdir())
    assert len(files) == 3
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert "DOE" not in file.name
        assert "4711" not in file.name


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701])
def test_a_folder_that_others_can_read_is_no_spool(tmp_path, mode):
    (tmp_path / "spool").mkdir()
    os.chmod(tmp_path / "spool", mode)
    with pytest.raises(InputError, match="chmod 700"):
        opened(tmp_path / "spool")


@pytest.mark.parametrize(("size", "age"), [(0, 1), (1, -1), (float("nan"), 1)])
def test_a_spool_needs_bounds(tmp_path, size, age):
    with pytest.raises(InputError, match="positive"):
        opened(tmp_path / "spool", size, age)


def test_a_file_is_no_spool(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be a spool"):
        opened(tmp_path / "file")


# Bounded


def filled(kept: Spool, state, size: int = 1000):
    """An entry of that size, which nobody works on."""
    entry, number = create(kept, bytes(size), b"", Record())
    os.close(number)
    mark(entry, state, Record())
    return entry


def names(kept: Spool) -> list[str]:
    return [entry.name for entry in entries(kept.folder)]


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


# Killed


@contextmanager
def server(place: Path, folder: Path, *options: str):
    """A resident server in a process of its own, and its port."""
    command = [sys.executable, "-c", SERVE, "serve", "-p", "0", "--chains", str(place), "--spool", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, *options], cwd=ROOT, stderr=subprocess.PIPE, env=environment, text=True)
    try:
        line = ""
        while "listening" not in line:
            line = process.stderr.readline()
            assert line, "the server did not start"
        yield process, int(line.rsplit(maxsplit=1)[-1])
    finally:
        process.kill()
        process.communicate()


def kill_at_random(place: Path, folder: Path, rng: np.random.Generator) -> None:
    """Kill a server at a random moment of a scan. What it had received is on the disk, and gives the same bytes."""
    stream = blob([ConfigFile("toy.xml"), Header(toys.HEADER), *toys.scan(), toys.lines(300), Close()])
    head = len(blob([ConfigFile("toy.xml"), Header(toys.HEADER)]))
    count = len(stream) if rng.random() < 0.4 else int(rng.integers(head, len(stream)))
    settled = rng.random() < 0.8
    with server(place, folder) as (process, port), socket.create_connection(("127.0.0.1", port)) as connected:
        connected.sendall(stream[:count])
        if settled:
            assert eventually(lambda: [entry.stream.stat().st_size for entry in entries(folder)] == [count])
        process.kill()
        process.wait(60)
    found = entries(folder)
    for entry in found:
        came = entry.stream.read_bytes()
        assert came == stream[: len(came)]
        assert len(came) == count or not settled
        if came == stream:
            assert blob(for_clients(made_again(entry))) == whole(place, stream)
        with held(entry) as mine:  # nobody works on it any more
            assert mine
        assert discard(entry)
    assert found or not settled


def whole(place: Path, stream: bytes) -> bytes:
    """Return the answer of a server without a spool to the stream."""
    with served(Rules(place)) as client:
        client.socket.sendall(stream)
        return blob(client.receive())


@pytest.mark.parametrize("times", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_a_server_that_is_killed_leaves_every_byte_that_it_had_received(place, tmp_path, times):
    rng = np.random.default_rng(times)
    opened(tmp_path / "spool")
    for _ in range(times):
        kill_at_random(place, tmp_path / "spool", rng)


# The tap


def test_a_tap_passes_an_end_an_error_and_time(tmp_path):
    ours, theirs = socket.socketpair()
    path = tmp_path / "file"
    with ours, theirs, open(path, "xb", 0) as file:
        tap = Tap(ours.fileno(), Recorder(file.fileno(), path, lambda size: None, lambda error: None))
        tap.start()
        tap.settimeout(0.02)
        with pytest.raises(TimeoutError):
            tap.recv(1)
        theirs.sendall(b"abc")
        tap.settimeout(60)
        assert tap.recv(2) == b"ab"
        assert tap.recv(9) == b"c"
        theirs.close()
        assert tap.recv(9) == b""
        tap.close()
        tap.close()
    assert path.read_bytes() == b"abc"


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [(None, "done", ""), (InputError("no taste"), "failed", "no taste"), (KeyboardInterrupt(), "coming", "")],
)
def test_how_a_reconstruction_ends_is_noted(kept, error, state, reason):
    def run():
        ours, theirs = socket.socketpair()
        with ours, theirs, keeping(kept) as keeper:
            peer = Peer.on(ours, State.ITEMS)
            try:
                keeper.begin(peer, (Header(b"x"),), Chain.parse(configuration(*TOYS)), Record("toy"))
                if error is not None:
                    raise error
            finally:
                peer.close()

    with suppress(InputError, KeyboardInterrupt):
        run()
    entry = only(kept)
    assert (entry.state, entry.record()) == (state, Record("toy", reason=reason))
