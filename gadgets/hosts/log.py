"""The log of a host."""

from __future__ import annotations

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

from gadgets.speaker import Prefix, printable
from mrnets.errors import InputError

__all__ = ["name_gadgets", "start"]

_PREFIX = Prefix()
_OURS = ("gadgets", "mrnets", "root", "__main__")
MAX_BYTES, FILES = 16 << 20, 5


def start(command: str, *, debug: bool = False, path: Path | None = None) -> None:
    """Log to stderr, and to the file `path`, what `command` has to say; with a time where it runs for long.

    debug: log more. Raises InputError for a file that cannot be written."""
    logging.raiseExceptions = False  # a log on a full disk fails in silence
    serving = command == "serve"
    usual = {"serve": logging.INFO, "inspect": logging.ERROR}  # inspect prints the warnings itself
    level = logging.DEBUG if debug else usual.get(command, logging.WARNING)
    form = "%(asctime)s gadgets serve: %(threadName)s: %(message)s" if serving else f"gadgets {command}: %(message)s"
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if path is not None:
        handlers.append(_file(path))
    for handler in handlers:
        handler.addFilter(_told)
        handler.addFilter(_plain)
    logging.basicConfig(level=level, format=form, handlers=handlers)
    name_gadgets()


def _told(record: logging.LogRecord) -> bool:
    """Return whether a message is this project's, or a warning: other libraries log how they read their files."""
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in _OURS


def _plain(record: logging.LogRecord) -> bool:
    """Return True, with the message on one line: nothing that a client sends looks like another line of the log."""
    record.msg, record.args = printable(record.getMessage()), ()
    return True


def _file(path: Path) -> RotatingFileHandler:
    try:
        return RotatingFileHandler(path, maxBytes=MAX_BYTES, backupCount=FILES, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write the log {path}: {error.strerror or error}") from None


def name_gadgets() -> None:
    """Put the name of a gadget in front of its messages, in every handler that the log has.

    A log that leaves out warnings leaves them out of itself only: they reach the comments of images all the same."""
    root = logging.getLogger()
    for handler in root.handlers:
        handler.addFilter(_PREFIX)
        handler.setLevel(max(handler.level, root.level))
    logging.getLogger("mrnets").setLevel(min(root.level, logging.WARNING))
