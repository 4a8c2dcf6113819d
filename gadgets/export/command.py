"""`python -m gadgets export`, and the same options of `replay`."""

from __future__ import annotations

import argparse
import glob
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from gadgets.export.axes import settled
from gadgets.export.cfl import write_cfl
from gadgets.export.contents import Contents, anonymous, read_contents
from gadgets.export.dicom import require_empty, write_dicom
from gadgets.export.needed import needed
from gadgets.export.nifti import ENDINGS as NIFTI
from gadgets.export.nifti import nifti_name, write_nifti
from gadgets.export.png import write_png
from mrnets.apart import Output, require_apart
from mrnets.errors import Faults, InputError, counted

__all__ = [
    "add_arguments",
    "add_formats",
    "asked",
    "export",
    "for_chain",
    "is_there",
    "outputs",
    "places",
    "require",
    "require_packages",
    "require_use",
    "run",
]

_FORMATS = {
    "dicom": ("FOLDER", "each slice as DICOM, labels and maps as objects too, into a new folder"),
    "nifti": ("FILE", "as NIfTI, .nii.gz or .nii; echoes and repetitions are the fourth axis"),
    "png": ("FOLDER", "each image as PNG, and each series as a montage"),
    "cfl": ("NAME", "for BART: NAME.hdr and NAME.cfl"),
}
_FOLDERS = ("dicom", "png")
"""Formats with a folder of their own for each image file. The others have the name of the image file in theirs."""
_PACKAGES = {"dicom": ("pydicom", "DICOM"), "nifti": ("nibabel", "NIfTI"), "png": ("PIL", "PNG")}

_logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m gadgets export`."""
    parser.add_argument("images", help="image file, as replay or a Gadgetron client writes it")
    parser.add_argument("-G", "--group", default="dataset", help="group of the images (default dataset)")
    text = "pixels of images without AxesReversed run against the directions in their headers (Gadgetron, Siemens)"
    parser.add_argument("--reversed-axes", action="store_true", help=text)
    add_formats(parser)


def add_formats(parser: argparse.ArgumentParser) -> None:
    """The options for formats."""
    for name, (metavar, text) in _FORMATS.items():
        parser.add_argument(f"--{name}", type=Path, metavar=metavar, help=f"also write {text}")
    parser.add_argument(
        "--anonymous",
        action="store_true",
        help="leave patient, study, device and day out of these formats; the image file keeps them",
    )


def run(args: argparse.Namespace) -> int:
    """Write what the options ask for. Raises InputError."""
    faults = Faults()
    with faults.gathered():
        if not asked(args):
            formats = ", ".join(f"--{name}" for name in _FORMATS)
            args.anonymous = False
            raise InputError(f"Nothing was asked for; give one or more of: {formats}.")
    with faults.gathered():
        if not Path(args.images).is_file():
            raise InputError(f"{args.images}: there is no such file.")
    require(args, faults)
    with faults.gathered():
        require_apart(outputs(args), [("the image file", Path(args.images))])
    faults.tell()
    contents = read_contents(args.images, args.group.strip("/"))
    contents, unsaid = settled(contents, backwards=args.reversed_axes)
    for warning in filter(None, (*contents.warnings, unsaid)):
        _logger.warning("%s: %s", args.images, warning)
    for place, count in export(contents, args):
        print(f"{place}: {counted(count, 'file')}", file=sys.stderr)
    return 0


def asked(args: argparse.Namespace) -> bool:
    """Return whether a format is asked for."""
    return bool(places(args))


def places(args: argparse.Namespace) -> dict[str, Path]:
    """Return the formats that are asked for, and their places."""
    given = {name: getattr(args, name) for name in _FORMATS}
    return {name: place for name, place in given.items() if place is not None}


def outputs(args: argparse.Namespace) -> list[Output]:
    """Return the files and folders of the formats that are asked for. A NIfTI file that has no name of one has none."""
    found = []
    for name, place in places(args).items():
        if name in _FOLDERS:
            found.append(Output(f"--{name}", place, alone=name == "dicom"))
        elif name == "cfl":
            found += [Output("--cfl", place.with_name(place.name + ending)) for ending in (".hdr", ".cfl")]
        elif any(place.name.endswith(ending) for ending in NIFTI):
            beside = place.with_name(f"{nifti_name(place)[0]}.json")
            found += [Output("--nifti", place), Output("--nifti", beside)]
    return found


def require(args: argparse.Namespace, faults: Faults) -> None:
    """Gather the faults of formats that cannot be written, before anything is done."""
    checks: dict[str, Callable[[Path], object]] = {"dicom": require_empty, "nifti": nifti_name}
    require_packages(args, faults)
    with faults.gathered():
        require_use(args)
    for name, place in places(args).items():
        with faults.gathered():
            checks.get(name, Path)(place)


def require_use(args: argparse.Namespace) -> None:
    """Raise InputError for --anonymous without a format: the image file keeps what tells the patient."""
    if args.anonymous and not asked(args):
        raise InputError("--anonymous is for the files of --dicom and other formats, and none is asked for.")


def require_packages(args: argparse.Namespace, faults: Faults) -> None:
    """Gather the faults of formats whose packages are not installed."""
    for name, (module, what) in _PACKAGES.items():
        if name in places(args):
            with faults.gathered():
                needed(module, what)


def for_chain(args: argparse.Namespace, chain: str) -> argparse.Namespace:
    """Return the options with the name of a chain in the places of all formats that are asked for."""
    own = argparse.Namespace(**vars(args))
    for name in _FOLDERS:
        if (place := getattr(args, name)) is not None:
            setattr(own, name, place / chain)
    if args.nifti is not None:
        stem, ending = nifti_name(args.nifti)
        own.nifti = args.nifti.with_name(f"{stem}_{chain}{ending}")
    if args.cfl is not None:
        own.cfl = args.cfl.with_name(f"{args.cfl.name}_{chain}")
    return own


def is_there(name: str, place: Path) -> bool:
    """Return whether files of an export in the format `name` are in its place."""
    if name in _FOLDERS:
        return place.is_dir() and any(place.iterdir())
    stem, ending = nifti_name(place) if name == "nifti" else (place.name, ".cfl")
    of_stacks = place.parent.glob(f"{glob.escape(stem)}_*{ending}")
    return place.with_name(stem + ending).is_file() or any(of_stacks)


def export(contents: Contents, args: argparse.Namespace) -> list[tuple[Path, int]]:
    """Write images in the formats that are asked for. Return each place, and how many files were written."""
    contents = anonymous(contents) if args.anonymous else contents
    writers = {"dicom": write_dicom, "nifti": write_nifti, "png": write_png, "cfl": write_cfl}
    return [(place, len(writers[name](contents, place))) for name, place in places(args).items()]
