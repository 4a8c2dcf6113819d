"""`python -m gadgets segment`: labels of images in files."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gadgets.chain import Chain
from gadgets.export.contents import Contents, read_contents
from gadgets.export.dicom import require_empty
from gadgets.hosts.library import load
from gadgets.hosts.scan import reconstructed
from gadgets.imagefiles import write_images
from gadgets.received import header_for
from gadgets.segment.picture import write_montage
from gadgets.segment.stream import images_of, labels_of
from gadgets.segment.volumes import ORIENTATION, Image, read_images, require_one_grid
from gadgets.segment.written import write_nifti_labels, write_segmentations
from mrnets import contrasts, store
from mrnets.contrasts import in_order
from mrnets.errors import Faults, InputError
from mrnets.files import make_folder

__all__ = ["add_arguments", "run"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Wanted:
    """The images that a network takes."""

    names: tuple[str, ...] = ()
    """Contrasts in order; empty: they are not known."""
    count: int = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m gadgets segment`."""
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="NIfTI file or folder with DICOM, of one contrast; t1=FILE names that",
    )
    parser.add_argument("-c", "--config", required=True, metavar="CHAIN", help="chain: a file, or a shipped one's name")
    parser.add_argument("-w", "--weights", metavar="FILE", help="the same as --set network.weights=FILE")
    parser.add_argument("-o", "--output", type=Path, default=Path("labels"), help="new folder (default labels)")
    parser.add_argument("--set", action="append", default=[], metavar="GADGET.PROPERTY=VALUE", help="change a property")
    parser.add_argument(
        "--orientation",
        type=str.upper,
        default=ORIENTATION,
        help=f"where x, y and z lead in the images that the network was trained on (default {ORIENTATION})",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="tell nothing but failures")


def run(args: argparse.Namespace) -> int:
    """Segment images, and write images, labels and a picture. Raises InputError and GadgetError."""
    faults, wanted = Faults(), _Wanted()
    with faults.gathered():
        chain = load(args.config, [*args.set, *([f"network.weights={args.weights}"] if args.weights else [])])
        wanted = _wanted(chain)
    with faults.gathered():
        require_empty(args.output)
    with faults.gathered():
        _require_orientation(args.orientation)
    faults.tell()
    images = _chosen(read_images(args.images, args.orientation), wanted)
    require_one_grid(images)
    if not args.quiet:
        print("\n".join(_told(images)), file=sys.stderr)
    contents = _segmented(chain, images, make_folder(args.output) / "images.h5")
    labels = labels_of(contents, images[0].volume.spatial_shape)
    written = write_nifti_labels(labels, images[0], args.output)
    write_segmentations(labels, images[0], contents, args.output / "dicom")
    write_montage(args.output / "montage.png", images[-1].volume.array, labels)
    if not args.quiet:
        print("\n".join(map(str, (*written, args.output / "dicom", args.output / "montage.png"))), file=sys.stderr)
    return 0


def _wanted(chain: Chain) -> _Wanted:
    """Return what the network of a chain takes. Raises InputError without one on images, and without weights."""
    stage = next((stage for stage in reversed(chain.stages) if stage.name == "network"), None)
    if stage is None or "weights" not in stage.properties:
        raise InputError(f"{chain.source} names no weights; give those of a segmentation network: --weights FILE")
    header = store.header(stage.properties["weights"])
    if store.describe(header["network"]).takes_with(header["options"]) != "image":
        raise InputError(f"{stage.properties['weights']} is for scans; weights for images were expected")
    given = in_order(stage.properties.get("contrasts", ""))
    names = given or in_order(header["provenance"].get(contrasts.KEY, ()))
    return _Wanted(names, int(header["options"].get("contrasts") or len(names) or 1))


def _require_orientation(text: str) -> None:
    if sorted(next((pair for pair in ("LR", "AP", "SI") if c in pair), c) for c in text) != ["AP", "LR", "SI"]:
        raise InputError(f"--orientation {text}: three letters, such as LPS or RAS, were expected")


def _chosen(images: Sequence[Image], wanted: _Wanted) -> list[Image]:
    """Return the images that the network takes, in order. Raises InputError for missing and for ambiguous ones."""
    if not wanted.names:
        if wanted.count > 1:
            way = "--set network.contrasts=t1c,t1,flair,t2 tells it"
            raise InputError(f"The order of the {wanted.count} contrasts is not known: {way}.")
        if len(images) != 1:
            raise InputError(f"The network takes one image; {len(images)} were given.")
        return list(images)
    faults, found = Faults(), list[Image]()
    for name in wanted.names:
        of_name = [image for image in images if image.name == name]
        with faults.gathered():
            if len(of_name) > 1:
                raise InputError(f"{' and '.join(image.path for image in of_name)} are both {name}; name one of them.")
            if not of_name:
                raise InputError(f"There is no {name}; {name}=FILE names it.")
            found += of_name
    faults.tell()
    return found


def _told(images: Sequence[Image]) -> list[str]:
    return [f"{image.name or 'image'}: {image.path}" for image in images]


def _segmented(chain: Chain, images: Sequence[Image], path: Path) -> Contents:
    """Send images through a chain, and return them with their labels as they are in the file `path`."""
    notes = tuple(note for image in images for note in image.notes)
    for note in notes:
        _logger.warning("%s", note)
    header = header_for(next(images_of(images)), slices=images[0].volume.spatial_shape[0])
    with write_images(path, header=header) as file:
        for item in reconstructed(chain, images_of(images), header, notes):
            file.append(item)
    return read_contents(path)
