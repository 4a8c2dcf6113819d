"""`replay --report`: a page on what was replayed."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from gadgets.export.contents import read_contents
from gadgets.hosts.inspection import look, told
from gadgets.hosts.library import load
from gadgets.hosts.listing import described
from gadgets.report.looks import Recorder
from gadgets.report.page import Scan, require, write_report
from gadgets.report.runs import Run
from mrnets.errors import InputError

__all__ = ["Report", "add_arguments"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the page."""
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="also write a page on scan, images and chains: .html"
    )
    parser.add_argument("--report-patient", action="store_true", help="name patient and study on that page")


@dataclass
class Report:
    """The page, until it is written."""

    path: Path
    runs: list[Run] = field(default_factory=list)

    @classmethod
    def asked(cls, args: argparse.Namespace, made: Path | None = None) -> Report | None:
        """Return a report if the options ask for one. Raises InputError if it could not be written.

        made: a folder that is made before it is written, absolute."""
        if args.report is None:
            return None
        require(args.report, made)
        return cls(args.report)

    def add(
        self, name: str, images: str, group: str, settings: Iterable[str], recorder: Recorder, lacking: str = ""
    ) -> None:
        """Add the images of the chain `name`. settings: as for `load`. lacking: what the scan lacks."""
        stages = load(name, settings).stages
        contents = read_contents(images, group)
        gadgets = ", ".join(map(described, stages))
        self.runs.append(Run(Path(name).stem, contents, gadgets, recorder, lacking=lacking))

    def write(self, scan: str, group: str, args: argparse.Namespace) -> None:
        """Write the page. Raises InputError as `write_report` does."""
        write_report(
            self.path,
            self.runs,
            Scan(
                name=Path(scan).name,
                facts=tuple(_facts(scan, group, patient=args.report_patient)),
                command=shlex.join(["python", "-m", "gadgets", *args.given]),
                made=datetime.now().strftime("%d %B %Y, %H:%M"),
                patient=args.report_patient,
            ),
        )


def _facts(scan: str, group: str, *, patient: bool) -> Iterable[tuple[str, str]]:
    """Yield names and values of what a scan holds; nothing of a scan that `inspect` cannot read."""
    lines: list[str] = []
    with suppress(InputError):
        lines = list(told(look(scan, group), related=patient))
    for line in lines:
        name, _, text = line.partition(" ")
        yield name, text.strip()
