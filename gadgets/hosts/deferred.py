"""Deferred scans: a quick series now, and the series of the slow chain when it is asked for.

The property `defer` of a pipeline, or the option of `serve`, names the quick chain. The scan stays in the spool, where
a resident server finds it; see `gadgets.hosts.worker`. Its images are handed over when the same scan is sent again, or
by the gadget `retrieve`.
"""

from __future__ import annotations

import filecmp
import logging
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path

from gadgets.chain import Chain
from gadgets.hosts.fitting import takes_images
from gadgets.hosts.keeping import Keeper
from gadgets.hosts.recording import open_recording
from gadgets.hosts.scan import Results, no_results
from gadgets.hosts.spool import Entry, Record, Spool, entries, held
from gadgets.received import annotated
from gadgets.speaker import GadgetError, IncompleteError
from mrnets.errors import InputError
from mrnets.mrd.lines import Item
from mrnets.mrd.xml import parse_xml

__all__ = ["deferred", "place_in_queue", "planned", "quick_chain", "results_in"]

QUICK = "cgsense"
MAX_MEASUREMENT = 200
"""Characters of a measurement ID in a record. A longer one is left out: two scans could share its beginning."""
_NO = ("", "no", "none", "false")

_logger = logging.getLogger(__name__)


def planned(chain: Chain, header: bytes, usual: str | None) -> Record:
    """Return the record of a scan that comes: a server that starts again must know that it is deferred.

    usual: as for `quick_chain`."""
    return Record(chain.source, _measurement(header), deferred=_quick_name(chain, usual) is not None)


def quick_chain(chain: Chain, keeper: Keeper, usual: str | None, named: Callable[[str], Chain]) -> Chain | None:
    """Return the chain for the quick series; None where the scan is not deferred.

    usual: the quick chain for chains with trained weights that do not say. named: gives a chain by its name.
    Raises InputError as `named` does."""
    name = _quick_name(chain, usual)
    if name is None:
        return None
    if keeper.entry is None:
        _logger.warning("%s runs at once: a scan can only be deferred where it is kept in a spool", chain.source)
        return None
    quick = named(name)
    if quick.stages != chain.stages:
        return quick
    keeper.record = replace(keeper.record, deferred=False)
    keeper.mark("coming", keeper.record)
    return None


def _quick_name(chain: Chain, usual: str | None) -> str | None:
    trained = any("weights" in stage.properties for stage in chain.stages)
    name = chain.options.get("defer", usual if trained and usual and not _labels(chain) else "").strip()
    return None if name.lower() in _NO else QUICK if name.lower() == "true" else name


def _labels(chain: Chain) -> bool:
    """Whether a chain labels images that are sent in, which no quick chain does."""
    try:
        return takes_images(chain)
    except InputError:  # weights that cannot be read, which the chain tells when the scan is kept
        return False


def deferred(keeper: Keeper, chain: Chain, quick: Chain, made: Callable[[str], Iterator[Item]]) -> Iterator[Item]:
    """Yield the quick series of a scan, and queue it for `chain`. One that came before gives what `chain` made of it.

    made: gives the items of the quick series, with a sentence in the comment of each image.
    Raises InputError at the end if the scan could not be kept after all, and what `made` raises."""
    how = "when the scan is sent again"
    if keeper.record.measurement:
        how += f", or by the chain retrieve.xml with the measurement ID {keeper.record.measurement}"
    items = made(f"quick series by {quick.source}; the better one by {chain.source} comes later: it is given {how}")
    if not _alike(keeper):
        yield from items
    elif (yield from _again(keeper, items)):
        return
    if keeper.entry is None or not keeper.entry.stream.exists():
        raise InputError(f"the scan could not be kept in the spool; the series by {chain.source} does not follow")
    keeper.end(None)


