"""One scan through a chain, alike in every host: warnings in the images' comments, start and end in the log."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import ismrmrd
from ismrmrd.xsd import ismrmrdHeader

from gadgets.chain import Chain, Watch, unwatched
from gadgets.hosts.dependencies import Dependencies
from gadgets.hosts.totals import TOTALS
from gadgets.messages import ResultQuery
from gadgets.speaker import Speech
from mrnets.errors import InputError, counted
from mrnets.mrd.header import read_header
from mrnets.mrd.lines import Item, Lines

__all__ = ["Results", "no_results", "reconstructed"]

Results: TypeAlias = Callable[[str], Iterator[Item]]

_logger = logging.getLogger(__name__)


def no_results(measurement: str) -> Iterator[Item]:
    """Raise InputError: there is no spool to look in."""
    raise InputError(f"no images of the scan {measurement!r} are here: only a host with a spool keeps deferred scans")


@dataclass
class _Counts:
    lines: int = 0
    images: int = 0
    slices: set[int] = field(default_factory=set)

    def coming(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield `items`, with their lines counted."""
        for item in items:
            if isinstance(item, Lines):
                self.lines += len(item)
                self.slices.update(item.headers["idx"]["slice"].tolist())
            yield item

    def __str__(self) -> str:
        return f"{counted(self.lines, 'line')} of {counted(len(self.slices), 'slice')}, {counted(self.images, 'image')}"


def reconstructed(
    chain: Chain,
    items: Iterable[Item],
    header: object,
    warnings: tuple[str, ...] = (),
    noise: Dependencies | None = None,
    clock: Callable[[], float] = time.monotonic,
    watch: Watch = unwatched,
    results: Results = no_results,
) -> Iterator[Item]:
    """Return the items that `chain` makes of a scan.

    header: its ISMRMRD header as it came.
    warnings: further sentences for the comment of each image.
    noise: the store with noise of other scans. The noise of a scan that measures nothing else is kept there. None: no
    store.
    watch: as for `Chain.run`.
    results: gives the items of a deferred scan, by its measurement ID.

    Raises InputError for the header at once, and InputError and GadgetError later as `Chain.run` does."""
    reading = read_header(header).logged()
    noise = noise or Dependencies()
    other = noise.found(reading.header) if chain.has("noise") else None
    noted = chain.options.get("notes")
    speech = Speech.of((*([noted] if noted else ()), *warnings, *reading.warnings))
    items = noise.watched(itertools.chain([] if other is None else [other], items), reading.header)
    return _answered(_run(chain, items, reading.header, speech, noise, clock, watch), results)


def _answered(items: Iterator[Item], results: Results) -> Iterator[Item]:
    """Yield `items` with the images of deferred scans that are asked for."""
    for item in items:
        if isinstance(item, ResultQuery):
            yield from results(item.measurement)
        else:
            yield item


def _with_noise_kept(items: Iterator[Item], noise: Dependencies) -> Iterator[Item]:
    """Yield `items`. A scan that only measures noise, which is kept, needs no images."""
    try:
        yield from items
    except InputError as error:
        if noise.lost:
            raise InputError(f"the scan measures noise only, which is not kept: {noise.lost}") from error
        if not noise.kept:
            raise
        _logger.info("the noise of the scan %s is kept; it has no images", noise.kept)


def _run(
    chain: Chain,
    items: Iterable[Item],
    header: ismrmrdHeader,
    speech: Speech,
    noise: Dependencies,
    clock: Callable[[], float],
    watch: Watch,
) -> Iterator[Item]:
    counts, begun = _Counts(), clock()
    _logger.info("scan begins: protocol %s, %s", _protocol(header), chain.source)
    TOTALS.add(begun=1)
    outcome = "fails"
    try:
        for item in _with_noise_kept(chain.run(counts.coming(items), header, speech, watch), noise):
            counts.images += isinstance(item, ismrmrd.Image)
            yield item
        outcome = "ends"
    finally:
        seconds = clock() - begun
        TOTALS.add(ended=outcome == "ends", failed=outcome == "fails", seconds=seconds, warnings=speech.warnings)
        TOTALS.add(lines=counts.lines, images=counts.images)
        _logger.info("scan %s: %s, %.1f s, %d warnings", outcome, counts, seconds, speech.warnings)


def _protocol(header: ismrmrdHeader) -> str:
    information = header.measurementInformation
    return repr((information.protocolName or "")[:80]) if information is not None else "unnamed"
