"""How to install the packages of an extra of this project."""

from __future__ import annotations

from importlib import metadata

__all__ = ["NAME", "install"]

NAME = "gadgetron-networks"


def install(extra: str) -> str:
    """Return the command that installs an extra. pip takes an installed project from where it is.

    Where the project runs from its folder, pip would ask a registry for another one of that name."""
    try:
        metadata.distribution(NAME)
    except metadata.PackageNotFoundError:
        return f"pip install '.[{extra}]' in the project's folder"
    return f"pip install '{NAME}[{extra}]'"