def _again(keeper: Keeper, items: Iterator[Item]) -> Generator[Item, None, bool]:
    """Yield the images that are there of a scan that came before, or else the quick series. Returns whether it came.

    items: the quick series. It is held back, since the end of a scan shows whether it is the same."""
    waiting: list[Item] = []
    failure = None
    try:
        for item in items:
            waiting.append(item)
    except (InputError, GadgetError) as error:
        failure = error
    before = next((one for one in _alike(keeper) if _same(one, keeper.entry)), None)
    if before is not None and before.state == "done" and not _readable(before):
        before = None
    if before is not None:
        keeper.drop()
    if before is not None and before.state == "done":
        yield from results(before)
        return True
    yield from waiting
    if failure is not None:
        raise failure
    return before is not None


def results_in(spool: Spool | None) -> Results:
    """Return the function that gives the items of a deferred scan by its measurement ID."""
    return no_results if spool is None else lambda measurement: _found(spool.folder, measurement)


def place_in_queue(entry: Entry) -> str:
    """Return in words where a queued entry stands. A lock says that somebody works on it."""
    with held(entry) as free:
        if not free:
            return "is being reconstructed"
    waiting = [one.name for one in entries(entry.folder) if one.state == "queued"]
    number = waiting.index(entry.name) + 1 if entry.name in waiting else 1
    return f"is number {number} of {max(len(waiting), number)} in the queue"


def results(entry: Entry) -> Iterator[Item]:
    """Yield the images that were made later. Raises IncompleteError at the end, if the scan lacks anything."""
    with open_recording(entry.images) as made:
        yield from made.items
    if reason := entry.record().reason:
        raise IncompleteError(reason)


def _found(folder: Path, measurement: str) -> Iterator[Item]:
    """Yield the images of the newest deferred scan with that measurement ID. Raises InputError if there are none."""
    wanted = measurement.strip()
    there = [(entry, record) for entry, record in _deferred(folder) if record.measurement == wanted != ""]
    if not there:
        raise InputError(f"there is no deferred scan with the measurement ID {measurement[:80]!r} in the spool")
    entry, record = there[0]
    if entry.state == "failed":
        raise InputError(f"the series of the scan {measurement!r} failed: {record.reason}")
    if entry.state != "done":
        raise InputError(f"the series of the scan {measurement!r} is not there yet: it {place_in_queue(entry)}")
    notes = [f"{len(there)} scans have this measurement ID; this is the newest"] if len(there) > 1 else []
    for item in results(entry):
        yield annotated(item, notes) if hasattr(item, "attribute_string") else item


def _deferred(folder: Path) -> Iterator[tuple[Entry, Record]]:
    """Yield deferred scans, the newest first."""
    for entry in reversed(entries(folder)):
        try:
            record = entry.record()
        except InputError as error:
            _logger.warning("%s: %s", entry.name, error)
            continue
        if record.deferred:
            yield entry, record


def _alike(keeper: Keeper) -> list[Entry]:
    """Return the deferred scans with the chain of this one, and the same configuration and header."""
    mine = keeper.entry
    if mine is None:
        return []
    try:
        chain = mine.chain.read_bytes()
    except OSError:  # somebody deleted it
        return []
    there = [entry for entry, _ in _deferred(mine.folder) if entry.state in ("queued", "done")]
    return [entry for entry in there if _starts(entry.chain, chain) and _starts(entry.stream, keeper.head)]


def _starts(path: Path, start: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(start)) == start
    except OSError:  # it was deleted meanwhile
        return False


def _same(one: Entry, other: Entry | None) -> bool:
    """Whether two scans have come with the same bytes."""
    try:
        return other is not None and filecmp.cmp(one.stream, other.stream, shallow=False)
    except OSError:
        return False


def _readable(entry: Entry) -> bool:
    """Whether the images that were made are all there. A power failure may have taken them."""
    try:
        for _ in results(entry):
            pass
    except IncompleteError:  # of the scan; it comes after the images
        pass
    except InputError as error:
        _logger.warning("%s is reconstructed again: %s", entry.name, error)
        return False
    return True


def _measurement(header: bytes) -> str:
    """Return the measurement ID in a header; none where there is none, or the header cannot be read."""
    try:
        found = parse_xml(header, "ISMRMRD header").findtext(".//{*}measurementInformation/{*}measurementID", "")
    except InputError:
        return ""
    return found.strip() if len(found) <= MAX_MEASUREMENT else ""
