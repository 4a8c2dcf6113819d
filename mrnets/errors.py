"""The one kind of error that a user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = ["InputError", "naming", "unknown"]


class InputError(ValueError):
    """Input that cannot be used: one clear sentence that names the file, gadget, property or acquisition,
    what was expected and what came. Hosts and command lines print the sentence and never a traceback."""


def unknown(what: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that does not exist: `what` it is ("property of gadget noise"), and the nearest known."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
    return InputError(f"unknown {what}: {name!r}; {hint}")


@contextmanager
def naming(what: object) -> Iterator[None]:
    """Puts `what`, e.g. a file, and a colon in front of an InputError that is raised inside and does not have it."""
    try:
        yield
    except InputError as error:
        if str(error).startswith(f"{what}: "):
            raise
        raise InputError(f"{what}: {error}") from error.__cause__
