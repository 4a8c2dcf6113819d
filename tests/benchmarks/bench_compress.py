"""Coil compression: matrices from 24 calibration lines and their application, beside BART's `cc -G` and NumPy's SVD.

python tests/benchmarks/bench_compress.py
"""

from __future__ import annotations

import numpy as np
import torch
from timing import bart, race

from mrnets.physics.compress import compress, gdcc_matrices, svd_matrix
from mrnets.physics.fourier import fftc


def scan(coils: int, shape: tuple[int, int]) -> np.ndarray:
    """k-space (coil, y, x) of an ellipse seen by loops around it, with noise."""
    y, x = (np.linspace(-1, 1, n, endpoint=False) for n in shape)
    rng = np.random.default_rng(0)
    image = (x / 0.7) ** 2 + (y[:, None] / 0.9) ** 2 < 1
    kspace = np.empty((coils, *shape), np.complex64)
    for coil, angle in enumerate(np.arange(coils) * 2 * np.pi / coils):
        away = (x - 1.5 * np.cos(angle)) + 1j * (y[:, None] - 1.5 * np.sin(angle))
        kspace[coil] = fftc(image / away) + 0.002 * rng.standard_normal((*shape, 2)).view(np.complex128)[..., 0]
    return kspace


def numpy_svd(kspace: np.ndarray, calibration: np.ndarray, coils: int) -> np.ndarray:
    u, _, _ = np.linalg.svd(calibration.reshape(len(calibration), -1), full_matrices=False)
    return (u[:, :coils].conj().T @ kspace.reshape(len(kspace), -1)).reshape(coils, *kspace.shape[1:])


def kept(virtual: np.ndarray, kspace: np.ndarray) -> str:
    return f"energy kept {(np.linalg.norm(virtual) / np.linalg.norm(kspace)) ** 2:.4f}"


def two_dimensional(coils: int, virtual: int) -> None:
    kspace = scan(coils, (256, 256))
    calibration = np.ascontiguousarray(kspace[:, 116:140])
    tensor, lines = torch.from_numpy(kspace), torch.from_numpy(calibration)
    race(
        f"{coils} to {virtual} coils, 256 x 256",
        {
            "ours, gdcc, NumPy": lambda: compress(kspace, gdcc_matrices(calibration, virtual, size=256)),
            "ours, gdcc, torch": lambda: compress(tensor, gdcc_matrices(lines, virtual, size=256)),
            "ours, svd, NumPy": lambda: compress(kspace, svd_matrix(calibration, virtual)),
            "NumPy SVD": lambda: numpy_svd(kspace, calibration, virtual),
            "BART cc -G": bart(f"cc -G -p{virtual} -r256:24:1 k out", k=kspace.transpose(2, 1, 0)[:, :, None]),
        },
    )
    print("  gdcc:", kept(compress(kspace, gdcc_matrices(calibration, virtual, size=256)), kspace))
    print("  svd: ", kept(compress(kspace, svd_matrix(calibration, virtual)), kspace))


def three_dimensional(coils: int, virtual: int, shape: tuple[int, int, int]) -> None:
    depth, height, width = shape
    profile = np.hanning(depth).astype(np.complex64)
    kspace = profile[:, None, None] * scan(coils, (height, width))[:, None]
    block = kspace[:, depth // 2 - 12 : depth // 2 + 12, height // 2 - 12 : height // 2 + 12].copy()

    def flat(x: np.ndarray) -> np.ndarray:
        return x.reshape(coils, -1, width)

    readout_first = kspace.transpose(3, 2, 1, 0)
    race(
        f"{coils} to {virtual} coils, 3-D, {depth} x {height} x {width} ({kspace.nbytes / 2**20:.0f} MiB)",
        {
            "ours, gdcc, NumPy": lambda: compress(flat(kspace), gdcc_matrices(flat(block), virtual, size=width)),
            "ours, svd, NumPy": lambda: compress(flat(kspace), svd_matrix(flat(block), virtual)),
            "NumPy SVD": lambda: numpy_svd(kspace, block, virtual),
            "a copy of k-space": lambda: np.copy(kspace),
            "BART cc -G": bart(f"cc -G -p{virtual} -r{width}:24:24 k out", k=readout_first),
        },
        repeats=2,
    )


def main() -> None:
    two_dimensional(12, 4)
    two_dimensional(32, 8)
    three_dimensional(12, 4, (64, 160, 160))


if __name__ == "__main__":
    main()
