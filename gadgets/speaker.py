"""The gadget whose code runs now: its name stands in front of its errors and warnings, and not in the gadget itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from mrnets.errors import InputError
from mrnets.mrd.lines import Item

__all__ = ["GadgetError", "Prefix", "named", "unnamed"]

_speaker: ContextVar[str] = ContextVar("speaker", default="")


class GadgetError(RuntimeError):
    """A gadget failed for a reason that is not the input's: one sentence that names the gadget and the failure."""


def named(name: str, items: Iterator[Item], known: list[Exception]) -> Iterator[Item]:
    """Yield `items`, which the gadget `name` makes, with the name in front of its errors and warnings.

    known: the errors that came from before the gadget, which pass as they are; an error of this gadget is added.
    Raises InputError for an InputError of the gadget, and GadgetError for any other exception.
    """
    while True:
        with _speaking(name):
            try:
                item = next(items)
            except StopIteration:
                return
            except Exception as error:
                if any(error is other for other in known):
                    raise
                known.append(_with_name(name, error))
                raise known[-1] from error
        yield item


def unnamed(items: Iterator[Item], known: list[Exception]) -> Iterator[Item]:
    """Yield `items`, which no gadget makes. Their errors pass as they are and are added to `known`."""
    while True:
        with _speaking(""):
            try:
                item = next(items)
            except StopIteration:
                return
            except Exception as error:
                known.append(error)
                raise
        yield item


def _with_name(name: str, error: Exception) -> Exception:
    reason = " ".join(str(error).split())
    if isinstance(error, InputError):
        return InputError(reason if reason.startswith(f"{name}: ") else f"{name}: {reason}")
    return GadgetError(f"Gadget {name} failed: {type(error).__name__}: {reason or 'no message'}")


@contextmanager
def _speaking(name: str) -> Iterator[None]:
    token = _speaker.set(name)
    try:
        yield
    finally:
        _speaker.reset(token)


class Prefix(logging.Filter):
    """A filter for the handlers of a log: it puts the name of the gadget in front of the gadget's messages."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True, with the name in the record's message."""
        if (name := _speaker.get()) and not hasattr(record, "speaker"):  # a record comes to every handler
            record.speaker = name
            record.msg = f"{name}: {record.msg}"
        return True
