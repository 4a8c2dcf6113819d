"""Scores of the methods that ship on real scans: fully sampled k-space, of which samples are dropped.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_real.py KSPACE.cfl [KSPACE.npy ...]

A file holds one slice: (coil, y, x) in NumPy's order, the readout along x. A cfl file has BART's order, (x, y, coil).
The corners of the image must be empty. They give the noise, and k-space is whitened by it.
The reference is the fully sampled scan, combined by coil maps of all its data (BART's, where that is installed).
*Classical* is the best of BART's CG-SENSE, l1-wavelet and total variation. For each the reference chooses the weight
and the kind of coil maps, which no scanner can do. GRAPPA, which BART lacks, is not among them.
Figures are the PSNR in dB over the foreground, after the factor that fits best.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage
from timing import bart

import mrnets
from mrnets.physics import masks, whiten
from mrnets.physics.coils import mix
from mrnets.physics.espirit import espirit
from mrnets.physics.fourier import ifftc, resize

OURS = ("cgsense", "l1wavelet", "l1varnet_general")
LINES, CENTRE = (4, 6, 8), 20
"""Distances between lines, and how many central lines there are at least."""
POISSON = (5, 10)
CORNER = 12
"""Pixels along the side of each corner that shows the noise."""
FOREGROUND = 0.08
"""Least magnitude of the object, relative to the brightest pixel."""
MAPS = ("-m1 -c0.8 -W", "-m1 -c0.8 -k4", "-m1 -c0")
METHODS = {"CG-SENSE": "-l2 -r {}", "l1-wavelet": "-l1 -r {}", "total variation": "-R T:3:0:{}"}
WEIGHTS = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)


def read(path: Path) -> np.ndarray:
    """K-space (coil, y, x) complex64 of a file."""
    if path.suffix == ".npy":
        return np.load(path).astype(np.complex64)
    sizes = [int(n) for n in path.with_suffix(".hdr").read_text().split("\n")[1].split()]
    return np.fromfile(path.with_suffix(".cfl"), np.complex64).reshape(sizes[::-1]).squeeze()


def background(kspace: np.ndarray) -> np.ndarray:
    """Samples of noise (coil, sample): the corners of the coil images."""
    ends = (slice(0, CORNER), slice(-CORNER, None))
    images = ifftc(kspace)
    return np.concatenate([images[:, y, x].reshape(len(kspace), -1) for y, x in itertools.product(ends, ends)], axis=1)


def samplings(shape: tuple[int, int]) -> Iterator[tuple[str, np.ndarray]]:
    """Names of ways to undersample, and their masks (y, x)."""
    rng = np.random.default_rng(0)
    for distance in LINES:
        yield f"every {distance}th line", masks.regular1d(shape, distance, rng, centre=CENTRE / shape[0])
    for acceleration in POISSON:
        yield f"Poisson disc, {acceleration}-fold", masks.poisson2d(shape, acceleration, rng)


def made(command: str, shape: tuple[int, ...], **inputs: np.ndarray) -> np.ndarray | None:
    """Result of BART's `command` on arrays (coil, y, x): an array of `shape`. None without BART."""
    run = bart(f"{command} result", **{name: x.T[:, :, None] for name, x in inputs.items()})
    return run and read(run() / "result.cfl").reshape(shape)


def psnr(image: np.ndarray, reference: np.ndarray, where: np.ndarray) -> float:
    """PSNR in dB of magnitude images over the mask `where`, after the factor that fits best over all pixels."""
    size = np.abs(image)
    error = size * ((size * reference).sum() / max((size * size).sum(), 1e-30)) - reference
    return float(20 * np.log10(reference.max() / np.sqrt((error[where] ** 2).mean())))


def foreground(reference: np.ndarray) -> np.ndarray:
    """Mask of the object, holes filled."""
    width = max(3, round(max(reference.shape) / 40))
    bright = np.pad(reference > FOREGROUND * reference.max(), width)
    closed = ndimage.binary_fill_holes(ndimage.binary_closing(bright, iterations=width))
    return closed[width:-width, width:-width]


def combined(kspace: np.ndarray) -> np.ndarray:
    """Magnitude (y, x) of fully sampled k-space, combined by maps of all its data."""
    maps = made("ecalib -m1 -c0 -r24 kspace", kspace.shape, kspace=kspace)
    if maps is None:
        maps = espirit(resize(kspace, (24, 24)), kspace.shape[1:])
    return np.abs((maps.conj() * ifftc(kspace)).sum(0))


def classical(kspace: np.ndarray, reference: np.ndarray, where: np.ndarray) -> str:
    """Best of the classical methods that BART has: its PSNR and name."""
    found = []
    for maps in MAPS:
        sens = made(f"ecalib {maps} kspace", kspace.shape, kspace=kspace)
        if sens is None:
            return "not installed"
        for (name, method), weight in itertools.product(METHODS.items(), WEIGHTS):
            command = f"pics -S -i 60 {method.format(weight)} kspace sens"
            image = made(command, kspace.shape[1:], kspace=kspace, sens=sens)
            if image is not None:
                found.append((psnr(image, reference, where), name))
    best, name = max(found)
    return f"{best:.1f} ({name})"


def scored(path: Path) -> None:
    """Print the scores of one scan."""
    kspace = read(path)
    noise = background(kspace)
    white = mix(whiten.whitener(whiten.covariance(noise)), kspace)
    reference = combined(white)
    where = foreground(reference)
    print(f"{path}: {kspace.shape[0]} coils, {kspace.shape[1]} x {kspace.shape[2]}, foreground PSNR in dB")
    print("| sampling | classical | " + " | ".join(OURS) + " |")
    for name, mask in samplings(kspace.shape[1:]):
        row = [name, classical(white * mask, reference, where)]
        for weights in OURS:
            image = mrnets.reconstruct(kspace * mask, weights, mask=mask, noise=noise).image
            row.append(f"{psnr(image, reference, where):.1f}")
        print("| " + " | ".join(row) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kspace", nargs="*", type=Path)
    paths = parser.parse_args().kspace
    if not paths:
        print("no scans to score: give files of fully sampled k-space (--help)")
    for path in paths:
        scored(path)


if __name__ == "__main__":
    main()
