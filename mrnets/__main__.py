"""Networks and weights, described for people.

python -m mrnets list             shows the table of networks.
python -m mrnets show NETWORK     shows options, with their names in ATOMMIC's paper (ATOMMIC's own form: atommic.NAME).
python -m mrnets show WEIGHTS     shows the header of a weights file, or of a shipped one by its name.
python -m mrnets import-atommic CHECKPOINT -o WEIGHTS     makes a weights file of a network trained with ATOMMIC.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from mrnets import plugins, store
from mrnets.apart import Output, require_apart
from mrnets.atommic import PREFIX
from mrnets.commandline import as_process, check_command, program, refuse, with_examples
from mrnets.errors import InputError, nearest, printable
from mrnets.extras import missing

__all__ = ["main"]

PROGRAM = program("mrnets")
EXAMPLES = {
    "list": ("list", "list --quick"),
    "show": ("show varnet", "show l1varnet_general", "show weights.safetensors"),
    "import-atommic": (
        "import-atommic model.atommic -o weights.safetensors",
        "import-atommic state.ckpt --config model.yaml -o weights.safetensors",
    ),
}
_COILS, _SIZE = 8, 64
"""Coils and pixels of the slice that `list` measures. It is small, since time grows with the number of pixels."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0, or 1 after one sentence on the error stream."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    chosen = _options(given)
    try:
        if chosen.command == "list":
            print(_listed(quick=chosen.quick))
            print(*_registered(), sep="\n", end="")
        elif chosen.command == "show":
            plugins.allow(*chosen.allow)
            print(_told(chosen.what))
        else:
            print(_imported(chosen.checkpoint, chosen.output, chosen.config))
    except InputError as error:
        print(f"{PROGRAM}: {printable(str(error))}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"{PROGRAM}: {missing(error, 'networks')}", file=sys.stderr)
        return 1
    return 0


def _options(given: list[str]) -> argparse.Namespace:
    """Return the command and its options. Words that are none end the program with status 2."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=(__doc__ or "").partition("\n")[0],
        **with_examples(PROGRAM, [lines[0] for lines in EXAMPLES.values()]),
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = _command(commands, "list", "print the table of networks")
    listing.add_argument("--quick", action="store_true", help="leave out multiply-adds and seconds: runs no network")
    showing = _command(commands, "show", "print the options of a network, or the header of a weights file")
    showing.add_argument(
        "what", metavar="NAME", help="a network, the path of a .safetensors file, or the name of a shipped one"
    )
    showing.add_argument(
        "--allow", action="append", default=[], metavar="PACKAGE", help="may be imported for a network of its own"
    )
    importing = _command(commands, "import-atommic", "make a weights file of a network trained with ATOMMIC 1.0.1")
    importing.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="its .atommic archive, or a state dict with --config"
    )
    importing.add_argument("-o", "--output", metavar="WEIGHTS", required=True, help="the .safetensors file to write")
    importing.add_argument("--config", metavar="YAML", help="the settings, where CHECKPOINT is a state dict")
    asked = check_command(parser, given, EXAMPLES)
    chosen, rest = parser.parse_known_args(given)
    if rest:
        refuse(commands.choices[asked] if asked else parser, rest)
    return chosen


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", **with_examples(PROGRAM, EXAMPLES[name])
    )
    return parser


def _listed(*, quick: bool) -> str:
    from mrnets import measure

    header = ["name", "task", "parameters", *([] if quick else ["multiply-adds", "CPU seconds"]), "what (paper)"]
    rows = [header]
    for name in store.names():
        if not quick:
            print(f"\rrunning {name:<16}", end="", file=sys.stderr, flush=True)
        description = store.describe(name)
        cost = None if quick else measure.cost(name, coils=_COILS, size=_SIZE)
        rows.append(
            [
                name,
                description.task,
                f"{measure.parameters(name):,}",
                *([f"{cost.multiply_adds / 1e9:,.2f} G", f"{cost.seconds:.2f}"] if cost else []),
                f"{description.title} ({description.paper})",
            ]
        )
    if quick:
        return _table(rows)
    print(f"\r{'':<24}\r", end="", file=sys.stderr, flush=True)
    heading = (
        f"At the published options; multiply-adds and CPU seconds (one core) for one slice of {_SIZE} x {_SIZE}, of "
        f"{_COILS} coils\nwhere the network leaves their number open, of 4 echoes for maps. Both grow with the pixels."
    )
    return f"{heading}\n\n{_table(rows)}"


def _registered() -> list[str]:
    """Return the lines on networks that other packages have registered. They are not imported."""
    there = plugins.registered("network").items()
    return ["", *(f"{name} is of {plugins.provider(reference)}" for name, reference in there), ""] if there else []


def _table(rows: list[list[str]]) -> str:
    """Columns of equal width: the first two and the last to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numeric = range(2, len(widths) - 1)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in numeric else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _imported(checkpoint: str, output: str, config: str | None) -> str:
    from mrnets.atommic.checkpoint import import_atommic

    require_apart([Output("-o", Path(output))], [("the checkpoint", Path(checkpoint))])
    imported = import_atommic(checkpoint, output, config)
    return f"wrote {output}: {imported.name}, {sum(p.numel() for p in imported.network.parameters()):,} parameters"


def _told(what: str) -> str:
    """Return the text on a network or on a weights file. Raises InputError."""
    if what.removeprefix(PREFIX) in store.names() or plugins.find("network", what):
        return _described(what)
    try:
        return _shown(what)
    except InputError as error:
        raise InputError(f"{error}{nearest(what, store.names())}") from error


def _described(name: str) -> str:
    """The options of a network: default, and other names."""
    traits = store.describe(name)
    options = []
    for key, default in store.bind(name).items():
        others = [alias for alias, own in traits.names_of_options.items() if own == key and alias != key]
        options.append([key, _plain(default), f"also {', '.join(others)}" if others else ""])
    lines = [
        f"network      {name}",
        f"what         {traits.title} ({traits.paper})",
        f"task         {traits.task}",
        *([f"differs      {traits.differs}"] if traits.differs else []),
        *("", "options", *_columns(options)),
    ]
    if fixed := store.fixed_options(name):
        lines += ["", "no choice", *_columns([[key, _plain(value)] for key, value in fixed.items()])]
    return "\n".join(lines)


def _columns(rows: list[list[str]]) -> list[str]:
    """Rows with columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows] or ["  none"]


def _shown(weights: str) -> str:
    metadata = store.header(weights)
    tensors = metadata.pop("tensors")
    lines = [
        f"network      {metadata['network']}",
        f"parameters   {sum(math.prod(shape) for shape in tensors.values()):,} in {len(tensors)} tensors",
        f"version      {metadata['version']}",
    ]
    if package := metadata.get("package"):
        lines.insert(1, f"package      {_plain(package['name'])} {_plain(package['version'])}")
    for field in ("options", "preparation", "units", "labels", "provenance"):
        lines += ["", field, *_indented(metadata[field])]
    return "\n".join(lines)


def _indented(values: dict[str, Any] | list[Any]) -> list[str]:
    if not values:
        return ["  none"]
    pairs = enumerate(values) if isinstance(values, list) else values.items()
    return [f"  {key!s:<20} {_plain(value)}" for key, value in pairs]


def _plain(value: Any) -> str:
    """One line, and no control characters of a foreign file on the terminal."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else "?" for c in text)


def console() -> int:
    """Run the command line as the program of a process, before NumPy and torch are imported."""
    return as_process(main)


if __name__ == "__main__":
    sys.exit(console())
