"""The log of a host."""

from __future__ import annotations

import logging
import sys

from gadgets.speaker import Prefix

__all__ = ["name_gadgets", "start"]


def start(command: str, *, debug: bool = False) -> None:
    """Log to stderr: what `command` has to say, with a time where it runs for long. debug: log more."""
    serving = command == "serve"
    level = logging.DEBUG if debug else logging.INFO if serving else logging.WARNING
    form = "%(asctime)s gadgets serve: %(threadName)s: %(message)s" if serving else f"gadgets {command}: %(message)s"
    logging.basicConfig(level=level, format=form, stream=sys.stderr)
    name_gadgets()


def name_gadgets() -> None:
    """Put the name of a gadget in front of its messages, in every handler that the log has."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(Prefix())
