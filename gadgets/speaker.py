"""The gadget whose code runs now, and what was said of the scan so far.

The name of the gadget stands in front of its errors and warnings, and not in the gadget itself. A warning by `warn`
stands in the comment of each image that is made from then on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from mrnets.errors import InputError, printable
from mrnets.extras import missing
from mrnets.mrd.lines import Item

__all__ = ["GadgetError", "IncompleteError", "Prefix", "Said", "Speech", "lack", "note", "notes", "printable", "warn"]


class IncompleteError(InputError):
    """The scan lacks what its header announces. It is raised when all images that are whole were given."""


class GadgetError(RuntimeError):
    """A gadget failed for a reason that is not the input's: one sentence that names the gadget and the failure."""


@dataclass(frozen=True)
class Said:
    """All that was said of a scan up to some moment."""

    notes: tuple[str, ...] = ()
    warnings: int = 0
    lacking: tuple[str, ...] = ()


@dataclass
class Speech:
    """The notes, warnings and errors of one scan on its way through a chain, or on one side of it."""

    notes: dict[str, None] = field(default_factory=dict)
    """Notes for the comments of images, each once, in order."""
    warnings: int = 0
    """Warnings that went to a log with a `Prefix`."""
    lacking: list[str] = field(default_factory=list)
    """Sentences on images that are missing."""
    _known: list[Exception] = field(default_factory=list)
    """Errors that have their names already."""
    _logged: dict[str, object] = field(default_factory=dict)
    """Warnings that are in the log, of all sides, each with a mark of who was first."""
    _heard: Said = Said()
    """All that the side before this one has said so far."""

    @classmethod
    def of(cls, warnings: Iterable[str]) -> Speech:
        """Return what was said when there were `warnings` already."""
        speech = cls(dict.fromkeys(warnings))
        speech.warnings = len(speech.notes)
        return speech

    def side(self) -> Speech:
        """Return the speech of another side of the chain, which begins with the same notes."""
        return Speech(dict(self.notes), _known=self._known, _logged=self._logged)

    def logs(self, message: str) -> bool:
        """Return whether a warning is to be logged: once for a scan, though the sides speak at the same time."""
        mark = object()
        return message not in self.notes and self._logged.setdefault(message, mark) is mark

    def said(self) -> Said:
        """Return what was said so far."""
        return Said(tuple(self.notes), self.warnings, tuple(self.lacking))

    def hear(self, said: Said) -> None:
        """Take what the side before this one has said, as if it were said here."""
        self.notes.update(dict.fromkeys(said.notes))
        self.warnings += said.warnings - self._heard.warnings
        self.lacking += said.lacking[len(self._heard.lacking) :]
        self._heard = said

    def named(self, name: str, items: Iterator[Item]) -> Iterator[Item]:
        """Yield `items`, which the gadget `name` makes, with the name in front of its errors and warnings.

        Raises InputError for an InputError of the gadget, and GadgetError for any other exception. Errors of what comes
        before the gadget pass as they are."""
        while True:
            with self._speaking(name):
                try:
                    item = next(items)
                except StopIteration:
                    return
                except Exception as error:
                    if any(error is other for other in self._known):
                        raise
                    self._known.append(_with_name(name, error))
                    raise self._known[-1] from error
            yield item

    def concluded(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yield `items`, which leave the chain. Raises IncompleteError at their end if the scan lacks anything."""
        yield from items
        if self.lacking:
            raise IncompleteError("; ".join(self.lacking))

    def unnamed(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yield `items`, which no gadget makes. Their errors pass as they are."""
        while True:
            with self._speaking(""):
                try:
                    item = next(items)
                except StopIteration:
                    return
                except Exception as error:
                    self._known.append(error)
                    raise
            yield item

    @contextmanager
    def _speaking(self, name: str) -> Iterator[None]:
        token = _now.set((self, name))
        try:
            yield
        finally:
            _now.reset(token)


_now: ContextVar[tuple[Speech | None, str]] = ContextVar("now", default=(None, ""))


def warn(message: str, *, log: logging.Logger) -> None:
    """Log `message` as a warning, and note it for the comment of each image that is made from now on."""
    speech, _ = _now.get()
    if speech is None or speech.logs(message):
        log.warning("%s", message)
    note(message)


def note(message: str) -> None:
    """Note `message`, which was logged, for the comment of each image that is made from now on."""
    speech, _ = _now.get()
    if speech is not None:
        speech.notes[message] = None


def lack(message: str) -> None:
    """Say that the scan lacks something: IncompleteError when the chain has given all images.

    Raises IncompleteError at once where no chain runs."""
    speech, name = _now.get()
    if speech is None:
        raise IncompleteError(message)
    speech.lacking.append(f"{name}: {message}")


def notes() -> tuple[str, ...]:
    """Return what was noted so far for the images of this scan."""
    speech, _ = _now.get()
    return () if speech is None else tuple(speech.notes)


def _with_name(name: str, error: Exception) -> Exception:
    reason = " ".join(str(error).split())
    if isinstance(error, InputError):
        return InputError(f"{name}: {reason}")
    if isinstance(error, ModuleNotFoundError):
        return InputError(f"{name}: {missing(error, 'networks')}")
    return GadgetError(f"Gadget {name} failed: {type(error).__name__}: {reason or 'no message'}")


class Prefix(logging.Filter):
    """A filter for the handlers of a log: it puts the name of the gadget in front of the gadget's messages."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True, with the name in the record's message."""
        speech, name = _now.get()
        if speech is not None and not hasattr(record, "speaker"):  # a record comes to every handler
            record.speaker = name
            record.msg = f"{name}: {record.msg}" if name else record.msg
            speech.warnings += record.levelno >= logging.WARNING
        return True


class _Listener(logging.Handler):
    """Notes the warnings of `mrnets`, which must not import gadgets."""

    def emit(self, record: logging.LogRecord) -> None:
        speech, _ = _now.get()
        if speech is not None:
            speech.notes[record.getMessage()] = None


logging.getLogger("mrnets").addHandler(_Listener(logging.WARNING))
