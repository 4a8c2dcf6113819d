"""Retrieve: the images that a server made later of a deferred scan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ismrmrd.xsd import ismrmrdHeader

from gadgets.gadget import gadget
from gadgets.messages import ResultQuery
from mrnets.errors import InputError
from mrnets.mrd.lines import Item

__all__ = ["retrieve"]


@gadget
def retrieve(stream: Iterable[Item], header: ismrmrdHeader, *, measurement: str | None = None) -> Iterator[Item]:
    """Ask the host for the images of a deferred scan, and leave out what comes in.

    measurement: the measurement ID of that scan; none: the one in the header.
    Raises InputError where neither says which scan is meant."""
    information = header.measurementInformation
    wanted = measurement or (information.measurementID if information else None)
    if not wanted:
        raise InputError("the header has no measurement ID; set retrieve.measurement to that of the deferred scan")
    yield ResultQuery(wanted)
    for _ in stream:
        pass
