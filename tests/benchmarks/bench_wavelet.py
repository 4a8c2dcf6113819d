"""l1-wavelet beside BART `pics`: seconds, and error of the image, on one thread.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_wavelet.py

256 x 256, 8 coils like a birdcage's around a Shepp-Logan phantom with phase, SNR 50 at its brightest, its true maps.
BART gets the best of its weights, by the error. Ours gets no setting: its threshold follows from the noise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from bench_sensitivities import birdcage, grid
from timing import bart, race

from mrnets.physics import coils, masks
from mrnets.physics.simulate import phantom
from mrnets.physics.wavelets import l1_wavelet

SHAPE = (256, 256)
COILS = 8
SNR = 50
ITERATIONS = (30, 60)
"""Iterations of ours."""
BART_ITERATIONS = 60
WEIGHTS = (1e-3, 3e-3, 1e-2, 3e-2)
"""BART's, relative to the largest magnitude of the zero-filled image."""
MASKS = {
    "4-fold lines": lambda rng: masks.equispaced1d(SHAPE, 4, rng),
    "5-fold Poisson disc": lambda rng: masks.poisson2d(SHAPE, 5, rng),
}


def error(image: np.ndarray, truth: np.ndarray) -> float:
    """|| image - truth || / || truth ||, after the one complex factor that fits best: BART's transform has a sign."""
    image = image * (np.vdot(image, truth) / np.vdot(image, image))
    return float(np.linalg.norm(image - truth) / np.linalg.norm(truth))


def pics(kspace: np.ndarray, maps: np.ndarray, scale: float, weight: float) -> Callable[[], np.ndarray] | None:
    """BART's `pics`, of which the image is returned; None without BART."""
    inputs = {name: x.transpose(1, 2, 0)[:, :, None] for name, x in (("kspace", kspace), ("maps", maps))}
    command = f"pics -S -w {scale:g} -i {BART_ITERATIONS} -R W:3:0:{weight:g} kspace maps image"
    run = bart(command, **inputs)
    if run is None:
        return None

    def reconstructed() -> np.ndarray:
        return np.fromfile(run() / "image.cfl", np.complex64).reshape(SHAPE, order="F")

    return reconstructed


def compare(name: str, mask: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    y, x = grid(SHAPE)
    truth = (phantom(SHAPE) * np.exp(1j * (1.5 * x + 2 * y**2 - 0.8 * x * y))).astype(np.complex64)
    maps = birdcage(COILS, SHAPE).astype(np.complex64)
    noise = float(np.abs(truth).max()) / SNR
    drawn = rng.standard_normal((*maps.shape, 2)).astype(np.float32).view(np.complex64)[..., 0] / np.sqrt(2)
    kspace = (coils.forward(truth, maps, mask) + noise * mask * drawn).astype(np.complex64)
    start = coils.adjoint(kspace, maps, mask)
    ours = [torch.from_numpy(np.ascontiguousarray(a)) for a in (start, maps, mask)]
    contestants: dict[str, Callable[[], np.ndarray] | None] = {
        f"ours, {n} iterations": lambda n=n: l1_wavelet(*ours, noise, iterations=n).numpy() for n in ITERATIONS
    }
    contestants.update({f"BART pics, weight {w:g}": pics(kspace, maps, float(np.abs(start).max()), w) for w in WEIGHTS})
    errors = {label: error(run(), truth) for label, run in contestants.items() if run is not None}
    best = min((label for label in errors if label.startswith("BART")), key=lambda label: errors[label], default=None)
    race(
        f"{name}, {COILS} coils, {SHAPE[0]} x {SHAPE[1]}",
        {label: run for label, run in contestants.items() if label == best or not (best and label.startswith("BART"))},
        repeats=2,
    )
    print("  errors: " + "; ".join(f"{label}: {value:.4f}" for label, value in errors.items()))


def main() -> None:
    torch.set_num_threads(1)
    for name, mask in MASKS.items():
        compare(name, mask(np.random.default_rng(0)))


if __name__ == "__main__":
    main()
