"""Networks and the physics they stand on.

    import mrnets
    made = mrnets.reconstruct(kspace, noise=noise)    # see `mrnets.api`
    made.image, made.notes

Nothing is imported before it is used: `mrnets.physics` and `mrnets.mrd` load without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrnets.api import Reconstruction, load, reconstruct

__all__ = ["Reconstruction", "__version__", "load", "reconstruct"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module("mrnets.api"), name)
    except ModuleNotFoundError as error:
        from mrnets.extras import missing

        raise ModuleNotFoundError(missing(error, "networks"), name=error.name) from error
