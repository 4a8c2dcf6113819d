"""Coil sensitivities beside BART `ecalib -m1` and SigPy `EspiritCalib`: seconds, and projection error of the maps.

python tests/benchmarks/bench_sensitivities.py [--volume]

The projection error is || (1 - S S^H) x || / || x || over the noise-free coil images x. The coils are like a birdcage's
around a Shepp-Logan phantom with phase. The signal-to-noise ratio is 200 at its brightest, the calibration block 24
along each axis.
`--volume` adds a volume, 12 coils and 64 x 64 x 48, on which the peers take minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from timing import bart, race

from mrnets.physics.espirit import espirit
from mrnets.physics.fourier import fftc, resize
from mrnets.physics.low_resolution import rss_maps
from mrnets.physics.simulate import phantom

try:
    from sigpy.mri.app import EspiritCalib
except ImportError:
    EspiritCalib = None


def grid(shape: tuple[int, ...]) -> list[np.ndarray]:
    return np.meshgrid(*[(np.arange(n) - n // 2) / (n / 2) for n in shape], indexing="ij")


def birdcage(coils: int, shape: tuple[int, ...]) -> np.ndarray:
    """(coil, [z,] y, x) of unit norm; coils of a volume in two rings."""
    *depth, y, x = grid(shape)
    rings = 2 if depth else 1
    number = np.arange(coils).reshape(-1, *[1] * len(shape))
    angle = 2 * np.pi * (number // rings) * rings / coils
    u, v = x - 1.5 * np.cos(angle), y - 1.5 * np.sin(angle)
    along = depth[0] - 1.2 * (number % rings - 0.5) if depth else 0.0
    sens = np.exp(1j * (np.arctan2(u, -v) - angle)) / np.sqrt(u**2 + v**2 + along**2)
    return sens / np.linalg.norm(sens, axis=0)


def scan(coils: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Noise-free coil images, and k-space with noise."""
    *depth, y, x = grid(shape)
    image = phantom(shape[-2:]) * np.exp(1j * (1.5 * x + 2 * y**2 - 0.8 * x * y))
    if depth:
        image = image * (np.abs(depth[0]) < 0.8)
    images = birdcage(coils, shape) * image
    noise = np.random.default_rng(0).standard_normal((*images.shape, 2)).view(np.complex128)[..., 0]
    noise *= np.abs(image).max() / 200 / np.sqrt(2)
    axes = tuple(range(-len(shape), 0))
    return images.astype(np.complex64), (fftc(images, axes) + noise).astype(np.complex64)


def keeping(results: dict[str, Any], name: str, run: Callable[[], object]) -> Callable[[], object]:
    def kept() -> None:
        results[name] = run()

    return kept


def compare(title: str, coils: int, shape: tuple[int, ...], repeats: int) -> None:
    images, kspace = scan(coils, shape)
    axes = tuple(range(-len(shape), 0))
    block = resize(kspace, [24] * len(shape), axes).copy()
    volume = kspace.reshape(coils, -1, *shape[-2:])  # BART's axes are x, y, z, coil in column-major order
    ecalib = bart("ecalib -m1 -r24 -c0 k sens", k=volume.transpose(3, 2, 1, 0))
    results: dict[str, Any] = {}
    contestants = {
        "ours, NumPy": keeping(results, "ours, NumPy", lambda: espirit(block, shape)),
        "ours, torch": keeping(results, "ours, torch", lambda: espirit(torch.from_numpy(block), shape)),
        "ours, low resolution over RSS": keeping(results, "ours, low resolution", lambda: rss_maps(block, shape)),
        "BART ecalib -m1": ecalib and keeping(results, "BART", ecalib),
        "SigPy EspiritCalib": EspiritCalib
        and keeping(results, "SigPy", lambda: EspiritCalib(kspace, calib_width=24, crop=0, show_pbar=False).run()),
    }
    race(title, contestants, repeats)
    if ecalib is not None:
        results["BART"] = np.fromfile(results["BART"] / "sens.cfl", np.complex64).reshape(coils, *shape)
    for name, sens in results.items():
        sens = np.asarray(sens)
        norm = np.linalg.norm(sens, axis=0)
        sens = sens / np.where(norm > 0, norm, 1)
        error = np.linalg.norm(images - sens * np.sum(np.conj(sens) * images, axis=0)) / np.linalg.norm(images)
        print(f"  projection error, {name:<30} {error:.4f}")


def batch(count: int, coils: int, size: int) -> None:
    """Print the time that a training step takes for maps of its batch."""
    blocks = np.stack([resize(scan(coils, (size, size))[1], (24, 24))] * count)
    tensor = torch.from_numpy(blocks)
    race(
        f"batch of {count}, {coils} coils, {size} x {size}",
        {
            "ours, torch, together": lambda: espirit(tensor, (size, size)),
            "ours, torch, one after another": lambda: [espirit(one, (size, size)) for one in tensor],
        },
    )


def main() -> None:
    torch.set_num_threads(1)
    for coils in (12, 32):
        compare(f"{coils} coils, 256 x 256", coils, (256, 256), 2)
    batch(4, 12, 160)
    if "--volume" in sys.argv[1:]:
        compare("12 coils, 64 x 64 x 48", 12, (64, 64, 48), 1)


if __name__ == "__main__":
    main()
