"""Networks, gadgets, readers and losses of other packages, and what of them may be imported.

A package registers them by name, as entry points of the groups `GROUPS`. A reference "package.module:object" names one
without that. No module of another package is imported before `allow` has named it. The operator of a scanner does that
by `--allow PACKAGE`, and whoever trains by naming a network of that package. No weights file, chain or client can.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

from mrnets.errors import InputError

__all__ = ["GROUPS", "Kind", "Provider", "allow", "allowing", "find", "is_reference", "load", "provider", "registered"]

Kind = Literal["network", "gadget", "reader", "loss"]
GROUPS: dict[Kind, str] = {
    "network": "gadgetron_networks.networks",
    "gadget": "gadgetron_networks.gadgets",
    "reader": "gadgetron_networks.readers",
    "loss": "gadgetron_networks.losses",
}
"""The groups of entry points."""
MAX_NAME = 200
"""Characters of a reference."""
_PACKAGE = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*", re.ASCII)
_REFERENCE = re.compile(rf"({_PACKAGE.pattern}):([A-Za-z]\w*)", re.ASCII)
"""No part begins with an underscore: `__main__` would run a program."""

_allowed: set[str] = set()


@dataclass(frozen=True)
class Provider:
    """The distribution that a module belongs to."""

    name: str
    version: str
    """Empty: it says none."""

    def __str__(self) -> str:
        return f"{self.name} {self.version}".rstrip()


def allow(*packages: str) -> None:
    """Let this process import from these packages, or modules, from now on. Raises InputError for what is no name."""
    for package in packages:
        if not _PACKAGE.fullmatch(package):
            raise InputError(f"{package[:MAX_NAME]!r} is no name of a Python package, such as example or example.nets")
    _allowed.update(packages)


@contextmanager
def allowing(*packages: str) -> Iterator[None]:
    """Allow packages within a block."""
    before = set(_allowed)
    allow(*packages)
    try:
        yield
    finally:
        _allowed.clear()
        _allowed.update(before)


def is_reference(name: str) -> bool:
    """Return whether a name is "package.module:object", and no registered one."""
    return ":" in name


def registered(kind: Kind) -> dict[str, str]:
    """Return the names that installed packages have registered, to their references. Nothing is imported."""
    found = ((one.name, one.value.replace(" ", "")) for one in metadata.entry_points(group=GROUPS[kind]))
    return dict(sorted(found))


def find(kind: Kind, name: str) -> str | None:
    """Return the reference of a registered name, or `name` if it is one; None: no package has registered it.

    Nothing is imported. Raises InputError for a malformed reference, and for a name that two packages have registered.
    """
    if is_reference(name):
        return _checked(name, f"the {kind} {name[:MAX_NAME]!r}")
    there = {one.value.replace(" ", "") for one in metadata.entry_points(group=GROUPS[kind], name=name)}
    if len(there) > 1:
        raise InputError(f"the {kind} {name!r} is registered twice, as {' and as '.join(sorted(there))}")
    return _checked(there.pop(), f"the {kind} {name!r}") if there else None


def load(kind: Kind, name: str) -> Any:
    """Return the object that a reference or a registered name stands for.

    Raises InputError for one that nobody has registered, that is not allowed, and that cannot be imported. Whether a
    package is there is only told of an allowed one.
    """
    reference = find(kind, name)
    if reference is None:
        raise InputError(f"no installed package has registered the {kind} {name[:MAX_NAME]!r}")
    module, _, attribute = reference.partition(":")
    if not any(f"{module}.".startswith(f"{one}.") for one in _allowed):
        package = module.partition(".")[0]
        raise InputError(
            f"the {kind} {name} is code of the package {package}, which is not allowed here; "
            f"--allow {package} allows it, or in Python mrnets.plugins.allow({package!r})"
        )
    try:
        imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever the module does when it is imported
        reason = " ".join(str(error).split())
        raise InputError(f"the {kind} {name} cannot be imported: {type(error).__name__}: {reason}") from error
    if not hasattr(imported, attribute):
        raise InputError(f"the module {module} has no {attribute}, which the {kind} {name} should be")
    return getattr(imported, attribute)


def provider(reference: str) -> Provider:
    """Return the distribution that the module of a reference belongs to; a module of none is its own."""
    package = reference.partition(":")[0].partition(".")[0]
    for group in GROUPS.values():
        for one in metadata.entry_points(group=group):
            if one.value.replace(" ", "") == reference and one.dist is not None:
                return Provider(one.dist.name, one.dist.version)
    for name in metadata.packages_distributions().get(package, ()):
        return Provider(name, metadata.version(name))
    return Provider(package, str(getattr(sys.modules.get(package), "__version__", "")))


def _checked(reference: str, what: str) -> str:
    if len(reference) > MAX_NAME or not _REFERENCE.fullmatch(reference):
        raise InputError(f'{what} must be like "package.module:object", without names that begin with an underscore')
    return reference
