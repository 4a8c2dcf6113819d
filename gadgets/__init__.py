"""The streaming side: gadgets for ISMRMRD streams, and the hosts that run chains of them.

`gadgets.pipeline` is what a chain's `<execute name="gadgets" target="pipeline" type="python"/>` runs.
`gadgets.run` is what a gadget runs that stands alone: `<execute name="gadgets.noise" target="noise" type="python"/>`.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name in ("pipeline", "run"):  # on demand: only Gadgetron's external process needs `gadgetron`
        from gadgets.hosts import external

        return getattr(external, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
