"""Libraries that an export needs and that may be absent."""

from __future__ import annotations

import importlib.util
from typing import Any

from mrnets.errors import InputError
from mrnets.extras import install

__all__ = ["is_there", "needed"]


def is_there(module: str) -> bool:
    """Return whether a module is installed that an export can do without."""
    return importlib.util.find_spec(module) is not None


def needed(module: str, what: str, extra: str = "export") -> Any:
    """Return the module that the format `what` needs. Raises InputError that says how to install it by `extra`."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = {"PIL": "Pillow"}.get(module.partition(".")[0], module)
        raise InputError(f"{what} needs {package}, which is not installed: {install(extra)}.") from error
