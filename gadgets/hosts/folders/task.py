"""One scan of a folder, with whatever is made of it. This is what worker processes do."""

from __future__ import annotations

import argparse
import io
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from gadgets.chain import Chain
from gadgets.export import command as export
from gadgets.export.contents import read_contents
from gadgets.failures import told
from gadgets.hosts import replay
from gadgets.hosts.folders.record import (
    Record,
    digest,
    digest_of_file,
    place_of,
    read_record,
    stamp,
    write_record,
)
from gadgets.hosts.library import load
from gadgets.hosts.log import name_gadgets
from gadgets.hosts.permission import permit
from gadgets.hosts.recording import open_recording
from gadgets.speaker import IncompleteError
from mrnets import __version__
from mrnets.errors import InputError
from mrnets.mrd.header import read_header
from mrnets.mrd.noise_store import dependency
from mrnets.weightsfile import located

__all__ = ["Outcome", "State", "Task", "perform", "weights_of"]

State = Literal["done", "before", "noise", "failed"]
MAX_WARNINGS = 8
"""Distinct warnings of a scan that are told; all stand in the comments of its images."""


@dataclass(frozen=True)
class Task:
    """A scan, and the options of `replay` for it alone."""

    name: str
    args: argparse.Namespace

    @property
    def jobs(self) -> dict[str, argparse.Namespace]:
        """The options for each chain."""
        return replay.for_chains(self.args, replay.chains_of(self.args))

    @property
    def images(self) -> list[Path]:
        """The image file of each chain."""
        return [Path(job.outfile) for job in self.jobs.values()]


@dataclass(frozen=True)
class Outcome:
    """The end of a task."""

    name: str
    state: State
    """done; before: it was done before; noise: its noise is kept, and it has no images; failed."""
    reason: str = ""
    """Why it failed, in a sentence."""
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0


def perform(task: Task) -> Outcome:
    """Replay a scan unless that was done before. A failure is an outcome, too."""
    begun = time.perf_counter()
    with _heard() as warnings, redirect_stderr(io.StringIO()) as said:
        try:
            state, reason = _performed(task)
        except Exception as error:  # noqa: BLE001 the other scans are not to be lost
            state, reason = "failed", told(error) + _of_before(task)
    if state != "noise":  # that is all that it says
        warnings.update(dict.fromkeys(said.getvalue().splitlines()))
    return Outcome(task.name, state, reason, tuple(warnings)[:MAX_WARNINGS], time.perf_counter() - begun)


def _of_before(task: Task) -> str:
    """Return a warning of images that an earlier replay has made, and that look like those of this one."""
    with suppress(InputError):
        there = [str(path) for path in task.images if path.exists()]
        if there and read_record(place_of(Path(task.args.outfile).parent, task.name)) is not None:
            return f" ({', '.join(there)}: of an earlier run)"
    return ""


def _performed(task: Task) -> tuple[State, str]:
    permit(task.args.allow)  # a worker may be another process
    place = place_of(Path(task.args.outfile).parent, task.name)
    record = read_record(place)
    now = _now(task, record or Record())
    formats = {form: name for job in task.jobs.values() for form, name in _formats(job).items()}
    if record is not None and record.is_of(now) and record.has(task.images) and _reported(task.args):
        _export_rest(task, record.formats)
        write_record(place, replace(record, stamp=now.stamp, formats=tuple({*record.formats, *formats})))
        return ("failed", record.lacking) if record.lacking else ("before", "")
    if record is None:
        _refuse_others(task)
    write_record(place, now)
    lacking = ""
    try:
        replay.run(task.args)
    except IncompleteError as error:
        lacking = str(error)
    if not all(path.is_file() for path in task.images):
        return "noise", ""
    made = {path.name: digest_of_file(path) for path in task.images}
    write_record(place, replace(now, images=made, formats=tuple(formats), lacking=lacking))
    return ("failed", lacking) if lacking else ("done", "")


def _now(task: Task, before: Record) -> Record:
    """Return the record with which a task begins. Raises InputError for files that cannot be read."""
    args, path = task.args, Path(task.args.scans[0])
    chains = {name: load(name, args.set) for name in task.jobs}
    settings = digest(
        {name: chain.xml().decode() for name, chain in chains.items()},
        [weights_of(chain) for chain in chains.values()],
        digest_of_file(Path(args.noise)) if args.noise else _noise_of_another(args, path),
        [args.in_group, args.out_group, __version__],
    )
    current = stamp(path)
    scan = before.scan if current == before.stamp and before.scan else digest_of_file(path)
    return Record(current, scan, settings)


def weights_of(chain: Chain) -> list[str]:
    """Return the digests of the weights in a chain. Raises InputError for weights that are not there."""
    properties = (stage.properties for stage in chain.stages)
    return [digest_of_file(located(one["weights"])) for one in properties if "weights" in one]


def _noise_of_another(args: argparse.Namespace, path: Path) -> str:
    """Return the digest of the noise that is known for a scan; empty: it depends on none, or that is not known yet."""
    store = replay.noise_store(args)
    with open_recording(path, args.in_group.strip("/")) as recording:
        key = dependency(read_header(recording.header).header)
    blob = None
    with suppress(InputError):  # the scan is reconstructed without it, and says so
        blob = store.get(key) if store and key else None
    return "" if blob is None else digest(blob.hex())


def _formats(job: argparse.Namespace) -> dict[str, str]:
    """Return the formats that the options for one chain ask for: each with its place, and its name."""
    anonymous = " anonymous" if job.anonymous else ""
    return {f"{name} {place}{anonymous}": name for name, place in export.places(job).items()}


def _export_rest(task: Task, there: tuple[str, ...]) -> None:
    """Write images that are whole in the formats in which they are not yet `there`. Raises InputError."""
    for job in task.jobs.values():
        rest = argparse.Namespace(**vars(job))
        for form, name in _formats(job).items():
            if form in there and export.is_there(name, getattr(job, name)):
                setattr(rest, name, None)
        if export.asked(rest):
            export.export(read_contents(job.outfile, job.out_group.strip("/")), rest)


def _reported(args: argparse.Namespace) -> bool:
    return args.report is None or args.report.is_file()


def _refuse_others(task: Task) -> None:
    """Raise InputError where a file that no replay of a folder has made is in the place of an image file."""
    for path in task.images:
        if path.exists():
            raise InputError(f"{path} is there, and no replay of a folder has made it; move it, or name another folder")


class _Ear(logging.Handler):
    """Keeps the messages of a log, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.found) < MAX_WARNINGS:
            self.found[record.getMessage()] = None


@contextmanager
def _heard() -> Iterator[dict[str, None]]:
    """Yield the warnings that are logged inside, each once. They are not printed."""
    ear, root = _Ear(), logging.getLogger()
    before, level = root.handlers, root.level
    root.handlers = [ear]
    root.setLevel(logging.WARNING)
    name_gadgets()
    try:
        yield ear.found
    finally:
        root.handlers = before
        root.setLevel(level)
