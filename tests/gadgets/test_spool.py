"""The spool: what came is on the disk before it is computed, and is replayed to the same bytes."""

import os
import socket
import stat
import sys
import threading
from contextlib import suppress

import ismrmrd
import numpy as np
import pytest

from gadgets.__main__ import main
from gadgets.chain import Chain
from gadgets.connection import Peer
from gadgets.hosts.keeping import keeping
from gadgets.hosts.pipe import convey
from gadgets.hosts.rules import Rules
from gadgets.hosts.spool import Record, Spool, entries, held, opened
from gadgets.hosts.tap import Recorder, Tap
from gadgets.messages import Close, ConfigFile, ConfigText, Header
from gadgets.protocol import State
from mrnets.errors import InputError
from mrnets.mrd.lines import MAX_RUN_BYTES
from tests.gadgets import toys
from tests.gadgets.clients import STAGES, attached, served
from tests.gadgets.spools import eventually, made_again, only, replayed
from tests.gadgets.toys import blob, chain, configuration, for_clients, stage

PARAMETERS = '{"parameters": {"toy.scale": 3}}'


# Kept as it came


@pytest.mark.parametrize(
    ("first", "more"),
    [
        (ConfigFile("toy.xml"), ()),
        (ConfigText(chain(*STAGES).encode()), ()),
        (ConfigFile("toy.xml"), (PARAMETERS,)),
        (ConfigText(configuration(*STAGES).encode()), ()),
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
    messages = [ConfigText(configuration(own, *STAGES).encode()), Header(toys.HEADER), *toys.scan(), Close()]
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
        convey(peer, Chain.parse(configuration(own, *STAGES)), None if by_chain else opened(folder))
        peer.close()
    entry = only(Spool(folder))
    assert entry.stream.read_bytes() == stream.read_bytes()
    assert blob([Header(toys.HEADER)]) + replayed(entry) + blob([Close()]) == out.read_bytes()


def test_a_client_cannot_name_a_spool(place, kept, tmp_path):
    own = f'<property name="spool" value="{tmp_path / "mine"}"/>'
    with served(Rules(place, spool=kept)) as client:
        client.send(ConfigText(configuration(own, *STAGES).encode()), Header(toys.HEADER), *toys.scan(), Close())
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
                keeper.begin(peer, (Header(b"x"),), Chain.parse(configuration(*STAGES)), Record("toy"))
                if error is not None:
                    raise error
            finally:
                peer.close()

    with suppress(InputError, KeyboardInterrupt):
        run()
    entry = only(kept)
    assert (entry.state, entry.record()) == (state, Record("toy", reason=reason))
