"""`make demo`: two scans of a head that never took place, reconstructed by four chains, scored and shown.

The scans are undersampled fourfold, with correlated noise and a noise measurement. One has the noise of a usual scan,
one little. No network has seen this head. Each chain is replayed as `python -m gadgets replay` does it. The scores
compare with the fully sampled noise-free image.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gadgets.hosts.replay import replay
from gadgets.imagefiles import read_images
from gadgets.simulate import Settings, make_scan
from mrnets.errors import InputError
from mrnets.files import make_folder, write_bytes
from mrnets.mrd.files import write_scan

__all__ = ["main"]

Images = NDArray[np.float32]

CHAINS = {
    "zerofilled": "Zero-filled",
    "cgsense": "CG-SENSE",
    "l1wavelet": "l1-wavelet",
    "reconstruct": "L1VarNet, the default",
}
_SCAN = Settings(
    volume="icbm152", coils=12, matrix=256, slices=3, fov=224.0, thickness=8.0, offset=-4.0, snr=60.0, seed=2026
)
SCANS = {"": _SCAN, "low_noise_": replace(_SCAN, snr=600.0)}
"""By the beginning of their files' names."""
BRIGHTER = 5
"""How much errors are brightened at an SNR of 60; with less noise by the root of the ratio more."""


@dataclass(frozen=True)
class Score:
    """Means over slices."""

    ssim: float
    psnr: float
    """dB."""
    seconds: float
    """Per slice, of the whole replay."""


@dataclass(frozen=True)
class Shown:
    """A scan, its noise-free images, and what each chain made of it."""

    settings: Settings
    target: Images
    images: dict[str, Images]
    scores: dict[str, Score]


def main() -> int:
    """Simulate, replay, score, draw. Exit status 1 and one sentence if anything fails."""
    parser = argparse.ArgumentParser(prog="python -m gadgets.demo", description="Simulate a head, reconstruct it.")
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where the results go (default demo)")
    folder: Path = parser.parse_args().folder
    try:
        _demo(folder)
    except InputError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def _demo(folder: Path) -> None:
    make_folder(folder)
    shown = [_scanned(folder, prefix, settings) for prefix, settings in SCANS.items()]
    os.replace(folder / "reconstruct.h5", folder / "images.h5")
    _draw(folder / "comparison.png", shown)
    print(f"\n{folder}/comparison.png   the picture\n{folder}/images.h5        the default's, as a scanner gets them")


def _scanned(folder: Path, prefix: str, settings: Settings) -> Shown:
    """Simulate a scan and replay all chains; a table is printed."""
    what = f"{settings.coils} coils, {settings.acceleration:g}-fold, SNR {settings.snr:g}"
    print(f"Simulating {settings.slices} slices of the ICBM152 head: {what} ...")
    header, lines, reference = make_scan(settings)
    scan = folder / f"{prefix}scan.h5"
    write_scan(scan, header, lines)
    target = np.stack(reference)[:, 0]
    images, scores = {}, {}
    for chain in CHAINS:
        print(f"Replaying chains/{chain}.xml ...", flush=True)
        started = time.perf_counter()
        replay(scan, folder / f"{prefix}{chain}.h5", chain)
        seconds = (time.perf_counter() - started) / settings.slices
        images[chain] = _in_units_of(target, _magnitudes(folder / f"{prefix}{chain}.h5"))
        scores[chain] = _score(images[chain], target, seconds)
    print(f"\n{'':22s}   SSIM    PSNR   s/slice")
    for chain, name in CHAINS.items():
        score = scores[chain]
        print(f"{name:22s} {score.ssim:6.4f} {score.psnr:7.2f} {score.seconds:9.2f}")
    print()
    return Shown(settings, target, images, scores)


def _magnitudes(path: Path) -> Images:
    """(slice, y, x) of the one series in an image file."""
    ((_, series),) = read_images(path)
    return np.asarray(np.abs(series[:, 0, 0]), np.float32)


def _in_units_of(target: Images, images: Images) -> Images:
    """One factor for all slices: a scanner's units are arbitrary."""
    return images * np.float32((images * target).sum() / (images**2).sum())


def _score(images: Images, target: Images, seconds: float) -> Score:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    pairs = [(i, t, float(t.max())) for i, t in zip(images, target, strict=True)]
    ssim = [structural_similarity(t, i, data_range=top) for i, t, top in pairs]
    psnr = [peak_signal_noise_ratio(t, i, data_range=top) for i, t, top in pairs]
    return Score(float(np.mean(ssim)), float(np.mean(psnr)), seconds)


def _draw(path: Path, scans: Sequence[Shown]) -> None:
    """The middle slice of every scan by every chain, and its error, beside the noise-free image."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    size = (4 * (1 + len(CHAINS)), 8.6 * len(scans))
    figure, axes = pyplot.subplots(
        2 * len(scans), 1 + len(CHAINS), figsize=size, facecolor="black", layout="constrained"
    )
    for n, one in enumerate(scans):
        _draw_scan(axes[2 * n : 2 * n + 2], one)
    for axis in axes.flat:
        axis.axis("off")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=90, facecolor="black")
    write_bytes(path, picture.getvalue())
    pyplot.close(figure)


def _draw_scan(axes: Any, one: Shown) -> None:
    """Into two rows of axes."""
    settings, middle = one.settings, len(one.target) // 2
    target = one.target[middle]
    top = float(np.percentile(target, 99.7))
    brighter = BRIGHTER * (settings.snr / _SCAN.snr) ** 0.5
    look: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": top, "interpolation": "lanczos"}
    write: dict[str, Any] = {"color": "white", "fontsize": 14}
    axes[0, 0].imshow(target, **look)
    axes[0, 0].set_title("Fully sampled, noise-free", **write)
    text = (
        f"{settings.coils} coils, {settings.acceleration:g}-fold\n{settings.calibration} calibration lines\n"
        f"SNR {settings.snr:g}\n\nbelow the images:\nerror x {brighter:.0f}"
    )
    axes[1, 0].text(0.5, 0.5, text, ha="center", va="center", **write)
    for column, (chain, image) in enumerate(one.images.items(), start=1):
        score = one.scores[chain]
        axes[0, column].imshow(image[middle], **look)
        axes[0, column].set_title(f"{CHAINS[chain]}\nSSIM {score.ssim:.3f}   PSNR {score.psnr:.1f} dB", **write)
        error = np.abs(image[middle] - target)
        axes[1, column].imshow(error, cmap="inferno", vmin=0, vmax=top / brighter)


if __name__ == "__main__":
    sys.exit(main())
