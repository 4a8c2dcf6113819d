"""Finding chains: files, and the chains that ship with the project."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

import gadgets
from gadgets.chain import Chain
from mrnets.errors import Faults, InputError, nearest

__all__ = ["find", "folder", "is_shipped", "load", "shipped"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def folder() -> Path:
    """Where the shipped chains are: beside the packages in a checkout, under share/gadgetron/config when installed."""
    checkout = Path(gadgets.__file__).parent.parent / "chains"
    return checkout if checkout.is_dir() else Path(sys.prefix) / "share" / "gadgetron" / "config"


def shipped(name: str, chains: Path | None = None) -> tuple[bytes, str]:
    """Return the text of the chain `name` (with or without .xml) in the folder `chains`, and how to call it.

    Never looks outside that folder. Raises InputError that lists the chains there are."""
    chains = chains or folder()
    path = _path(name, chains)
    if path is not None:
        return path.read_bytes(), f"chain {path.name}"
    there = sorted(path.name for path in chains.glob("*.xml"))
    hint = nearest(name[:80].removesuffix(".xml"), [chain.removesuffix(".xml") for chain in there])
    raise InputError(f'There is no chain "{name[:80]}"; there are: {", ".join(there) or "none"}.{hint}')


def is_shipped(name: str, chains: Path) -> bool:
    """Return whether there is a chain `name` (with or without .xml) in the folder `chains`."""
    return _path(name, chains) is not None


def _path(name: str, chains: Path) -> Path | None:
    candidate = name if name.endswith(".xml") else f"{name}.xml"
    return chains / candidate if _NAME.fullmatch(candidate) and (chains / candidate).is_file() else None


def find(name: str) -> tuple[bytes, str]:
    """Return the text of the chain in the file `name`, or of the shipped chain of that name, and how to call it.

    Raises InputError where there is no such chain, with the nearest name."""
    path = Path(name)
    if path.is_file():
        return path.read_bytes(), f"chain {name}"
    if path.name != name:
        beside = [one.name for one in path.parent.glob("*.xml")] if path.parent.is_dir() else []
        raise InputError(f"There is no chain file {name}.{nearest(path.name, beside)}")
    return shipped(name)


def load(name: str, settings: Iterable[str] = ()) -> Chain:
    """Return the chain `name` (see `find`) with "gadget.property=value" settings. Raises InputError."""
    text, source = find(name)
    chain, faults = Chain.parse(text, source), Faults()
    for setting in settings:
        with faults.gathered():
            key, equals, value = setting.partition("=")
            if not equals or "." not in key:
                raise InputError(f'--set {setting}: "gadget.property=value" was expected.')
            chain = chain.set(key, value)
    faults.tell()
    return chain
