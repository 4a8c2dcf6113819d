"""Command lines: examples in every help, and the nearest name for a misspelt command or option."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from mrnets import heap, threads
from mrnets.errors import nearest

__all__ = ["as_process", "check_command", "one_of", "open_streams", "program", "refuse", "settle", "with_examples"]

NO_READER = 141
"""The exit status of a program that SIGPIPE ends."""


def program(package: str) -> str:
    """Return how the program of a package was called: by its console command, or else by `python -m`."""
    return package if Path(sys.argv[0]).name == package else f"python -m {package}"


def open_streams() -> None:
    """Open stdin, stdout and stderr on nothing where they are closed, as some services start a program.

    Otherwise the next file or socket takes the number, and gets what is printed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it takes the lowest number that is free, which is this one
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 (open to the end)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may hold bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")


def settle() -> None:
    """Make a process ready, before NumPy and torch load: see `open_streams`, `mrnets.threads` and `mrnets.heap`."""
    open_streams()
    threads.settle()
    heap.settle()


def as_process(main: Callable[[], int]) -> int:
    """Run `main` as the program of a process, and return its exit status; see `settle` for what comes before.

    Where nobody reads its output any more, as behind `head`, it ends as other programs do: in silence. A signal that
    ends it leaves no temporary files."""
    settle()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores one of them
            signal.signal(number, _ended)
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        status = NO_READER
    except OSError as error:
        what = "cannot write the output" if error.filename is None else str(error.filename)
        print(f"{what}: {error.strerror}", file=sys.stderr)
        status = 1
    finally:
        _flush()
    return status


def _ended(number: int, frame: FrameType | None) -> NoReturn:
    """End the program by an exception, as if the signal had ended it."""
    raise SystemExit(128 + number)


def _flush() -> None:
    """Write what waits for stdout, or drop it."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
