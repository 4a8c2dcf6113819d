"""The command's options, and the files that it writes."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from gadgets.simulate.header import NOISE, measurement
from gadgets.simulate.sampling import require_more_than_centre
from gadgets.simulate.scan import make_noise_scan, make_scan
from gadgets.simulate.settings import ORIENTATIONS, Settings, check
from gadgets.simulate.vendors import VENDORS
from mrnets.apart import Output, require_apart
from mrnets.commandline import one_of
from mrnets.errors import InputError
from mrnets.files import whole
from mrnets.mrd.files import write_scan
from mrnets.physics import masks

__all__ = ["add_arguments", "run"]

NUMBERS = {
    "coils": "receive coils",
    "matrix": "samples along both axes of the plane",
    "slices": "slices, or partitions with --three-d",
    "fov": "field of view, mm",
    "thickness": "of a slice, mm",
    "offset": "of the middle slice from the volume's centre, mm",
    "snr": "of bright tissue in the fully sampled image",
    "acceleration": "of the whole mask, its centre included; of regular1d the distance between lines",
    "calibration": "fully sampled width at the centre of k-space",
    "partial_fourier": "fraction of the phase encodings left out before the centre; 0.25 is 6/8",
    "noise_lines": "lines of the noise measurement; 0: none",
    "oversampling": "of the readout",
    "echoes": "contrasts, with T2* decay and off-resonance",
    "seed": "of everything that is random",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    default = Settings()
    parser.add_argument("-o", "--output", default="scan.h5", help="ISMRMRD file to write (default %(default)s)")
    parser.add_argument("--reference", help="write the noise-free fully sampled images here: .npy (slice, echo, y, x)")
    parser.add_argument("--noise", help="write the noise measurement here, as a scan that the other one depends on")
    parser.add_argument(
        "--volume", help='NIfTI file, or "icbm152" of the nilearn package (default: a Shepp-Logan phantom)'
    )
    for name, known, text in (
        ("orientation", sorted(ORIENTATIONS), "of the slices"),
        ("mask", masks.names(), "2-D ones need --three-d"),
        ("vendor", list(VENDORS), "style of header and lines"),
    ):
        parser.add_argument(
            f"--{name}",
            type=one_of(known),
            metavar=name.upper(),
            default=getattr(default, name),
            help=f"{text}: {', '.join(known)} (default %(default)s)",
        )
    for name, text in NUMBERS.items():
        value = getattr(default, name)
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(value), default=value, help=f"{text} (default %(default)s)")
    parser.add_argument("--separate", action="store_true", help="calibration lines before the image, for themselves")
    parser.add_argument("--three-d", action="store_true", help="a volume with two phase encodings")


def run(args: argparse.Namespace) -> int:
    """Make the scan and write it; InputError for settings that make no scan."""
    given = vars(args)
    settings = Settings(**{name: given[name] for name in Settings.__dataclass_fields__ if name in given})
    check(settings)
    require_more_than_centre(settings)
    written = {"-o": args.output, "--reference": args.reference, "--noise": args.noise}
    volume = [("the volume", Path(args.volume))] if args.volume else []
    require_apart([Output(option, Path(path)) for option, path in written.items() if path], volume)
    for path in filter(None, written.values()):
        if not Path(path).resolve().parent.is_dir():
            raise InputError(f"{path}: there is no folder {Path(path).resolve().parent}")
    if args.noise:
        settings = replace(settings, noise_from=measurement(settings, NOISE))
        write_scan(args.noise, *make_noise_scan(settings))
    header, items, reference = make_scan(settings)
    write_scan(args.output, header, items)
    if args.reference:
        with whole(args.reference) as file:
            np.save(file, np.stack(reference))
    print(f"wrote {args.output}")
    return 0
