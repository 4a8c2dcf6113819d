"""The queue of the resident server: deferred scans in its spool, reconstructed one after another on each device.

The spool is the queue. So it outlives the server, and scans that other processes deferred there are found, too.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from dataclasses import replace
from typing import BinaryIO

from gadgets.chain import Chain
from gadgets.failures import told
from gadgets.gather import BusyError
from gadgets.hosts.dependencies import Dependencies
from gadgets.hosts.ending import ends_without_device
from gadgets.hosts.keeping import MAX_REASON
from gadgets.hosts.recording import open_recording
from gadgets.hosts.rules import Rules
from gadgets.hosts.scan import reconstructed
from gadgets.hosts.spool import Entry, Record, Spool, drafted, entries, held, make_room, mark
from gadgets.messages import Close, Header, Message
from gadgets.models import device_of
from gadgets.serialise import encode
from gadgets.speaker import IncompleteError
from mrnets.errors import InputError

__all__ = ["Worker", "work_on"]

LOOK = 1.0
"""Seconds between looks into the spool."""
MAX_ATTEMPTS = 3
"""Times that the reconstruction of a scan may end with the process."""
PATIENCE = 10.0
"""Seconds for reconstructions to stop."""

_logger = logging.getLogger(__name__)


class _StoppedError(Exception):
    """The server ends before the reconstruction does."""


class Worker:
    """Threads that work off the queue: one that looks, and one for each device while there is work for it."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._stopped = threading.Event()
        self._looking = threading.Thread(target=self._look, name="queue", daemon=True)
        self._devices: dict[str, threading.Thread] = {}
        self._complaint = ""
        """The last warning on the spool as a whole."""

    def start(self) -> None:
        """Begin, if there is a spool."""
        if self._rules.spool is not None:
            self._looking.start()

    def stop(self) -> None:
        """Begin nothing more, and stop at the next image. Scans that are not done stay in the queue."""
        self._stopped.set()

    def join(self) -> None:
        """Wait until the threads have stopped, each for a few seconds at most."""
        for thread in (self._looking, *self._devices.values()):
            if thread.ident is not None:
                thread.join(PATIENCE)

    def _look(self) -> None:
        spool = self._rules.spool
        while spool is not None and not self._stopped.wait(LOOK):
            try:
                self._begin(spool)
                self._complaint = ""
            except Exception as error:  # noqa: BLE001 the queue goes on, whatever it is
                self._complain(f"the queue cannot be read: {told(error)}")

    def _complain(self, words: str) -> None:
        """Log a warning, but not at every look."""
        if words != self._complaint:
            _logger.warning("%s", words)
        self._complaint = words

    def _begin(self, spool: Spool) -> None:
        """Start a thread for each device with work and without a thread."""
        for entry in entries(spool.folder):
            _take_up(entry)
        with suppress(OSError):  # it is full of scans that are needed
            make_room(spool, 0)
        for entry in entries(spool.folder):
            if entry.state == "queued" and not self._busy(device := _device(entry)):
                name = f"queue of {device}"
                thread = threading.Thread(target=self._work_off, args=(spool, device), name=name, daemon=True)
                self._devices[device] = thread
                thread.start()

    def _busy(self, device: str) -> bool:
        return device in self._devices and self._devices[device].is_alive()

    def _work_off(self, spool: Spool, device: str) -> None:
        """Reconstruct the queued scans of a device, the oldest first."""
        for entry in entries(spool.folder):
            if entry.state == "queued" and _device(entry) == device and not self._stopped.is_set():
                try:
                    work_on(entry, self._rules, self._stopped)
                except OSError as error:
                    self._complain(f"{entry.name}: {told(error)}")


def work_on(entry: Entry, rules: Rules, stopped: threading.Event) -> None:
    """Reconstruct a queued scan, unless somebody else does. Its images, or why there are none, are then in the spool.

    Raises OSError where the spool fails. Where the server stops meanwhile, or other scans take the memory, the scan
    stays queued. So it does where its CUDA device is lost, and the process gets SIGTERM."""
    with held(entry) as mine:
        if not (mine and entry.path("queued").exists()):
            return
        record = Record()
        try:
            record = entry.record()
            record = replace(record, attempts=record.attempts + 1)
            if record.attempts > MAX_ATTEMPTS:
                raise InputError(f"the server ended {MAX_ATTEMPTS} times while it reconstructed this scan")
            mark(entry, "queued", record)
            lacking = _write(entry, rules, stopped)
            mark(entry, "done", replace(record, reason=lacking))
            _logger.info("the images of %s are there", entry.name)
        except Exception as error:
            if isinstance(error, _StoppedError) or _is_busy(error):
                _logger.debug("%s waits: %s", entry.name, error)
                mark(entry, "queued", replace(record, attempts=record.attempts - 1))
                return
            _logger.error("%s: %s", entry.name, told(error), exc_info=_logger.isEnabledFor(logging.DEBUG))
            if ends_without_device():
                return
            mark(entry, "failed", replace(record, reason=told(error)[:MAX_REASON]))


def _is_busy(error: BaseException | None) -> bool:
    """Whether a reconstruction failed since other scans take the memory."""
    return error is not None and (isinstance(error, BusyError) or _is_busy(error.__cause__))


def _write(entry: Entry, rules: Rules, stopped: threading.Event) -> str:
    """Write the images of a scan, and return what the scan lacks. Raises what reconstructions raise."""
    record = entry.record()
    chain = Chain.parse(entry.chain.read_bytes(), record.chain or "chain")
    lacking = ""
    with open_recording(entry.stream) as source, drafted(entry.images) as file:
        _put(file, Header(bytes(source.header)))
        items = (item for item in source.items if not isinstance(item, str))
        try:
            for item in reconstructed(chain, items, source.header, source.notes, Dependencies(rules.noise)):
                if stopped.is_set():
                    raise _StoppedError("the server ends")
                if not isinstance(item, str):
                    _put(file, item)
        except IncompleteError as error:
            lacking = told(error)
        _put(file, Close())
    return lacking


def _put(file: BinaryIO, message: Message) -> None:
    for part in encode(message):
        file.write(part)


def _take_up(entry: Entry) -> None:
    """Queue a deferred scan whose host ended before it did so. A damaged record does not tell that."""
    with suppress(InputError):
        if entry.state == "coming" and entry.record().deferred:
            with held(entry) as mine:
                if mine and entry.path("coming").exists():
                    mark(entry, "queued", entry.record())


def _device(entry: Entry) -> str:
    """Return the device of the first network in the chain of an entry."""
    try:
        chain = Chain.parse(entry.chain.read_bytes())
        names = [stage.properties.get("device", "auto") for stage in chain.stages if stage.name == "network"]
        return str(device_of(names[0].strip())) if names else "cpu"
    except (InputError, OSError):  # the reconstruction says what is wrong
        return "cpu"
