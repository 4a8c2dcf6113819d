"""A case through one host, in this process: what comes out, and what was said."""

from __future__ import annotations

import io
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import ismrmrd
import numpy as np

from gadgets.chain import Chain
from gadgets.connection import Peer, sentence
from gadgets.hosts import external
from gadgets.hosts.conversation import handle
from gadgets.hosts.pipe import convey
from gadgets.hosts.replay import replay
from gadgets.hosts.rules import Rules
from gadgets.limits import Limits
from gadgets.messages import Close, Error
from gadgets.protocol import State
from gadgets.speaker import GadgetError
from gadgets.wire import read_message
from mrnets.errors import InputError
from tests.faults.sound import MEMORY

SECONDS = 20.0
"""In which a host must be done."""
UNFORESEEN = re.compile(r"^(\[gadgets\] ERROR: )?\w+(Error|Exception|Warning|Iteration): ")
"""Errors that no sentence of this project tells."""


KEY = ("image_series_index", "slice", "contrast", "phase", "repetition", "set")


@dataclass(frozen=True)
class Seen:
    """An image as it came out."""

    key: tuple[int, ...]
    pixels: np.ndarray
    geometry: np.ndarray
    notes: frozenset[str]


@dataclass
class Outcome:
    """The outcome of a case in a host."""

    images: list[Seen] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    """Why there was no more."""
    whole: bool = True
    """Whether the host said that all went well: CLOSE, exit status 0."""

    @property
    def unforeseen(self) -> bool:
        return any(UNFORESEEN.match(text) for text in self.sentences)


def seen(image: ismrmrd.Image) -> Seen:
    """The facts of an image that are judged."""
    key = tuple(int(getattr(image, name)) for name in KEY)
    vectors = (image.position, image.read_dir, image.phase_dir, image.slice_dir, image.field_of_view)
    comments = image.meta.get("ImageComments", "") if image.attribute_string else ""
    geometry = np.concatenate([np.asarray(tuple(v), float) for v in vectors])
    return Seen(key, np.array(image.data), geometry, frozenset("".join(comments).split("; ")))


def _collected(items: Iterable[object]) -> Outcome:
    outcome = Outcome(whole=False)
    for item in items:
        if isinstance(item, ismrmrd.Image):
            outcome.images.append(seen(item))
        elif isinstance(item, Error):
            outcome.sentences.append(item.text)
        elif isinstance(item, str) and item.startswith("[gadgets] ERROR: "):
            outcome.sentences.append(item)
        outcome.whole |= isinstance(item, Close)
    return outcome


def _messages(source: io.BufferedIOBase) -> Iterator[object]:
    while (message := read_message(source)) is not None:
        yield message


def pipe(stream: bytes, chain: str, place: Path) -> Outcome:
    """A stage of a pipe of commands."""
    out = io.BytesIO()
    said = []
    try:
        convey(Peer(io.BytesIO(stream), out, State.PIPE), Chain.parse(chain))
    except Exception as error:  # noqa: BLE001 (whatever it is, it is judged)
        said = [sentence(error)]
    outcome = _collected(_messages(io.BytesIO(out.getvalue())))
    outcome.sentences += said
    return outcome


def replayed(stream: bytes, chain: str, place: Path) -> Outcome:
    """A file that is replayed; HDF5, or a stream."""
    scan, out, config = place / "scan.mrd", place / "images.h5", place / "chain.xml"
    out.unlink(missing_ok=True)
    scan.write_bytes(stream)
    config.write_text(chain)
    outcome = Outcome()
    try:
        replay(scan, out, str(config))
    except (InputError, GadgetError) as error:
        outcome.sentences.append(" ".join(str(error).split()))
    except Exception as error:  # noqa: BLE001 (whatever it is, it is judged)
        outcome.sentences.append(sentence(error))
    if out.exists():
        outcome.images = list(_stored(out))
    return outcome


def _stored(path: Path) -> Iterator[Seen]:
    with ismrmrd.Dataset(str(path), "dataset", create_if_needed=False) as file:
        for name in file.list():
            if name.startswith("image"):
                for n in range(file.number_of_images(name)):
                    yield seen(file.read_image(name, n))


def _talk(ours: socket.socket, stream: bytes) -> Outcome:
    """Send all and read all, as a client does."""
    ours.settimeout(SECONDS)
    try:
        ours.sendall(stream)
        ours.shutdown(socket.SHUT_WR)
    except OSError:  # the host has given up: what it said can be read all the same
        pass
    with ours.makefile("rb") as source:
        return _collected(_until_reset(source))


def _until_reset(source: io.BufferedIOBase) -> Iterator[object]:
    """Return the bytes that came. A host that goes while bytes follow CLOSE may lose its last words."""
    with suppress(ConnectionResetError):
        yield from _messages(source)


def serve(stream: bytes, chain: str, place: Path) -> Outcome:
    """A connection of the resident server. `chain` is the client's, and in the stream already."""
    limits = Limits(start=SECONDS, silence=SECONDS, unread=SECONDS, queue=1 << 24, message=1 << 27)
    rules = Rules(place, weights=place, memory=MEMORY, limits=limits)
    ours, theirs = socket.socketpair()
    with ours:
        return _beside(lambda: handle(theirs, rules), lambda: _talk(ours, stream))


def executed(stream: bytes, chain: str, place: Path) -> Outcome:
    """The program that a Gadgetron server starts."""
    statuses: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SECONDS)
        port = str(listener.getsockname()[1])

        def talk() -> Outcome:
            ours, _ = listener.accept()
            with ours:
                return _talk(ours, stream)

        outcome = _beside(lambda: statuses.append(external.main([port, "gadgets", "pipeline"])), talk)
    outcome.whole &= statuses == [1 if outcome.sentences else 0]
    return outcome


def _beside(host: Callable[[], object], client: Callable[[], Outcome]) -> Outcome:
    thread = threading.Thread(target=host, daemon=True)
    thread.start()
    try:
        return client()
    finally:
        thread.join(SECONDS)
        if thread.is_alive():
            raise TimeoutError("the host goes on for ever")


Host = Callable[[bytes, str, Path], Outcome]
HOSTS: dict[str, Host] = {"pipe": pipe, "replay": replayed, "serve": serve, "external": executed}
