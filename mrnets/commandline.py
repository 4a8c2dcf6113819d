"""Command lines: examples in every help, and the nearest name for a misspelt command or option."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mrnets.errors import nearest

__all__ = ["check_command", "one_of", "program", "refuse", "with_examples"]


def program(package: str) -> str:
    """Return how the program of a package was called: by its console command, or else by `python -m`."""
    return package if Path(sys.argv[0]).name == package else f"python -m {package}"


def with_examples(program: str, examples: Iterable[str]) -> dict[str, Any]:
    """Return what an argument parser needs to show `examples`, lines without the name of the program, in its help."""
    lines = "\n".join(["examples:", *(f"  {program} {line}" for line in examples)])
    return {"epilog": lines, "formatter_class": argparse.RawDescriptionHelpFormatter}


def one_of(known: Sequence[str]) -> Callable[[str], str]:
    """Return the type of an option that takes one of the names `known`. A misspelt one names the nearest."""

    def name(text: str) -> str:
        if text not in known:
            there = ", ".join(known)
            raise argparse.ArgumentTypeError(f"there is no {text!r}; there are: {there}.{nearest(text, known)}")
        return text

    return name


def check_command(parser: argparse.ArgumentParser, words: Sequence[str], known: Iterable[str]) -> str | None:
    """Return the command that is asked for; None: none is. A misspelt one ends the program with status 2."""
    asked = next((word for word in words if not word.startswith("-")), None)
    if asked is not None and asked not in (names := list(known)):
        parser.error(f"there is no command {asked!r}.{nearest(asked, names)}")
    return asked


def refuse(parser: argparse.ArgumentParser, words: Sequence[str]) -> NoReturn:
    """End the program with status 2 for words that are no options of `parser`, and name the nearest ones."""
    known = [option for action in parser._actions for option in action.option_strings]
    options = [word.partition("=")[0] for word in words if word.startswith("-")]
    hints = "".join(nearest(option, known) for option in options)
    parser.error(f"unrecognized arguments: {' '.join(words)}.{hints}")
