"""The spool: a folder with the scans that came, each as it came, and what became of it.

The name of an entry is a time and random letters, without patient data. Its files, all private:
- NAME.stream: the messages as they came, from configuration and header to CLOSE. It only grows, so that a process that
  is killed leaves all that had come (HDF5 would be damaged). `python -m gadgets replay` reads it.
- NAME.xml: the chain.
- NAME.coming, .queued, .done or .failed: a `Record`; the ending is the entry's state.
- NAME.images: the messages of the images that were made later.
A scan that is being received or reconstructed is locked. The system releases the lock when the process ends, however it
ends.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO, Literal, get_args

from mrnets.errors import InputError
from mrnets.files import make_folder

__all__ = [
    "AGE",
    "SIZE",
    "STEP",
    "STEPS",
    "Entry",
    "Record",
    "Spool",
    "State",
    "create",
    "delete",
    "discard",
    "drafted",
    "entries",
    "held",
    "make_room",
    "mark",
    "opened",
]

State = Literal["coming", "queued", "done", "failed"]
STATES: tuple[State, ...] = get_args(State)
SIZE, AGE = 20.0, 7.0
"""GiB and days, unless the operator says otherwise."""
STEP, STEPS = 64 << 20, 16
"""Bytes for which room is made at once; a small spool is filled in so many steps, at least."""
MAX_RECORD = 1 << 20
_NAME = re.compile(r"\d{8}T\d{12}-[0-9a-f]{8}")
"""Files of other names are somebody else's: they are not looked at, and never deleted."""
_PRIVATE = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Spool:
    """A folder and its bounds."""

    folder: Path
    size: float = SIZE * 2**30
    """Bytes of all files in the folder."""
    age: float = AGE * 86400
    """s after which an entry is deleted."""


@dataclass(frozen=True)
class Record:
    """The facts on an entry that its stream does not hold."""

    chain: str = ""
    """The name of the chain, for people."""
    measurement: str = ""
    """The measurement ID in the header, if there is one."""
    deferred: bool = False
    """Whether a quick series is sent first, and the chain runs later."""
    reason: str = ""
    """Why it failed, or what the scan lacks."""
    attempts: int = 0
    """Reconstructions that began."""

    @classmethod
    def parse(cls, text: bytes) -> Record:
        """Read a record. Raises InputError."""
        try:
            made = cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError):
            raise InputError("its record is damaged") from None
        if any(type(getattr(made, f.name)) is not type(f.default) for f in fields(cls)):
            raise InputError("its record is damaged")
        return made


@dataclass(frozen=True)
class Entry:
    """One scan in the spool."""

    folder: Path
    name: str
    state: State = "coming"
    size: int = 0
    """Bytes of its files."""
    age: float = 0.0
    """s since its stream last grew."""

    def path(self, ending: str) -> Path:
        """Return the path of its file with that ending."""
        return self.folder / f"{self.name}.{ending}"

    @property
    def stream(self) -> Path:
        """The messages as they came."""
        return self.path("stream")

    @property
    def chain(self) -> Path:
        """The chain, XML."""
        return self.path("xml")

    @property
    def images(self) -> Path:
        """The messages that were made later."""
        return self.path("images")

    def record(self) -> Record:
        """Return its record; an empty one where the process ended before there was any. Raises InputError."""
        try:
            with open(self.path(self.state), "rb") as file:
                return Record.parse(file.read(MAX_RECORD))
        except FileNotFoundError:
            return Record()
        except OSError as error:
            raise InputError(f"cannot read {self.path(self.state)}: {error.strerror}") from None


def opened(folder: Path, size: float = SIZE, age: float = AGE) -> Spool:
    """Return the spool in a folder, which is made if it is not there. size: GiB. age: days.

    Raises InputError for a folder that others can read or that has no locks, and for bounds that are not positive."""
    if not (size > 0 and age > 0):
        raise InputError(f"a spool needs a positive size and age; got {size:g} GiB and {age:g} days")
    make_folder(folder.parent)
    try:
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if os.fstat(number).st_mode & 0o077:
                raise InputError(f"the spool {folder} would show scans of patients to other users: chmod 700 {folder}")
            fcntl.flock(number, fcntl.LOCK_SH)
        finally:
            os.close(number)
    except OSError as error:
        raise InputError(f"{folder} cannot be a spool: {error.strerror}") from None
    return Spool(folder, size * 2**30, age * 86400)


