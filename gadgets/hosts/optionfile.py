"""Options of a command in a TOML file: `--config FILE`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mrnets.errors import nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["add_config"]


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add `--config FILE`. The file has the names of the command's options, for example `per-address = 4`.

    Options behind `--config` on the command line come after those of the file, and so win."""
    parser.add_argument("--config", action=_Config, type=Path, metavar="FILE", help="options from this file (TOML)")


class _Config(argparse.Action):
    """Reads a file as if its options stood on the command line. Ends with status 2 for what cannot be an option."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        path = Path(str(values))
        known = [word for word in parser._option_string_actions if word.startswith("--") and word != option_string]
        words: list[str] = []
        for name, value in _read(parser, path).items():
            option = f"--{name.replace('_', '-')}"
            if option not in known:
                parser.error(f"{path}: there is no option {name!r}.{nearest(option, known)}")
            words += _words(option, value)
        parser.parse_args(words, namespace)


def _read(parser: argparse.ArgumentParser, path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        parser.error(f"cannot read {path}: {error.strerror or error}")
    except ValueError as error:  # no TOML, or no UTF-8
        parser.error(f"{path} is no TOML: {error}")


def _words(option: str, value: Any) -> list[str]:
    """Return an option as on the command line. true: without a value; false: not at all; a list: once for each."""
    if isinstance(value, list):
        return [word for each in value for word in _words(option, each)]
    if isinstance(value, bool):
        return [option] if value else []
    return [f"{option}={value}"]
