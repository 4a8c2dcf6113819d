"""`python -m gadgets`: replay a scan, serve scanners, be a stage of a pipe, simulate a scan."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from gadgets.hosts import log
from mrnets import __version__
from mrnets.errors import InputError

COMMANDS = {
    "replay": ("gadgets.hosts.replay", "run a scan from a file through a chain, here and now"),
    "export": ("gadgets.export.command", "write an image file as DICOM, NIfTI, PNG, or for BART"),
    "serve": ("gadgets.hosts.serve", "wait for Gadgetron servers and ISMRMRD clients, networks kept in memory"),
    "ping": ("gadgets.hosts.ping", "ask a running server whether it answers"),
    "pipe": ("gadgets.hosts.pipe", "ISMRMRD stream on stdin to ISMRMRD stream on stdout"),
    "simulate": ("gadgets.simulate", "make a multi-coil scan with noise, calibration lines and undersampling"),
}

EXAMPLES = """\
examples:
  python -m gadgets replay scan.h5 -c varnet -o images.h5 --png pictures
  python -m gadgets replay scan.h5 -c cgsense --set images.format=short
  python -m gadgets serve --port 9002
  ismrmrd_hdf5_to_stream -i scan.h5 --use-stdout | python -m gadgets pipe -c varnet > images.stream
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1 and one sentence on stderr if it failed; 2 for options that do not exist; 130 after ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="python -m gadgets",
        description="Trained MR reconstruction networks for ISMRMRD streams.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"gadgetron-networks {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, words) in COMMANDS.items():
        command = commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
        command.add_argument("--debug", action="store_true", help="log more, and show where a failure happened")
        if name == next((word for word in given if not word.startswith("-")), None):  # others need not even import
            importlib.import_module(module).add_arguments(command)
    return _run(parser.parse_args(given))


def _run(args: argparse.Namespace) -> int:
    try:
        log.start(args.command, debug=args.debug, path=getattr(args, "log_file", None))
        return int(importlib.import_module(COMMANDS[args.command][0]).run(args) or 0)
    except KeyboardInterrupt:
        print(f"gadgets {args.command}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug:
            raise
        text = " ".join(str(error).split())
        known = isinstance(error, InputError) or type(error).__name__ == "GadgetError"
        print(f"gadgets {args.command}: {text if known else f'{type(error).__name__}: {text}'}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
