"""Prewhitening (covariance of a noise scan, whitener, its application) beside BART's `whiten` and plain NumPy.

Limits stand beside it. Memory: a copy of the same k-space. Arithmetic: a product of square matrices with as many
operations, which is the fastest that the library has.

    python tests/benchmarks/bench_whiten.py
"""

from __future__ import annotations

import numpy as np
import torch
from timing import bart, race

from mrnets.physics.coils import mix
from mrnets.physics.whiten import covariance, whitener

SAMPLES = 16384


def plain_numpy(kspace: np.ndarray, noise: np.ndarray) -> np.ndarray:
    lower = np.linalg.cholesky(np.cov(noise))
    return np.linalg.solve(lower, kspace.reshape(len(kspace), -1)).reshape(kspace.shape)


def contest(rng: np.random.Generator, slices: int, coils: int) -> None:
    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0]

    mixing = np.eye(coils) + 0.1 * normal(coils, coils)
    noise = (mixing @ normal(coils, SAMPLES)).astype(np.complex64)
    kspace = normal(slices, coils, 256, 256)
    tensor, noise_tensor = torch.from_numpy(kspace), torch.from_numpy(noise)
    square = normal(*2 * [round((coils**2 * slices * 256 * 256) ** (1 / 3))])
    readout_first = kspace.transpose(3, 2, 0, 1)  # BART: (x, y, z, coil)
    race(
        f"{slices} x {coils} coils x 256 x 256 ({kspace.nbytes / 2**20:.0f} MiB), {SAMPLES} noise samples",
        {
            "ours, NumPy": lambda: mix(whitener(covariance(noise)), kspace),
            "ours, torch": lambda: mix(whitener(covariance(noise_tensor)), tensor),
            "of which the noise scan, NumPy": lambda: whitener(covariance(noise)),
            "a copy of k-space": lambda: np.copy(kspace),
            f"a square product, {len(square)} x {len(square)}": lambda: square @ square,
            "plain NumPy (cov, cholesky, solve)": lambda: plain_numpy(kspace.swapaxes(0, 1), noise),
            "BART whiten": bart("whiten k n out", k=readout_first, n=noise.T[:, None, None, :]),
        },
        repeats=3,
    )


def main() -> None:
    rng = np.random.default_rng(0)
    for slices, coils in ((1, 12), (1, 32), (16, 32)):
        contest(rng, slices, coils)


if __name__ == "__main__":
    main()
