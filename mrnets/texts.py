"""YAML that users write: bounded in size, of plain values, and one sentence where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mrnets.errors import InputError

__all__ = ["read_yaml", "yaml_of"]

MOST = 2**20
"""Characters of a file."""
LONGEST = 300
"""Characters of the reason why a text is not YAML."""


def read_yaml(path: str | Path) -> Any:
    """Return the value in a YAML file. Raises InputError: it cannot be read, or is not YAML, or too long."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(MOST + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not YAML: it is not UTF-8 text") from None
    if len(text) > MOST:
        raise InputError(f"{path} has more than {MOST} characters, which no recipe or configuration needs")
    return yaml_of(text, path)


def yaml_of(text: str, source: object) -> Any:
    """Return the value of YAML; `source` names it. Raises InputError."""
    import yaml

    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        # Numbers of thousands of digits, and values that do not suit their tags, are no YAMLError.
        reason = " ".join(str(error).split())[:LONGEST]
        raise InputError(f"{source} is not YAML ({reason})") from None
    if _is_large(value):
        raise InputError(f"{source} repeats its parts until they are more than {MOST} values and characters")
    return value


def _is_large(value: Any) -> bool:
    """Whether a value, in which each alias counts anew, has more than `MOST` values and characters."""
    left, size = [value], 1
    while left and size <= MOST:
        one = left.pop()
        if isinstance(one, dict | list | tuple | set | str):
            size += len(one)
        if isinstance(one, dict):
            left.extend(one.values())
        elif isinstance(one, list | tuple | set):
            left.extend(one)
    return size > MOST
