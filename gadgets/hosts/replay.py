"""Replay a scan from an ISMRMRD file through one or several chains, in this process: no server, the same images."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from gadgets.chain import Watch, unwatched
from gadgets.export import command as export
from gadgets.export.contents import read_contents
from gadgets.hosts import reporting
from gadgets.hosts.dependencies import Dependencies, noise_in
from gadgets.hosts.library import load
from gadgets.hosts.recording import open_recording
from gadgets.hosts.reporting import Report
from gadgets.hosts.scan import reconstructed
from gadgets.hosts.storage import default_store, store_of
from gadgets.imagefiles import ImageFile, write_images
from gadgets.kernels import traced
from gadgets.messages import DependencyQuery
from gadgets.profile import Profile
from gadgets.report.looks import Recorder
from gadgets.speaker import IncompleteError
from mrnets.apart import Output, require_apart
from mrnets.errors import Faults, InputError, counted, naming
from mrnets.mrd.lines import Item, Lines
from mrnets.mrd.noise_store import Store
from mrnets.weightsfile import located

__all__ = [
    "add_arguments",
    "chains_of",
    "for_chains",
    "noise_store",
    "replay",
    "require_outputs_apart",
    "run",
    "tell_of_names",
]

DEFAULT = "reconstruct.xml"
"""The chain, where none is named."""
DEFAULT_OUT = "out.h5"
"""The image file, where none is named."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m gadgets replay`; short ones as in gadgetron_ismrmrd_client."""
    parser.add_argument("scans", nargs="*", metavar="SCAN", help="ISMRMRD file: HDF5, or a stream; or a folder of them")
    parser.add_argument("-f", "--filename", help="the same, as gadgetron_ismrmrd_client takes it")
    parser.add_argument(
        "-o", "--outfile", help="image file, replaced if there (default out.h5); of several scans: the folder of these"
    )
    parser.add_argument("-g", "--in-group", default="dataset", help="group of the scan (default dataset)")
    parser.add_argument("-G", "--out-group", default="dataset", help="group of the images (default dataset)")
    chain = parser.add_mutually_exclusive_group()
    chain.add_argument(
        "-c",
        "--config",
        action="append",
        metavar="CHAIN",
        help="chain: a file, or the name of a shipped one (default reconstruct.xml); if several, the scan goes "
        "through each, and what is written has the name of the chain in its own",
    )
    chain.add_argument("-C", "--config-local", help="chain: a file")
    parser.add_argument("--set", action="append", default=[], metavar="GADGET.PROPERTY=VALUE", help="change a property")
    parser.add_argument("--noise", metavar="FILE", help="take the noise of the scan in this file")
    parser.add_argument(
        "--noise-folder",
        type=Path,
        metavar="FOLDER",
        help="where noise of other scans is, and is kept (default: ~/.cache/gadgetron-networks/noise)",
    )
    export.add_formats(parser)
    reporting.add_arguments(parser)
    parser.add_argument("--profile", action="store_true", help="tell time, GPU time and memory of each gadget")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")


def run(args: argparse.Namespace) -> int:
    """Replay one scan as the options say. Raises InputError and GadgetError as `replay` does."""
    args.outfile = args.outfile or DEFAULT_OUT
    report, jobs = _asked(args)
    tell_of_names(args)
    noise = Dependencies(noise_store(args), noise_in(args.noise) if args.noise else None)
    lacking = [_one(job, name, noise, report) for name, job in jobs.items()]
    if report is not None and report.runs:
        report.write(_scan(args), args.in_group.strip("/"), args)
        _say(args, f"{args.report}: the report")
    elif report is not None:
        _say(args, "there are no images, and so no report")
    for error in filter(None, lacking):
        raise error
    return 0


def noise_store(args: argparse.Namespace) -> Store | None:
    """Return the place of other scans' noise."""
    return store_of(args.noise_folder) or default_store()


