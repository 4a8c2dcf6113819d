"""`python -m gadgets chains` and `python -m gadgets gadgets`: all that there are, from their files and signatures."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator

from gadgets.chain import Stage
from gadgets.gadget import lookup
from gadgets.gadget import names as gadgets_there
from gadgets.hosts.fitting import names as chains_there
from gadgets.hosts.library import find, load
from mrnets import plugins
from mrnets.errors import InputError

__all__ = ["add_arguments", "described", "run", "told_chain", "told_gadget"]

_COMMENT = re.compile(r"<!--(.*?)-->", re.DOTALL)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of both commands."""
    parser.add_argument("name", nargs="?", help="only this one")


def run(args: argparse.Namespace) -> int:
    """Print chains or gadgets. Raises InputError for a name that does not exist."""
    told = told_chain if args.command == "chains" else told_gadget
    there = chains_there() if args.command == "chains" else gadgets_there()
    for name in [args.name] if args.name else there:
        print("\n".join(told(name)), end="\n\n")
    for name, reference in plugins.registered("gadget").items() if args.command == "gadgets" and not args.name else ():
        print(f"{name}\n    of {plugins.provider(reference)}", end="\n\n")
    return 0


def told_chain(name: str) -> Iterator[str]:
    """Yield the lines on a chain: its meaning, and its gadgets with the properties that it sets."""
    text, _ = find(name)
    yield name.removesuffix(".xml")
    found = _COMMENT.search(text.decode("utf-8", "replace"))
    if found:
        yield from _indented(found[1].strip().partition("\n\n")[0])
    try:
        yield f"    gadgets: {', '.join(map(described, load(name).stages))}"
    except InputError as error:
        yield f"    {error}"


def described(stage: Stage) -> str:
    """Return a gadget of a chain with the properties that it sets."""
    given = ", ".join(f"{name}={value}" for name, value in stage.properties.items())
    return f"{stage.name} ({given})" if given else stage.name


def told_gadget(name: str) -> Iterator[str]:
    """Yield the lines on a gadget: its docstring, and its properties with types and defaults."""
    gadget = lookup(name)
    yield name
    yield from _indented(inspect.cleandoc(gadget.__doc__ or ""))
    for wanted in gadget.properties.values():
        default = "needed" if wanted.default is inspect.Parameter.empty else f"default {_shown(wanted.default)}"
        yield f"    {name}.{wanted.name}: {wanted} ({default})"


def _shown(value: object) -> str:
    """Return a default as a chain gives it."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return str(value) if value != "" else "empty"


def _indented(text: str) -> Iterator[str]:
    return (f"    {line.strip()}".rstrip() for line in text.splitlines())
