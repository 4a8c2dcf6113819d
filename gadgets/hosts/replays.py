"""`python -m gadgets replay`: one scan, or many scans into a folder."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from gadgets.export import command as export
from gadgets.hosts import replay
from gadgets.hosts.folders import cluster, processes
from gadgets.hosts.folders.scans import Found, find, noise_first
from gadgets.hosts.folders.task import Outcome, Task, perform, weights_of
from gadgets.hosts.folders.told import progress, summary
from gadgets.hosts.library import load
from gadgets.hosts.reporting import Report
from mrnets.errors import Faults, InputError
from mrnets.files import make_folder

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m gadgets replay`."""
    replay.add_arguments(parser)
    several = parser.add_argument_group("many scans", "Files and folders, into the folder that -o names.")
    several.add_argument(
        "--jobs", type=int, metavar="N", help="reconstruct N scans at a time, each in a process (default 1)"
    )
    several.add_argument("--scheduler", metavar="ADDRESS", help="send the scans to the workers of a Dask scheduler")


def run(args: argparse.Namespace) -> int:
    """Replay what the options name, and return 1 where one of several scans failed. Raises InputError."""
    if not _several(args):
        return replay.run(args)
    first, rest = _planned(args)
    replay.tell_of_names(args)
    scans = {task.name: task.args.scans[0] for task in (*first, *rest)}
    begun = time.perf_counter()
    outcomes: list[Outcome] = []
    for outcome in _performed(first, rest, args):
        outcomes.append(outcome)
        if not args.quiet:
            print(progress(outcomes, len(scans), time.perf_counter() - begun), file=sys.stderr, flush=True)
    order = {name: number for number, name in enumerate(scans)}
    outcomes.sort(key=lambda one: order[one.name])
    failed = any(one.state == "failed" for one in outcomes)
    if failed or not args.quiet:
        print("\n".join(summary(outcomes, scans)), file=sys.stderr)
    return int(failed)


def _several(args: argparse.Namespace) -> bool:
    """Return whether images go into a folder, under the names of their scans."""
    out = args.outfile or ""
    into_folder = out.endswith("/") or (out != "" and Path(out).is_dir())
    folders = any(Path(name).is_dir() for name in args.scans)
    return len(args.scans) > 1 or folders or into_folder or args.jobs is not None or args.scheduler is not None


def _performed(first: Sequence[Task], rest: Sequence[Task], args: argparse.Namespace) -> Iterator[Outcome]:
    """Yield the outcomes. Noise is measured scan by scan, in order: of two with one measurement ID the later counts."""
    yield from processes.performed(first, perform, 1)
    if args.scheduler:
        yield from cluster.performed(rest, perform, args.scheduler)
    else:
        yield from processes.performed(rest, perform, args.jobs or 1)


def _planned(args: argparse.Namespace) -> tuple[list[Task], list[Task]]:
    """Return the tasks that come first, and the others. Raises InputError with all that is wrong with the options."""
    faults, found = Faults(), list[Found]()
    with faults.gathered():
        _require_options(args)
    with faults.gathered():
        Report.asked(args, made=Path(args.outfile or ".").resolve())
    export.require_packages(args, faults)
    with faults.gathered():
        export.require_use(args)
    with faults.gathered():
        found = find([*args.scans, *([args.filename] if args.filename else [])], Path(args.outfile or "."))
    with faults.gathered():
        for name in replay.chains_of(args):
            weights_of(load(name, args.set))
    faults.tell()
    make_folder(args.outfile)
    waves = noise_first(found, args.in_group.strip("/"))
    first, rest = ([Task(scan.name, _options(args, scan)) for scan in wave] for wave in waves)
    _require_apart([*first, *rest])
    return first, rest


def _require_options(args: argparse.Namespace) -> None:
    """Raise InputError for options that do not go with several scans."""
    if not args.outfile:
        raise InputError("Name a folder for the images of several scans: -o FOLDER.")
    if Path(args.outfile).exists() and not Path(args.outfile).is_dir():
        raise InputError(f"{args.outfile} is a file; the images of several scans go into a folder.")
    if args.profile:
        raise InputError("--profile is for one scan.")
    if args.jobs is not None and args.jobs < 1:
        raise InputError(f"--jobs must be at least 1, got {args.jobs}.")
    if args.jobs and args.scheduler:
        raise InputError("--jobs is for this machine, and --scheduler for a cluster; give one of them.")


def _options(args: argparse.Namespace, scan: Found) -> argparse.Namespace:
    """Return the options for one of several scans. Whatever is written has the scan's name in its own."""
    own = export.for_chain(args, scan.name)
    own.scans, own.filename, own.quiet = [str(scan.path)], None, True
    own.outfile = str(Path(args.outfile) / f"{scan.name}.h5")
    if args.report is not None:
        own.report = args.report.with_name(f"{args.report.stem}_{scan.name}{args.report.suffix}")
    return own


def _require_apart(tasks: Sequence[Task]) -> None:
    """Raise InputError where the images of two scans, or images and a scan, would be one file."""
    taken = {Path(task.args.scans[0]).resolve(): f"the scan {task.args.scans[0]}" for task in tasks}
    for task in tasks:
        for path in task.images:
            if (other := taken.setdefault(path.resolve(), f"of {task.name}")) != f"of {task.name}":
                raise InputError(f"{path} would be the images of {task.name}, and it is {other}; name another folder.")
        replay.require_outputs_apart(task.args, task.jobs)