def _asked(args: argparse.Namespace) -> tuple[Report | None, dict[str, argparse.Namespace]]:
    """Return the report, and the options for each chain. Raises InputError with all that is wrong with them."""
    faults = Faults()
    report, chains = None, [DEFAULT]
    with faults.gathered():
        if len(args.scans) + (args.filename is not None) != 1:
            raise InputError("Name one scan: replay SCAN.h5, or replay -f SCAN.h5.")
        if not Path(_scan(args)).is_file():
            raise InputError(f"{_scan(args)}: there is no such file.")
    with faults.gathered():
        if args.noise and not Path(args.noise).is_file():
            raise InputError(f"{args.noise}: there is no such file.")
    with faults.gathered():
        report = Report.asked(args)
    with faults.gathered():
        chains = chains_of(args)
    for name in chains:
        with faults.gathered():
            load(name, args.set)
    jobs = for_chains(args, chains)
    for job in jobs.values():
        export.require(job, faults)
    with faults.gathered():
        require_outputs_apart(args, jobs)
    faults.tell()
    return report, jobs


def require_outputs_apart(args: argparse.Namespace, jobs: Mapping[str, argparse.Namespace]) -> None:
    """Raise InputError where files that a replay writes would replace each other, or what it reads.

    jobs: the options for each chain."""
    outputs = [one for job in jobs.values() for one in (Output("-o", Path(job.outfile)), *export.outputs(job))]
    outputs += [Output("--report", args.report)] if args.report is not None else []
    inputs = [("the scan", Path(_scan(args)))] if args.scans or args.filename else []
    inputs += [("the scan of --noise", Path(args.noise))] if args.noise else []
    inputs += [("the chain", Path(name)) for name in jobs if Path(name).is_file()]
    require_apart(outputs, [*inputs, *_weights(args, jobs)])


