"""The streaming side: gadgets for ISMRMRD streams, and the hosts that run chains of them.

`gadgets.pipeline` is what a chain's `<execute name="gadgets" target="pipeline" type="python"/>` runs.
`gadgets.run` is what a gadget runs that stands alone: `<execute name="gadgets.noise" target="noise" type="python"/>`.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from mrnets import __version__ as __version__


def __getattr__(name: str) -> Any:
    if name in ("pipeline", "run"):  # on demand: only Gadgetron's external process needs `gadgetron`
        from gadgets.hosts import external

        return getattr(external, name)
    if _is_target(name):  # misspelt: Gadgetron is told, where gadgetron-python would end without a word
        from gadgets.hosts.external import execute

        return lambda connection: execute(connection, __name__, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _is_target(name: str) -> bool:
    """Whether gadgetron-python's program asks for `name`, which is no module here."""
    program = getattr(sys.modules["__main__"], "__spec__", None)
    started = program is not None and program.name == "gadgetron.__main__"
    return started and not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is None
