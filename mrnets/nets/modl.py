"""Model-based deep learning."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mrnets.blocks.checks import number, whole
from mrnets.blocks.complex import on_planes, to_channels, to_complex
from mrnets.blocks.consistency import solved
from mrnets.blocks.encoding import encoded
from mrnets.blocks.taps import by_taps
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["MoDL"]

TRAITS = Traits(
    task="reconstruction",
    title="model-based deep learning",
    paper="Aggarwal et al., IEEE TMI 2019",
    breaks_graph="conjugate gradients stop when the residual is small, which depends on the data",
    small={"iterations": 2, "residual_blocks": 2, "channels": 4},
    narrow={"channels": 32, "residual_blocks": 3},
    aliases={
        "unrolled_iterations": "iterations",
        "regularization_factor": "residual_scale",
        "conjugate_gradient_iterations": "consistency_iterations",
        "penalization_weight": "consistency_weight",
    },
    fixed={"conjugate_gradient_dc": True},
)


class MoDL(nn.Module):
    """Iterations of a denoiser and of the image that fits the data next to it, all with the same D and weight:

    z = x + D(x), x <- argmin ||E x - k||^2 + weight ||x - z||^2.

    The minimum is found by conjugate gradients with the sampling mask in E. The weight is learned and stays positive.

    residual_scale: what a residual block's change is multiplied by.
    Raises InputError where the scan lacks k-space, mask or sensitivities.
    """

    def __init__(
        self,
        *,
        iterations: int = 5,
        residual_blocks: int = 5,
        channels: int = 64,
        residual_scale: float = 0.1,
        consistency_iterations: int = 10,
        consistency_weight: float = 0.05,
    ) -> None:
        super().__init__()
        self.iterations = whole("iterations", iterations, 1, 64)
        self.consistency_iterations = whole("consistency_iterations", consistency_iterations, 1, 1000)
        number("consistency_weight", consistency_weight, 1e-6, 1e6)
        self.denoiser = _ResNet(
            whole("residual_blocks", residual_blocks, 0, 64),
            whole("channels", channels, 1, 1024),
            number("residual_scale", residual_scale),
        )
        self.log_weight = nn.Parameter(torch.tensor(consistency_weight).log())

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        encoding = encoded(scan, self)
        x, weight = encoding.start, self.log_weight.exp()
        for _ in range(self.iterations):
            denoised = on_planes(self.denoiser, x)
            rhs = encoding.start + weight * (x + denoised)
            x = solved(rhs, encoding, weight, iterations=self.consistency_iterations)
        return encoding.estimate(x)


class _ResNet(nn.Module):
    """Residual network without normalisation (Lim et al. 2017) on complex (batch, 1, y, x)."""

    def __init__(self, blocks: int, channels: int, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.first = _conv(2, channels)
        self.conv1 = nn.ModuleList(_conv(channels, channels) for _ in range(blocks))
        self.conv2 = nn.ModuleList(_conv(channels, channels) for _ in range(blocks))
        self.middle = _conv(channels, channels)
        self.last = _conv(channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        features = first = self.first(to_channels(x))
        for conv1, conv2 in zip(self.conv1, self.conv2, strict=True):
            features = torch.add(features, conv2(torch.relu_(conv1(features))), alpha=self.factor)
        return to_complex(by_taps(self.last, self.middle(features).add_(first)))


def _conv(i: int, o: int) -> nn.Conv2d:
    conv = nn.Conv2d(i, o, 3, padding=1, bias=False)
    nn.init.xavier_normal_(conv.weight)
    return conv
