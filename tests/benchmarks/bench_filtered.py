"""The noise level of k-space that a scanner has filtered: by its periphery, and as a chain takes it.

    python tests/benchmarks/bench_filtered.py [--size 256]

One coil, a Shepp-Logan phantom, 2-fold along y with 24 lines of the centre. Each figure is the level over the true one,
which the filter makes smaller. "none" has no filter: both must be near 1.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from mrnets.physics.filtered import filtered_noise
from mrnets.physics.fourier import fftc
from mrnets.physics.simulate import phantom
from mrnets.physics.whiten import periphery_covariance


def filters(size: int) -> dict[str, np.ndarray]:
    """Weights (x,) by name."""
    u = np.abs(np.arange(size) - size // 2) / (size / 2)
    return {
        "none": np.ones(size),
        "Hamming": 0.54 + 0.46 * np.cos(np.pi * u),
        "Hann": 0.5 + 0.5 * np.cos(np.pi * u),
        "Tukey 0.3": np.where(u < 0.7, 1, 0.5 + 0.5 * np.cos(np.pi * (u - 0.7) / 0.3)),
        "Fermi": 1 / (1 + np.exp((u - 0.9) / 0.03)),
    }


def measured(size: int, snr: float, rng: np.random.Generator) -> np.ndarray:
    """K-space (1, 1, 1, y, x) complex64 whose noise has a standard deviation of 1."""
    noise = rng.standard_normal((2, size, size)) / math.sqrt(2)
    kspace = fftc(snr * phantom((size, size)).astype(np.complex64)) + noise[0] + 1j * noise[1]
    sampled = (np.arange(size) % 2 == 0) | (np.abs(np.arange(size) - size // 2) < 12)
    return np.where(sampled[:, None], kspace, 0).astype(np.complex64)[None, None, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    args = parser.parse_args()
    print(f"{'filter':10s} {'along':7s} {'SNR':>4s}  periphery  taken")
    for name, weights in filters(args.size).items():
        for along, both in (("x", 1.0), ("x and y", weights[:, None])):
            truth = math.sqrt(np.mean(weights**2) * np.mean(both**2))
            for snr in (5, 20, 100):
                kspace = measured(args.size, snr, np.random.default_rng(0)) * (weights * both).astype(np.float32)
                level = math.sqrt(float(periphery_covariance(kspace).diagonal().real.mean()))
                found = filtered_noise(kspace, level) or level
                print(f"{name:10s} {along:7s} {snr:4d}  {level / truth:9.3f}  {found / truth:5.2f}")


if __name__ == "__main__":
    main()