def _weights(args: argparse.Namespace, chains: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Yield the weights files of chains. Those that cannot be found are told elsewhere."""
    for name in chains:
        with suppress(InputError):
            for stage in load(name, args.set).stages:
                if "weights" in stage.properties:
                    yield "the weights file", located(stage.properties["weights"])


def _scan(args: argparse.Namespace) -> str:
    return str(args.filename or args.scans[0])


def chains_of(args: argparse.Namespace) -> list[str]:
    """Return the chains that are asked for. Raises InputError for a file that is not there, and for one given twice."""
    if args.config_local and not Path(args.config_local).is_file():
        raise InputError(f"There is no chain file {args.config_local}.")
    chains = [args.config_local] if args.config_local else args.config or [DEFAULT]
    names = [Path(name).stem for name in chains]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"The chain {name} is given twice; its images would replace each other.")
    return chains


def for_chains(args: argparse.Namespace, chains: list[str]) -> dict[str, argparse.Namespace]:
    """Return the options for each chain."""
    return {chains[0]: args} if len(chains) == 1 else {name: _for_chain(args, name) for name in chains}


def _for_chain(args: argparse.Namespace, name: str) -> argparse.Namespace:
    """Return the options for one of several chains: what is written has the chain's name in its own."""
    own = export.for_chain(args, Path(name).stem)
    out = Path(args.outfile)
    own.outfile = str(out.with_name(f"{out.stem}_{Path(name).stem}{out.suffix}"))
    return own


def _one(args: argparse.Namespace, name: str, noise: Dependencies, report: Report | None) -> IncompleteError | None:
    """Run the scan through one chain, and write what is asked for. Return the error of a scan that lacks something."""
    with traced() if args.profile else nullcontext() as work:
        return _watched(args, name, noise, report, Recorder(profile=Profile(work=work)))


def _watched(
    args: argparse.Namespace, name: str, noise: Dependencies, report: Report | None, recorder: Recorder
) -> IncompleteError | None:
    progress = _Progress(args.quiet)
    watched = recorder.watch if report else recorder.profile.timed if args.profile else unwatched
    lacking = None
    try:
        replay(
            _scan(args),
            args.outfile,
            name,
            settings=args.set,
            group=args.in_group.strip("/"),
            out_group=args.out_group.strip("/"),
            progress=progress,
            noise=noise,
            watch=watched,
        )
    except IncompleteError as error:
        lacking = error
    if noise.kept and lacking is None:
        print(f"the noise of the scan {noise.kept} is kept for scans that depend on it", file=sys.stderr)
        return None
    group = args.out_group.strip("/")
    if export.asked(args):
        export.export(read_contents(args.outfile, group), args)
    if report is not None:
        report.add(name, args.outfile, group, args.set, recorder, str(lacking or ""))
    progress.done(args.outfile)
    if args.profile:
        print("\n".join(recorder.profile.table()), file=sys.stderr)
    return lacking


def tell_of_names(args: argparse.Namespace) -> None:
    """Say that image files keep what --anonymous leaves out of other formats."""
    if args.anonymous:
        _say(args, f"{args.outfile}: keeps patient, study and device; --anonymous is for the other formats")


def _say(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        print(text, file=sys.stderr)


def replay(
    scan: str | Path,
    out: str | Path,
    chain: str,
    *,
    settings: Iterable[str] = (),
    group: str = "dataset",
    out_group: str = "dataset",
    progress: _Progress | None = None,
    noise: Dependencies | None = None,
    watch: Watch = unwatched,
) -> None:
    """Run the scan in a file through a chain (a file, or a shipped chain's name) and write the images that come out.

    noise: of other scans. No image file is written for a scan that only measures noise, and whose noise was kept there.
    watch: as for `Chain.run`.

    Raises InputError for all that is wrong with files, chain and data, also if no image comes, and GadgetError. The
    image file is there only if all went well; one that was there before is replaced only then. Raises IncompleteError
    after the image file was written, if the scan lacks what its header announces."""
    progress, noise = progress or _Progress(quiet=True), noise or Dependencies()
    loaded = load(chain, settings)
    if Path(out).exists() and Path(scan).exists() and os.path.samefile(out, scan):
        raise InputError(f"{out} is the scan itself; name another file for the images.")
    with suppress(_NoImagesError), open_recording(scan, group) as source:
        with naming(scan):
            items = progress.reading(source.items, source.acquisitions)
            made = reconstructed(loaded, items, source.header, source.notes, noise, watch=watch)
        with write_images(out, out_group, source.header) as images:
            lacking = _written(made, images, progress, loaded.source)
            if not images.count:
                if noise.kept:
                    raise _NoImagesError
                raise lacking or InputError(f"{scan}: {loaded.source} gave no images.")
    if lacking:
        raise lacking


class _NoImagesError(Exception):
    """The scan measured noise only: there is no image file to write."""


def _written(made: Iterator[Item], images: ImageFile, progress: _Progress, source: str) -> IncompleteError | None:
    """Write what comes, and return the error of a scan that lacks something."""
    try:
        for item in made:
            if isinstance(item, DependencyQuery):
                continue
            if isinstance(item, str):
                print(item, file=sys.stderr)
                continue
            try:
                images.append(item)
            except TypeError as error:
                raise InputError(f"The last gadget of {source} gives what is no image: {error}.") from error
            progress.wrote(images.count)
    except IncompleteError as error:
        return error
    return None


@dataclass
class _Progress:
    """Counts on stderr while a scan is replayed: in one line on a terminal, and in a line at the end."""

    quiet: bool
    lines: int = 0
    images: int = 0
    of: str = ""
    """How many lines there are, if that is known."""

    def __post_init__(self) -> None:
        self.start = time.perf_counter()
        self.live = not self.quiet and sys.stderr.isatty()

    def reading(self, items: Iterable[Item], total: int | None) -> Iterator[Item]:
        """The items, counted. total: how many acquisitions there are, if that is known."""
        self.of = "" if total is None else f" of {total}"
        for item in items:
            if isinstance(item, Lines):
                self.lines += len(item)
            self._show()
            yield item

    def wrote(self, images: int) -> None:
        """Take the number of images that are in the file now."""
        self.images = images
        self._show()

    def _show(self) -> None:
        if self.live:
            print(
                f"\r{self.lines}{self.of} lines, {counted(self.images, 'image')}", end="", file=sys.stderr, flush=True
            )

    def done(self, out: str | Path) -> None:
        """The last line."""
        if not self.quiet:
            seconds = time.perf_counter() - self.start
            start = "\r" if self.live else ""
            print(
                f"{start}{counted(self.lines, 'line')}, {counted(self.images, 'image')} in {seconds:.1f} s: {out}",
                file=sys.stderr,
            )
