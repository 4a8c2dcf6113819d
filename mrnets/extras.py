"""How to install the packages of an extra of this project."""

from __future__ import annotations

from importlib import metadata

__all__ = ["NAME", "install", "missing"]

NAME = "gadgetron-networks"
_OURS = ("gadgets", "mrnets", "training")


def install(extra: str) -> str:
    """Return the command that installs an extra. pip takes an installed project from where it is.

    Where the project runs from its folder, pip would ask a registry for another one of that name."""
    try:
        metadata.distribution(NAME)
    except metadata.PackageNotFoundError:
        return f"pip install '.[{extra}]' in the project's folder"
    return f"pip install '{NAME}[{extra}]'"


def missing(error: ModuleNotFoundError, extra: str) -> str:
    """Return the sentence on a package that is not installed, with the command that installs it.

    extra: what brings the packages of the program. Raises `error` again where the module is one of ours."""
    package = str(error.name).partition(".")[0]
    if package in _OURS:
        raise error
    return f"the Python package {package} is missing: {install(extra)}"