def create(spool: Spool, head: bytes, chain: bytes, record: Record) -> tuple[Entry, int]:
    """Return a new entry, which is locked, and the descriptor of its stream, which holds the lock. Raises OSError.

    head: the first messages of the stream. chain: XML."""
    while True:
        now = datetime.now(timezone.utc)
        entry = Entry(spool.folder, f"{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}")
        number = os.open(entry.stream, os.O_RDWR | _PRIVATE, 0o600)
        if _locked(number, entry.stream):
            break
        entry.stream.unlink(missing_ok=True)  # somebody looked at it in this very moment
        os.close(number)
    try:
        _written(number, head)
        with drafted(entry.chain) as file:
            file.write(chain)
        mark(entry, "coming", record)
    except OSError:
        delete(entry)
        os.close(number)
        raise
    return entry, number


def mark(entry: Entry, state: State, record: Record) -> None:
    """Set the state and the record of an entry. Raises OSError."""
    with drafted(entry.path(state)) as file:
        file.write(json.dumps(asdict(record)).encode())
    for other in STATES:
        if other != state:
            entry.path(other).unlink(missing_ok=True)


def entries(folder: Path) -> list[Entry]:
    """Return the entries in a folder, the oldest first. Raises InputError."""
    sizes: dict[str, int] = {}
    endings: dict[str, set[str]] = {}
    times: dict[str, float] = {}
    try:
        with os.scandir(folder) as found:
            for file in found:
                name, _, ending = file.name.partition(".")
                if not _NAME.fullmatch(name):
                    continue
                with suppress(FileNotFoundError):
                    status = file.stat(follow_symlinks=False)
                    sizes[name] = sizes.get(name, 0) + status.st_size
                    endings.setdefault(name, set()).add(ending)
                    if ending == "stream":
                        times[name] = status.st_mtime
    except OSError as error:
        raise InputError(f"cannot read the spool {folder}: {error.strerror}") from None
    now = time.time()
    return [Entry(folder, name, _state(endings[name]), sizes[name], now - times[name]) for name in sorted(times)]


def make_room(spool: Spool, size: int) -> None:
    """Delete what is too old, and then the oldest, until `size` more bytes fit.

    Reconstructed scans go first, then those that failed or were cut off. Scans that are queued or being worked on stay.
    Raises OSError where there is no room."""
    found = entries(spool.folder)
    total = sum(entry.size for entry in found) + size
    for entry in sorted(found, key=lambda entry: entry.state != "done"):
        if entry.state != "queued" and (entry.age > spool.age or total > spool.size) and discard(entry):
            total -= entry.size
    if total > spool.size:
        raise OSError(errno.EDQUOT, "the spool is full of scans that are still needed")


def discard(entry: Entry) -> bool:
    """Delete an entry; False where it is locked."""
    with held(entry) as mine:
        if mine:
            delete(entry)
        return mine


@contextmanager
def held(entry: Entry) -> Iterator[bool]:
    """Lock an entry for as long as the block lasts; False where it is locked already, or not there any more."""
    try:
        number = os.open(entry.stream, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        yield _locked(number, entry.stream)
    finally:
        os.close(number)


def _locked(number: int, path: Path) -> bool:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(number), os.lstat(path))
    except (BlockingIOError, FileNotFoundError):
        return False


def _state(endings: set[str]) -> State:
    """Return the state of an entry with these files. Where a process ended between two states, the later one counts."""
    return next((state for state in reversed(STATES) if state in endings), "coming")


@contextmanager
def drafted(path: Path) -> Iterator[BinaryIO]:
    """A private file to write, which becomes `path` when the block ends well, and not before. Raises OSError."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(draft, os.O_WRONLY | _PRIVATE, 0o600), "wb") as file:
            yield file
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _written(number: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]


def delete(entry: Entry) -> None:
    """Delete the files of an entry, whether it is locked or not. Raises OSError.

    Those that a process left when it was killed go, too. The stream goes last."""
    for path in entry.folder.glob(f"{entry.name}.*"):
        if path != entry.stream:
            path.unlink(missing_ok=True)
    entry.stream.unlink(missing_ok=True)
