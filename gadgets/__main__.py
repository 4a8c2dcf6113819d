"""`python -m gadgets`: replay a scan, look into it, serve scanners, be a stage of a pipe, simulate a scan."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from gadgets.hosts import permission
from mrnets import __version__
from mrnets.commandline import as_process, check_command, program, refuse, with_examples
from mrnets.errors import printable

PROGRAM = program("gadgets")
COMMANDS = {
    "replay": ("gadgets.hosts.replays", "run scans from files through a chain, here and now"),
    "export": ("gadgets.export.command", "write an image file as DICOM, NIfTI, PNG, or for BART"),
    "segment": ("gadgets.segment.command", "label images in NIfTI or DICOM files, by a network on images"),
    "inspect": ("gadgets.hosts.inspection", "tell what a scan holds, and which chains fit"),
    "chains": ("gadgets.hosts.listing", "list the chains that ship"),
    "gadgets": ("gadgets.hosts.listing", "list gadgets, and their properties with types and defaults"),
    "serve": ("gadgets.hosts.serve", "wait for Gadgetron servers and ISMRMRD clients, networks kept in memory"),
    "queue": ("gadgets.hosts.queue", "list the scans in a spool, and those that wait for their reconstruction"),
    "ping": ("gadgets.hosts.ping", "ask a running server whether it answers"),
    "pipe": ("gadgets.hosts.pipe", "ISMRMRD stream on stdin to ISMRMRD stream on stdout"),
    "demo": ("gadgets.demo", "simulate a head, reconstruct it by four chains, and show the results"),
    "simulate": ("gadgets.simulate", "make a multi-coil scan with noise, calibration lines and undersampling"),
}

EXAMPLES = {
    "replay": (
        "replay scan.h5 -c varnet -o images.h5 --png pictures",
        "replay scan.h5 -c reconstruct --dicom dicom --nifti images.nii.gz",
        "replay scan.h5 -c reconstruct -c cgsense --report report.html",
        "replay scan.h5 -c cgsense --set images.format=short",
        "replay scans more/scan.h5 -o images --jobs 4",
    ),
    "export": (
        "export images.h5 --dicom dicom",
        "export images.h5 --nifti images.nii.gz --png pictures --cfl images",
    ),
    "segment": (
        "segment t1.nii.gz -c tissue -o labels",
        "segment t1.nii.gz t1c.nii.gz t2.nii.gz flair.nii.gz -c brats --weights mine.safetensors",
        "segment adc=a.nii.gz dwi=b.nii.gz flair=c.nii.gz -c isles --weights mine.safetensors -o lesions",
    ),
    "inspect": ("inspect scan.h5",),
    "chains": ("chains", "chains varnet"),
    "gadgets": ("gadgets", "gadgets network"),
    "serve": ("serve --port 9002",),
    "queue": ("queue /var/lib/gadgetron-networks/spool",),
    "ping": ("ping --port 9002",),
    "pipe": ("pipe -c varnet < scan.stream > images.stream",),
    "demo": ("demo --folder demo",),
    "simulate": (
        "simulate -o scan.h5 --acceleration 4 --coils 12",
        "simulate -o volume.h5 --three-d --slices 64 --mask poisson2d",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1 and one sentence on stderr if it failed; 2 for options that do not exist; 130 after ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Trained MR reconstruction networks for ISMRMRD streams.",
        **with_examples(PROGRAM, [lines[0] for lines in EXAMPLES.values()]),
    )
    parser.add_argument("--version", action="version", version=f"gadgetron-networks {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = check_command(parser, given, COMMANDS)
    chosen = parser
    for name, (module, words) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=words,
            description=words[0].upper() + words[1:] + ".",
            **with_examples(PROGRAM, EXAMPLES[name]),
        )
        command.add_argument("--debug", action="store_true", help="log more, and show where a failure happened")
        permission.add_allow(command)
        if name == asked:  # others need not even import
            importlib.import_module(module).add_arguments(command)
            chosen = command
    args, rest = parser.parse_known_args(given)
    if rest:
        refuse(chosen, rest)
    args.given = given
    return _run(args)


def _run(args: argparse.Namespace) -> int:
    from gadgets.hosts import log  # it imports NumPy, for which threads must be settled

    try:
        permission.permit(args.allow)
        log.start(args.command, debug=args.debug, path=getattr(args, "log_file", None))
        return int(importlib.import_module(COMMANDS[args.command][0]).run(args) or 0)
    except KeyboardInterrupt:
        print(f"gadgets {args.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # nobody reads the output: see `as_process`
        raise
    except Exception as error:
        if args.debug:
            raise
        from gadgets.failures import told

        print(f"gadgets {args.command}: {printable(told(error))}", file=sys.stderr)
        return 1


def console() -> int:
    """Run the command line as the program of a process, before NumPy and torch are imported."""
    return as_process(main)


if __name__ == "__main__":
    raise SystemExit(console())
