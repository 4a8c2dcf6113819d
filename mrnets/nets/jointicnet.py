"""Joint image and coil sensitivity network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mrnets.blocks.checks import whole
from mrnets.blocks.complex import on_planes
from mrnets.blocks.encoding import encoded
from mrnets.blocks.sensitivity import unit_norm
from mrnets.blocks.unet import NormUnet
from mrnets.contract import Estimate, Scan
from mrnets.physics.coils import expand, reduce
from mrnets.physics.fourier import fftc, ifftc
from mrnets.traits import Traits

__all__ = ["JointICNet", "image_gradient", "sens_gradient"]

TRAITS = Traits(
    task="reconstruction",
    title="joint image and coil sensitivity network",
    paper="Jun et al., CVPR 2021",
    echoes="together",
    small={"channels": 4},
    aliases={
        "num_iter": "iterations",
        "kspace_unet_num_filters": "channels",
        "kspace_unet_num_pool_layers": "pooling_layers",
        "imspace_unet_num_filters": "channels",
        "imspace_unet_num_pool_layers": "pooling_layers",
        "sens_unet_num_filters": "channels",
        "sens_unet_num_pool_layers": "pooling_layers",
    },
    fixed={
        "kspace_unet_dropout_probability": 0.0,
        "kspace_unet_normalize": True,
        "imspace_unet_dropout_probability": 0.0,
        "imspace_unet_normalize": True,
        "sens_unet_dropout_probability": 0.0,
        "sens_unet_normalize": True,
    },
)


class JointICNet(nn.Module):
    """Unrolled gradient descent for the image x and the sensitivities S in turn, on half the sum of four terms:

    |M F S x - y|^2 + image_weight |x - D_I(x)|^2 + kspace_weight |F x - D_F(F x)|^2 + sens_weight |S - D_S(S0)|^2.

    D_I, D_F and D_S are U-Nets on the image, on its k-space and on each of the given maps S0, where the descent starts.
    All iterations share them. Steps and weights are learned for every iteration. After every step the maps get unit
    norm, since the scales of S and x are otherwise open. All this is as in DIRECT's implementation (Yiasemis et al.,
    JOSS 2022), but for D_S, which there sees the coil images instead of S0. The maps stay zero where S0 is. k-space is
    scaled to an image maximum of 1 inside, so that a step means the same for every scan. Echoes share S, whose data
    term is their mean.
    Raises InputError where the scan lacks k-space, mask or sensitivities.
    """

    def __init__(
        self,
        *,
        iterations: int = 2,
        channels: int = 16,
        pooling_layers: int = 2,
    ) -> None:
        super().__init__()
        whole("iterations", iterations, 1, 64)
        self.image_net, self.kspace_net, self.map_net = (
            NormUnet(channels=channels, pooling_layers=pooling_layers) for _ in range(3)
        )
        self.image_step, self.sens_step, self.image_weight, self.kspace_weight, self.sens_weight = (
            nn.Parameter(torch.full((iterations,), 0.5)) for _ in range(5)
        )

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        encoding = encoded(scan, self)
        x, kspace, mask, sens = encoding.start, encoding.kspace, encoding.mask, encoding.sens
        scale = x.detach().abs().amax(dim=(-3, -2, -1), keepdim=True)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        x, kspace = x / scale, kspace / scale[..., None, :, :]
        prior = on_planes(self.map_net, sens)
        support = (sens != 0).any(dim=-3, keepdim=True)
        steps = zip(
            self.image_step, self.sens_step, self.image_weight, self.kspace_weight, self.sens_weight, strict=True
        )
        for image_step, sens_step, image_weight, kspace_weight, sens_weight in steps:
            sens = sens - sens_step * (sens_gradient(x, sens, kspace, mask) + sens_weight * (sens - prior))
            sens = unit_norm(sens) * support
            from_kspace = ifftc(on_planes(self.kspace_net, fftc(x)))
            x = x - image_step * (
                image_gradient(x, sens, kspace, mask)
                + image_weight * (x - on_planes(self.image_net, x))
                + kspace_weight * (x - from_kspace)
            )
        return encoding.estimate(x * scale)


def image_gradient(image: Tensor, sens: Tensor, kspace: Tensor, mask: Tensor) -> Tensor:
    """Gradient of half |M F S x - y|^2 with respect to conj(x): (batch, echo, y, x)."""
    gradient: Tensor = reduce(_residual(image, sens, kspace, mask), sens)
    return gradient


def sens_gradient(image: Tensor, sens: Tensor, kspace: Tensor, mask: Tensor) -> Tensor:
    """Gradient of half |M F S x - y|^2, its mean over echoes, with respect to conj(S): (batch, 1, coil, y, x)."""
    products = image.conj()[..., None, :, :] * _residual(image, sens, kspace, mask)
    return products.mean(dim=1, keepdim=True)


def _residual(image: Tensor, sens: Tensor, kspace: Tensor, mask: Tensor) -> Tensor:
    """M (F S x - y), as coil images."""
    residual: Tensor = ifftc(mask * (fftc(expand(image, sens)) - kspace))
    return residual
