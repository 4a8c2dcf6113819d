"""The fit of relaxation maps to 96 x 96 voxels and four echoes, beside a loop over voxels with numpy.polyfit.

python tests/benchmarks/bench_relaxation.py
"""

from __future__ import annotations

import numpy as np
from timing import race

from mrnets.physics.relaxation import fit, signal

TIMES = np.array([0.003, 0.0115, 0.020, 0.0285], np.float32)


def echoes(b0: float, noise: float) -> np.ndarray:
    """(echo, y, x) complex64 of a disc, B0 up to about 1.6 `b0` Hz."""
    y, x = np.meshgrid(np.linspace(-1, 1, 96), np.linspace(-1, 1, 96), indexing="ij")
    maps = np.stack((20 + 30 * (x > 0), 1 + 0.5 * x, b0 * (x + 0.7 * np.sin(3 * y)), 2.5 * x + y))
    rng = np.random.default_rng(0)
    images = signal((maps * (x**2 + y**2 < 0.8)).astype(np.float32), TIMES)
    return (images + noise * (rng.normal(size=images.shape) + 1j * rng.normal(size=images.shape))).astype(np.complex64)


def voxel_by_voxel(images: np.ndarray) -> np.ndarray:
    """R2* alone, in the way to avoid."""
    magnitude = np.abs(images).reshape(len(images), -1)
    return np.array([-np.polyfit(TIMES, np.log(s), 1, w=s)[0] for s in magnitude.T])


def main() -> None:
    near, far = echoes(20, 1e-3), echoes(80, 1e-3)
    race(
        "Relaxation maps, 96 x 96, four echoes; the aim is 0.001 s",
        {
            "fit, four maps": lambda: fit(near, TIMES),
            "fit, B0 unwrapped over the neighbours": lambda: fit(far, TIMES),
            "numpy.polyfit voxel by voxel, R2* alone": lambda: voxel_by_voxel(near),
        },
        repeats=10,
    )


if __name__ == "__main__":
    main()
