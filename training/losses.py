"""What a network is trained to make small. Axes: (batch, echo, y, x) complex64."""

from __future__ import annotations

from torch import Tensor

from training.metrics import ssim
from training.options import Loss

__all__ = ["loss"]


def loss(image: Tensor, target: Tensor, weights: Loss) -> Tensor:
    """Weighted mean of 1 - SSIM and L1 of magnitudes, and L1 of complex images; L1 relative to the target's maximum."""
    terms = []
    peak = target.abs().amax(dim=(-2, -1), keepdim=True)
    # abs has no gradient at 0, where sensitivities vanish
    magnitude = (image.real**2 + image.imag**2 + (1e-6 * peak) ** 2).sqrt()
    if weights.ssim:
        terms.append((weights.ssim, 1 - ssim(magnitude, target.abs()).mean()))
    if weights.l1:
        terms.append((weights.l1, ((magnitude - target.abs()).abs() / peak).mean()))
    if weights.complex_l1:
        error = image - target
        terms.append((weights.complex_l1, ((error.real**2 + error.imag**2 + (1e-6 * peak) ** 2).sqrt() / peak).mean()))
    return sum((w * term for w, term in terms), start=image.real.new_zeros(())) / sum(w for w, _ in terms)
