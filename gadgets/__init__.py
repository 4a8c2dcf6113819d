"""The streaming side: gadgets for ISMRMRD streams, and the hosts that run chains of them.

`gadgets.pipeline` is what a chain's `<execute name="gadgets" target="pipeline" type="python"/>` runs.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "pipeline":  # on demand: everything but Gadgetron's external process does without `gadgetron`
        from gadgets.hosts.external import pipeline

        return pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
