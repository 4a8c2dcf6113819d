"""How good an image is: SSIM, PSNR and NMSE of magnitudes, per image, differentiable.

Axes: image and target (..., y, x), real; the result has the leading axes. The data range is the target's maximum, of
each image for itself: nothing is clipped or floored.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["nmse", "psnr", "ssim"]


def ssim(image: Tensor, target: Tensor, *, width: int = 7) -> Tensor:
    """Structural similarity (Wang 2004) with a uniform window, sample variances, and windows wholly inside the image.

    The mean over the image; as scikit-image's structural_similarity with data_range = target maximum.
    """
    lead, (ny, nx) = image.shape[:-2], image.shape[-2:]
    x, y = image.reshape(-1, 1, ny, nx), target.reshape(-1, 1, ny, nx)
    data_range = y.amax(dim=(-2, -1), keepdim=True)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2

    # Sums of products around the mean of the whole image: less cancellation in float32.
    centre = y.mean(dim=(-2, -1), keepdim=True)
    u, v = x - centre, y - centre
    means = functional.avg_pool2d(torch.cat((u, v, u * u, v * v, u * v), dim=1), width, stride=1)
    mean_u, mean_v, mean_uu, mean_vv, mean_uv = (means[:, i : i + 1] for i in range(5))
    sample = width**2 / (width**2 - 1)
    var_x, var_y = sample * (mean_uu - mean_u**2), sample * (mean_vv - mean_v**2)
    covariance = sample * (mean_uv - mean_u * mean_v)
    mean_x, mean_y = mean_u + centre, mean_v + centre
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    denominator = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return (numerator / denominator).mean(dim=(-3, -2, -1)).reshape(lead)


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, dB: 10 log10(max(target)^2 / mean squared error)."""
    peak, error = target.amax(dim=(-2, -1)), ((image - target) ** 2).mean(dim=(-2, -1))
    return 10 * torch.log10(peak**2 / error)


def nmse(image: Tensor, target: Tensor) -> Tensor:
    """Squared error over the target's energy."""
    error, energy = ((image - target) ** 2).sum(dim=(-2, -1)), (target**2).sum(dim=(-2, -1))
    return error / energy
