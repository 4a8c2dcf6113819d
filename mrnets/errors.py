"""The one kind of error that a user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Faults", "InputError", "NotFiniteError", "counted", "naming", "nearest", "printable", "unknown"]


class InputError(ValueError):
    """Input that cannot be used: one clear sentence that names the file, gadget, property or acquisition,
    what was expected and what came. Hosts and command lines print the sentence and never a traceback."""


class NotFiniteError(InputError):
    """Data that are NaN or infinite. Inside a chain they are those of one slice, and cost that slice alone: whatever
    came in was finite, and has overflowed."""


@dataclass
class Faults:
    """Faults of one input, gathered so that a user is told all of them at once."""

    found: list[InputError] = field(default_factory=list)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Keep an InputError that is raised inside, and go on after the block."""
        try:
            yield
        except InputError as error:
            self.found.append(error)

    def tell(self) -> None:
        """Raise InputError with the sentences of all faults, or the only one as it came, where there is any."""
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            told = list(dict.fromkeys(str(error).rstrip() for error in self.found))
            raise InputError("".join(f"{text} " if text[-1:] in ".?" else f"{text}; " for text in told).rstrip("; "))


def unknown(what: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that does not exist: `what` it is ("property of gadget noise"), and the nearest known."""
    names = sorted(known)
    near = _near(name, names)
    hint = f"did you mean {near!r}?" if near else f"known: {', '.join(names) or 'none'}"
    return InputError(f"unknown {what}: {name!r}; {hint}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'varnet'?" for a misspelt name; empty where no known name is near."""
    near = _near(name, sorted(known))
    return f" Did you mean {near!r}?" if near else ""


def _near(name: str, names: list[str]) -> str:
    return next(iter(difflib.get_close_matches(name, names, n=1)), "")


def printable(text: str) -> str:
    """Return `text` on one line, without the control characters that a peer or a file may have put into it."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in " ".join(text.split()))


def counted(count: int, thing: str) -> str:
    """Return a number of things in words: "1 echo", "3 echoes"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}{'es' if thing.endswith(('o', 's')) else 's'}"


@contextmanager
def naming(what: object) -> Iterator[None]:
    """Puts `what`, e.g. a file, and a colon in front of an InputError that is raised inside and does not have it."""
    try:
        yield
    except InputError as error:
        if str(error).startswith(f"{what}: "):
            raise
        raise type(error)(f"{what}: {error}") from error.__cause__
