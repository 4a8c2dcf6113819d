"""Packages of others whose gadgets and networks may be imported: the operator's option `--allow`, or the environment.

No chain, weights file or client can allow any. Gadgetron starts external processes without options of ours, so that the
environment of its server allows there.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence

from mrnets import plugins
from mrnets.errors import naming

__all__ = ["VARIABLE", "add_allow", "permit"]

VARIABLE = "GADGETS_ALLOW"
"""Names of packages, with commas between them."""


def add_allow(parser: argparse.ArgumentParser) -> None:
    """Add `--allow PACKAGE`."""
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="PACKAGE",
        help=f"may be imported for gadgets and networks of its own (default: those that {VARIABLE} names, or none)",
    )


def permit(packages: Sequence[str] = (), environment: Mapping[str, str] = os.environ) -> None:
    """Allow these packages, and those of the environment, in this process. Raises InputError for what is no name."""
    with naming("--allow"):
        plugins.allow(*packages)
    with naming(VARIABLE):
        plugins.allow(*filter(None, (name.strip() for name in environment.get(VARIABLE, "").split(","))))
