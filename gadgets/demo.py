"""`make demo`: two scans of a head that never took place, reconstructed by four chains, scored and shown.

The picture is comparison.png. The pages are report.html and low_noise_report.html, as `replay --report` writes them.

The scans are undersampled fourfold, with correlated noise and a noise measurement. One has the noise of a usual scan,
one little. No network has seen this head. Each chain is replayed as `python -m gadgets replay` does it. The scores
compare with the fully sampled noise-free image.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gadgets.demo_picture import Column, Row, draw
from gadgets.export.contents import Contents, read_contents
from gadgets.hosts.library import load
from gadgets.hosts.listing import described
from gadgets.hosts.replay import replay
from gadgets.report.looks import Recorder
from gadgets.report.page import Scan, write_report
from gadgets.report.runs import Run
from gadgets.simulate import Settings, make_scan
from mrnets.files import make_folder
from mrnets.mrd.files import write_scan

__all__ = ["add_arguments", "run"]

Images = NDArray[np.float32]

CHAINS = {
    "zerofilled": "Zero-filled",
    "cgsense": "CG-SENSE",
    "l1wavelet": "l1-wavelet",
    "reconstruct": "L1VarNet, the default",
}
_SCAN = Settings(
    volume="icbm152", coils=12, matrix=256, slices=2, fov=224.0, thickness=8.0, offset=-4.0, snr=60.0, seed=2026
)
SCANS = {"": _SCAN, "low_noise_": replace(_SCAN, snr=600.0, slices=1, offset=0.0)}
"""By the beginning of their files' names."""
BRIGHTER = 5
"""How much errors are brightened at an SNR of 60; with less noise by the root of the ratio more."""
REFERENCE = "Fully sampled, noise-free"


@dataclass(frozen=True)
class Score:
    """Means over slices."""

    ssim: float
    psnr: float
    """dB."""
    seconds: float
    """Per slice, of the whole replay."""

    def __str__(self) -> str:
        return f"SSIM {self.ssim:.3f}, PSNR {self.psnr:.1f} dB"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m gadgets demo`."""
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where the results go (default demo)")


def run(args: argparse.Namespace) -> int:
    """Simulate, replay, score, draw. Raises InputError, where nilearn is not there for example."""
    _demo(args.folder)
    return 0


def _demo(folder: Path) -> None:
    make_folder(folder)
    rows = [_scanned(folder, prefix, settings) for prefix, settings in SCANS.items()]
    os.replace(folder / "reconstruct.h5", folder / "images.h5")
    draw(folder / "comparison.png", rows)
    print(f"\n{folder}/comparison.png   the picture\n{folder}/report.html      the same as a page, with much more")
    print(f"{folder}/images.h5        the default's, as a scanner gets them")


def _row(settings: Settings, columns: Sequence[Column]) -> Row:
    brighter = BRIGHTER * (settings.snr / _SCAN.snr) ** 0.5
    text = (
        f"{settings.coils} coils\n{settings.acceleration:g}-fold\n{settings.calibration} calibration lines\n"
        f"SNR {settings.snr:g}\n\nerrors x {brighter:.0f}"
    )
    return Row(text, brighter, columns)


def _scanned(folder: Path, prefix: str, settings: Settings) -> Row:
    """Simulate a scan and replay all chains; a table is printed, and a page written."""
    what = f"{settings.coils} coils, {settings.acceleration:g}-fold, SNR {settings.snr:g}"
    print(f"Simulating {settings.slices} slices of the ICBM152 head: {what} ...")
    header, lines, reference = make_scan(settings)
    scan = folder / f"{prefix}scan.h5"
    write_scan(scan, header, lines)
    target = np.stack(reference)[:, 0]
    runs, columns, scores = [], [Column(REFERENCE, "", target[-1])], {}
    for chain, name in CHAINS.items():
        print(f"Replaying chains/{chain}.xml ...", flush=True)
        recorder, started = Recorder(), time.perf_counter()
        replay(scan, folder / f"{prefix}{chain}.h5", chain, watch=recorder.watch)
        seconds = (time.perf_counter() - started) / settings.slices
        contents = read_contents(folder / f"{prefix}{chain}.h5")
        images = _in_units_of(target, _magnitudes(contents))
        scores[chain] = _score(images, target, seconds)
        columns.append(Column(name, str(scores[chain]), images[-1]))
        gadgets = ", ".join(map(described, load(chain).stages))
        runs.append(Run(name, _with(contents, images), gadgets, recorder, str(scores[chain])))
    reference_run = Run(REFERENCE, _with(runs[0].contents, target))
    write_report(folder / f"{prefix}report.html", [reference_run, *runs], Scan(f"A simulated head: {what}"))
    print(f"\n{'':22s}   SSIM    PSNR   s/slice")
    for chain, name in CHAINS.items():
        score = scores[chain]
        print(f"{name:22s} {score.ssim:6.4f} {score.psnr:7.2f} {score.seconds:9.2f}")
    print()
    return _row(settings, columns)


def _magnitudes(contents: Contents) -> Images:
    """(slice, y, x) of the one series in an image file."""
    (series,) = contents.series
    return np.stack([np.abs(picture.pixels[0, 0]) for picture in series.pictures]).astype(np.float32)


def _with(contents: Contents, images: Images) -> Contents:
    """Return an image file of one series with other pixels: of a noise-free image, or in its units."""
    (series,) = contents.series
    pictures = tuple(
        replace(picture, pixels=image[None, None]) for picture, image in zip(series.pictures, images, strict=True)
    )
    return replace(contents, series=(replace(series, pictures=pictures),))


def _in_units_of(target: Images, images: Images) -> Images:
    """One factor for all slices: a scanner's units are arbitrary."""
    return images * np.float32((images * target).sum() / (images**2).sum())


def _score(images: Images, target: Images, seconds: float) -> Score:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    pairs = [(i, t, float(t.max())) for i, t in zip(images, target, strict=True)]
    ssim = [structural_similarity(t, i, data_range=top) for i, t, top in pairs]
    psnr = [peak_signal_noise_ratio(t, i, data_range=top) for i, t, top in pairs]
    return Score(float(np.mean(ssim)), float(np.mean(psnr)), seconds)
