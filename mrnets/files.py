"""Files that are whole or not there.

A file is written beside its place under a name that nobody else has, flushed to the disk, and renamed. A failure leaves
what was there before. Nothing is deleted or overwritten but the target and the temporary file.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mrnets.errors import InputError

__all__ = ["Draft", "make_folder", "reserved", "whole", "write_bytes", "write_text"]


class Draft:
    """A file that is being written: a binary file object to write, read and seek in, without a buffer."""

    def __init__(self, path: Path, advice: str = "") -> None:
        self.path = path
        """The final path of the file."""
        self._advice = advice
        self.keep = False
        """Whether a failure that is not the disk's leaves the file: as NAME.partial, or NAME.RANDOM.partial where the
        first is taken."""
        self.error: OSError | None = None
        """The first failure of the disk; libraries hide it behind errors of their own."""
        self.signals: list[int] = []
        """Signals that wait for `check`, because they came while a library wrote."""
        self._random = secrets.token_hex(4)
        self._partial = path.with_name(f".{path.name}.{self._random}.partial")
        self._file = open(self._partial, "x+b", buffering=0)  # noqa: SIM115 (closed by `finish`)

    def write(self, data: Any) -> int:
        """Write all of `data`."""
        view = memoryview(data).cast("B")
        done = 0
        with self._noticed():
            while done < len(view):
                done += self._file.write(view[done:])
        return done

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; by default all that follow."""
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def truncate(self, size: int) -> int:
        """Cut or extend the file to `size` bytes."""
        with self._noticed():
            return self._file.truncate(size)

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def check(self) -> None:
        """Handle the signals that wait. Raises InputError where the disk has failed."""
        while self.signals:
            signal.raise_signal(self.signals.pop(0))
        if self.error is not None:
            raise _unwritable(self.path, self.error, self._advice) from None

    def publish(self) -> None:
        """Make of the file what it is to become, with all of it on the disk. Raises OSError."""
        with self._noticed():
            os.fsync(self._file.fileno())
            _check_target(self.path)
            os.replace(self._partial, self.path)
            _sync(self.path.parent)

    def finish(self) -> None:
        """Close the file, and remove it unless it was published or is to be kept."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            if self.keep and self.error is None:
                self._keep()
        with suppress(OSError):
            self._partial.unlink()

    def _keep(self) -> None:
        """Give the file a name to be kept under, without replacing another file."""
        try:
            os.link(self._partial, self.path.with_name(f"{self.path.name}.partial"))
        except OSError:  # that name is taken, or the file system has no links
            self._partial.rename(self.path.with_name(f"{self.path.name}.{self._random}.partial"))

    @contextmanager
    def _noticed(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error
            raise


@contextmanager
def whole(path: str | Path, advice: str = "") -> Iterator[Draft]:
    """Yield a binary file to write, which becomes `path` when the block ends, and not before.

    An exception in the block passes, and then `path` stays as it was.
    Raises InputError where the disk is full or cannot be written, and where another run writes to `path`. Raises it
    also where `path` is neither absent nor a regular file. `advice` stands at the end of its sentence.
    """
    path = Path(path)
    with reserved(path):
        try:
            draft = Draft(path, advice)
        except OSError as error:
            raise _unwritable(path, error, advice) from None
        try:
            yield draft
            draft.publish()
        except Exception:
            draft.check()
            raise
        finally:
            draft.finish()


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file of `data`. Raises InputError as `whole` does."""
    with whole(path) as file:
        file.write(data)


def write_text(path: str | Path, text: str) -> None:
    """Write a file of `text`, in UTF-8. Raises InputError as `whole` does.

    Names of files may hold bytes that are no UTF-8. They are written as \\udcfc and so on."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def make_folder(path: str | Path) -> Path:
    """Make a folder and those above it, where they are absent, and return it. Raises InputError."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror or error}") from None
    return folder


@contextmanager
def reserved(path: str | Path) -> Iterator[None]:
    """Keep `path` for this run as long as the block lasts. Raises InputError where another run has reserved it, or
    where it is neither absent nor a regular file.

    The lock is on an empty file .NAME.lock, which the system releases when a process ends, however it ends. A file
    system without locks reserves nothing.
    """
    path = Path(path)
    _check_target(path)
    lock = path.with_name(f".{path.name}.lock")
    try:
        number = _locked(lock)
    except BlockingIOError:
        raise InputError(f"{path} is being written by another run") from None
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        yield
    finally:
        if os.fstat(number).st_size == 0:  # somebody's own file of that name stays
            lock.unlink(missing_ok=True)
        os.close(number)


def _locked(lock: Path) -> int:
    """The descriptor of the locked file. Raises BlockingIOError where another holds the lock."""
    while True:
        number = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(number)
            raise
        except OSError:  # this file system has no locks
            return number
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(number), os.lstat(lock)):
                return number
        os.close(number)  # the run before removed the file after it was opened here


def _check_target(path: Path) -> None:
    try:
        if not path.parent.is_dir():
            raise InputError(f"cannot write {path}: there is no folder {path.parent}")
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unwritable(path, error) from None
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise InputError(f"cannot write {path}: it is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a regular file")


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _unwritable(path: Path, error: OSError, advice: str = "") -> InputError:
    return InputError(f"cannot write {path}: {error.strerror or error}" + (f"; {advice}" if advice else ""))
