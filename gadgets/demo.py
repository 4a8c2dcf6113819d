"""`make demo`: a scan of a head that never took place, reconstructed by three chains, scored and shown.

The scan is undersampled fourfold, has correlated noise and a noise measurement; no network has seen this head. Each
chain is replayed as `python -m gadgets replay` does it; the scores compare with the fully sampled noise-free image.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from dataclasses import dataclass
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

CHAINS = {"zerofilled": "Zero-filled", "cgsense": "CG-SENSE", "varnet": "VarNet"}
SCAN = Settings(
    volume="icbm152", coils=12, matrix=256, slices=5, fov=224.0, thickness=8.0, offset=-4.0, snr=60.0, seed=2026
)


@dataclass(frozen=True)
class Score:
    """Means over slices."""

    ssim: float
    psnr: float
    """dB."""
    seconds: float
    """Per slice, of the whole replay."""


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
    print(f"Simulating {SCAN.slices} slices of the ICBM152 head: {SCAN.coils} coils, {SCAN.acceleration:g}-fold ...")
    header, lines, reference = make_scan(SCAN)
    write_scan(folder / "scan.h5", header, lines)
    target = np.stack(reference)[:, 0]
    images, scores = {}, {}
    for chain in CHAINS:
        print(f"Replaying chains/{chain}.xml ...", flush=True)
        started = time.perf_counter()
        replay(folder / "scan.h5", folder / f"{chain}.h5", chain)
        seconds = (time.perf_counter() - started) / SCAN.slices
        images[chain] = _in_units_of(target, _magnitudes(folder / f"{chain}.h5"))
        scores[chain] = _score(images[chain], target, seconds)
    os.replace(folder / "varnet.h5", folder / "images.h5")
    print(f"\n{'':12s}   SSIM    PSNR   s/slice")
    for chain, name in CHAINS.items():
        score = scores[chain]
        print(f"{name:12s} {score.ssim:6.4f} {score.psnr:7.2f} {score.seconds:9.2f}")
    _draw(folder / "comparison.png", target, images, scores)
    print(f"\n{folder}/comparison.png   the picture\n{folder}/images.h5        VarNet's images, as a scanner gets them")


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


def _draw(path: Path, target: Images, images: dict[str, Images], scores: dict[str, Score]) -> None:
    """The middle slice by every chain and its error, five times as bright, beside the reference."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    middle = len(target) // 2
    top = float(np.percentile(target[middle], 99.7))
    look: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": top, "interpolation": "lanczos"}
    figure, axes = pyplot.subplots(2, 1 + len(images), figsize=(16, 8.6), facecolor="black", layout="constrained")
    axes[0, 0].imshow(target[middle], **look)
    axes[0, 0].set_title("Fully sampled, noise-free", color="white", fontsize=14)
    axes[1, 0].text(
        0.5,
        0.5,
        f"{SCAN.coils} coils, {SCAN.acceleration:g}-fold\n{SCAN.calibration} calibration lines\n"
        f"SNR {SCAN.snr:g}\n\nbelow the images:\nerror x 5",
        color="white",
        ha="center",
        va="center",
        fontsize=14,
    )
    for column, (chain, image) in enumerate(images.items(), start=1):
        score = scores[chain]
        axes[0, column].imshow(image[middle], **look)
        title = f"{CHAINS[chain]}\nSSIM {score.ssim:.3f}   PSNR {score.psnr:.1f} dB"
        axes[0, column].set_title(title, color="white", fontsize=14)
        axes[1, column].imshow(np.abs(image[middle] - target[middle]), cmap="inferno", vmin=0, vmax=top / 5)
    for axis in axes.flat:
        axis.axis("off")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, facecolor="black")
    write_bytes(path, picture.getvalue())
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
