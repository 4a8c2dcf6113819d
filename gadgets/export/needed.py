"""Libraries that an export needs and that may be absent."""

from __future__ import annotations

import importlib
from typing import Any

from mrnets.errors import InputError

__all__ = ["needed"]


def needed(module: str, what: str) -> Any:
    """Return the module that the format `what` needs. Raises InputError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = {"PIL": "Pillow"}.get(module.partition(".")[0], module)
        raise InputError(
            f"{what} needs {package}, which is not installed: pip install 'gadgetron-networks[export]'."
        ) from error
