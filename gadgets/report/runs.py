"""One chain's run over the scan, as the report takes it."""

from __future__ import annotations

from dataclasses import dataclass

from gadgets.export.contents import Contents
from gadgets.report.looks import Recorder

__all__ = ["Run"]


@dataclass(frozen=True)
class Run:
    """The images of one chain, and what was seen while it ran."""

    name: str
    contents: Contents
    gadgets: str = ""
    """The gadgets of the chain and their properties, in a line."""
    recorder: Recorder | None = None
    """None: images that no chain made, such as a reference."""
    note: str = ""
    """A line below the name, such as a score."""
    lacking: str = ""
    """A sentence on missing parts of the scan."""
