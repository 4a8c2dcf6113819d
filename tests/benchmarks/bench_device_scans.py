"""Scans on a CUDA device against the same on the processor: how far their images are apart.

    python tests/benchmarks/bench_device_scans.py [SCAN.h5 or FOLDER ...] [--chains varnet l1wavelet]

A folder stands for all its ISMRMRD files, also those in folders below it. A simulated scan comes first. The distance
is that of each series of images, relative to its norm; the largest one counts. A scan that a chain refuses must be
refused on both. A fallback on the device alone is told: its image would be that of the processor.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mrnets.commandline import settle

settle()  # as a command does, before the libraries load

import numpy as np
import torch
from bench_server import CHAINS, simulated
from rows import measured, row, unmeasured

from gadgets.export.contents import read_contents
from gadgets.hosts.replay import replay
from gadgets.imagefiles import read_images
from gadgets.report.facts import fallbacks
from gadgets.simulate import make_scan
from mrnets.errors import InputError
from mrnets.mrd.files import ENDINGS, write_scan
from mrnets.proved import TOLERANCE


@dataclass(frozen=True)
class Images:
    """The images of a scan by series, and how many of them are fallbacks."""

    pixels: dict[str, np.ndarray]
    fallbacks: int


def main() -> None:
    """Print a row for each scan and chain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="*", type=Path)
    parser.add_argument("--chains", nargs="+", default=[*CHAINS, "cgsense"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=256, help="of the simulated scan")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        unmeasured("scans on the device against the processor", "torch finds no CUDA device")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "simulated.h5"
        header, lines, _ = make_scan(simulated(args.size, 2))
        write_scan(path, header, lines)
        files = list(_files(args.scans))
        if not files:
            unmeasured("real scans on the device against the processor", "no file of a scan was given")
        for scan in (path, *files):
            for chain in args.chains:
                compared(scan, chain, args.device)


def _files(given: Iterable[Path]) -> Iterable[Path]:
    for path in given:
        yield from sorted(p for p in path.rglob("*") if p.suffix in ENDINGS) if path.is_dir() else [path]


def compared(scan: Path, chain: str, device: str) -> None:
    """Print the row of one scan through one chain."""
    what = f"{scan.parent.name}/{scan.name}, chain {chain}, device against processor"
    here, there = imaged(scan, chain, "cpu"), imaged(scan, chain, device)
    if isinstance(here, str) or isinstance(there, str):
        alike = here == there
        told = " ".join(
            f"{place}: {made if isinstance(made, str) else 'images'}."
            for place, made in (("processor", here), ("device", there))
        )
        row(what, "", told, "refused on both" if alike else "**differs**")
        return
    if here.fallbacks != there.fallbacks:
        row(what, "", f"{here.fallbacks} fallbacks on the processor, {there.fallbacks} on the device", "**differs**")
        return
    differ, other = ({name: x.shape for name, x in images.pixels.items()} for images in (here, there))
    if differ != other:
        row(what, "", f"other series or sizes: {sorted(differ)} and {sorted(other)}", "**differs**")
        return
    distances = [
        float(np.linalg.norm(there.pixels[name] - x) / max(np.linalg.norm(x), 1e-30)) for name, x in here.pixels.items()
    ]
    measured(what, max(distances), "of the norm", most=TOLERANCE, cuda=device.startswith("cuda"))


def imaged(scan: Path, chain: str, device: str) -> Images | str:
    """The images of a scan, or the sentence with which it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "images.h5"
        settings = [f"network.device={device}", *(["noise.device=cpu"] if device == "cpu" else [])]
        try:
            replay(scan, out, chain, settings=settings)
        except InputError as error:
            return str(error)
        pixels = {name: np.asarray(images, np.complex64) for name, images in read_images(out)}
        return Images(pixels, fallbacks(read_contents(out)))


if __name__ == "__main__":
    main()
