"""Noise across scans: what a scan that only measures noise tells the scans that depend on it.

The header of such a scan names the other in a measurementDependency of type Noise.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import ismrmrd
import numpy as np
from ismrmrd.xsd import ismrmrdHeader

from gadgets.hosts.recording import open_recording
from gadgets.messages import DependencyQuery
from gadgets.speaker import warn
from mrnets.errors import InputError, naming
from mrnets.mrd.flags import Flag, has_flag
from mrnets.mrd.header import read_header
from mrnets.mrd.lines import Item, Lines
from mrnets.mrd.noise import Noise, NoiseScan
from mrnets.mrd.noise_store import Record, Store, decoded, dependency, encoded, fitting, named, own, record
from mrnets.mrd.xml import parse_xml

__all__ = ["Dependencies", "asked_noise", "noise_in", "noise_summary"]

_PREFIX = "GadgetronNoiseCovarianceMatrix_"
"""Clients still put it before a measurement ID. It began the names of files in which Gadgetron kept noise."""

_logger = logging.getLogger(__name__)


@dataclass
class Dependencies:
    """The noise of other scans for one scan, and the noise of this one for others."""

    store: Store | None = None
    """The place of other scans' noise, and for this scan's if it measures nothing else. None: there is no place."""
    given: Record | None = None
    """Noise that the user gave by hand."""
    kept: str = ""
    """The measurement ID of this scan, if it measured noise only, and that was kept."""
    lost: str = ""
    """Why the noise of this scan was not kept, if it measured noise only."""
    _known: Record | None = None
    _doubt: str = ""
    """Why the noise of the other scan is not used."""
    _measured: NoiseScan = field(default_factory=NoiseScan)
    _images: bool = False
    """Whether a line came that measures no noise."""

    def found(self, header: ismrmrdHeader) -> Noise | None:
        """Return the noise of the other scan; None where there is none, or none that can be used.

        Raises InputError for noise that was given by hand, and does not fit."""
        key = dependency(header)
        name = "that was given" if self.given else f"of the scan {key.measurement}" if key else ""
        try:
            self._known = self.given or self._looked_up(header)
            if self._known is not None:
                noise = fitting(self._known, header)
                _logger.info("the noise %s is used", name)
                return noise
            self._doubt = f"the noise {name} is not known here" if key else ""
        except InputError as error:
            if self.given:
                raise InputError(f"the noise that was given does not fit: {error}") from error
            self._doubt = f"the noise {name} is not used: {error}"
        return None

    def _looked_up(self, header: ismrmrdHeader) -> Record | None:
        key = dependency(header)
        blob = self.store.get(key) if key and self.store else None
        return None if blob is None else decoded(blob)

    def watched(self, items: Iterable[Item], header: ismrmrdHeader) -> Iterator[Item]:
        """Yield `items`, dependency queries answered. Their noise is kept if they measure nothing else."""
        for item in items:
            if isinstance(item, Lines) and not self._images:
                self._watch(item)
            yield self.answered() if isinstance(item, DependencyQuery) else item
        if self._measured.lines:
            self._keep(header)

    def _watch(self, lines: Lines) -> None:
        if has_flag(lines.headers, Flag.IS_NOISE_MEASUREMENT).all():
            self._measured.add(lines)
            return
        if self._doubt and self._measured.lines:
            _logger.info("%s; the scan has noise lines of its own", self._doubt)
        elif self._doubt:
            warn(self._doubt, log=_logger)
        self._images, self._measured = True, NoiseScan()

    def _keep(self, header: ismrmrdHeader) -> None:
        self._known, key = record(self._measured, header), own(header)
        if self.store is None or key is None:
            self.lost = "there is no place for it" if self.store is None else "the header has no measurement ID"
            return
        try:
            self.store.put(key, encoded(self._known))
            self.kept = key.measurement
        except InputError as error:
            self.lost = str(error)

    def answered(self) -> DependencyQuery:
        """Return what Gadgetron answers to a dependency query: what is known of the noise."""
        return _summary(self._known)


def asked_noise(configuration: bytes) -> str | None:
    """Return the measurement ID of which a configuration asks for the noise; None where it asks for something else.

    gadgetron_ismrmrd_client asks so before it sends a scan that depends on another one. Its chain is Gadgetron's own
    NoiseSummaryGadget, with the ID in the property noise_file. Neither a header nor items follow."""
    try:
        root = parse_xml(configuration, "configuration")
    except InputError:
        return None
    for gadget in root.iter("gadget"):
        if gadget.findtext("classname", "").strip() == "NoiseSummaryGadget":
            given = {node.findtext("name", "").strip(): node.findtext("value", "") for node in gadget.iter("property")}
            return given.get("noise_file", "").strip().removeprefix(_PREFIX)
    return None


def noise_summary(store: Store | None, measurement: str) -> DependencyQuery:
    """Return what Gadgetron answers to the question for the noise of a scan: how strong it is, or that it failed."""
    try:
        blob = store.get(named(measurement)) if store and measurement else None
        return _summary(None if blob is None else decoded(blob))
    except InputError as error:
        _logger.warning("the noise of the scan %s is not known: %s", measurement[:80], error)
        return _summary(None)


def _summary(known: Record | None) -> DependencyQuery:
    meta = ismrmrd.Meta(status="failed")
    if known is not None:
        sigma = np.sqrt(np.diagonal(known.noise.covariance).real)
        sizes = {"min_sigma": sigma.min(), "max_sigma": sigma.max(), "mean_sigma": sigma.mean()}
        meta = ismrmrd.Meta({name: f"{value:g}" for name, value in sizes.items()})
        meta.update(noise_dwell_time_us=f"{known.noise.dwell:g}", channels=str(len(sigma)), status="success")
    return DependencyQuery(meta.serialize().encode())


def noise_in(path: str | Path) -> Record:
    """Return the noise in a file: a scan with noise lines, or a covariance as storage servers keep it.

    Raises InputError for another file, and for a scan without noise lines."""
    with naming(path):
        if Path(path).is_file():
            with open(path, "rb") as file:
                if file.read(6) == b"SFNDAM":
                    return decoded(Path(path).read_bytes())
        with open_recording(path) as source:
            scan = NoiseScan()
            for item in source.items:
                if not isinstance(item, Lines):
                    continue
                if not has_flag(item.headers, Flag.IS_NOISE_MEASUREMENT).all():
                    break
                scan.add(item)
            if not scan.lines:
                raise InputError("has no noise measurement before its first imaging line")
            return record(scan, read_header(source.header).logged(path).header)
