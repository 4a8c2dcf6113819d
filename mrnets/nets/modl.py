"""Model-based deep learning."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor, nn

from mrnets.blocks.checks import number, one_of, whole
from mrnets.blocks.complex import to_channels, to_complex
from mrnets.blocks.consistency import Start, first_image, magnitude, solved
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
    small={"unrolled_iterations": 2, "residual_blocks": 2, "channels": 4},
    narrow={"channels": 32, "residual_blocks": 3},
)


class MoDL(nn.Module):
    """Iterations of z = x + D(x), x <- argmin ||E x - k||^2 + weight ||x - z||^2, all with the same D and weight.

    The minimum is found by conjugate gradients with the sampling mask in E; the weight is learned and stays positive.
    conjugate_gradient False: x <- D(x) and no data consistency at all, which no paper proposes, for imported weights.

    regularization_factor: what a residual block's change is multiplied by.
    start: for imported weights, see `Start`.
    Raises InputError where the scan lacks k-space, mask or what the sensitivities need.
    """

    def __init__(
        self,
        *,
        unrolled_iterations: int = 5,
        residual_blocks: int = 5,
        channels: int = 64,
        regularization_factor: float = 0.1,
        conjugate_gradient: bool = True,
        conjugate_gradient_iterations: int = 10,
        penalization_weight: float = 0.05,
        start: Start = "sense",
    ) -> None:
        super().__init__()
        one_of("start", start, get_args(Start))
        self.start: Start = start
        self.unrolled_iterations = whole("unrolled_iterations", unrolled_iterations, 1, 64)
        self.conjugate_gradient_iterations = whole(
            "conjugate_gradient_iterations", conjugate_gradient_iterations, 1, 1000
        )
        number("penalization_weight", penalization_weight, 1e-6, 1e6)
        self.denoiser = _ResNet(
            whole("residual_blocks", residual_blocks, 0, 64),
            whole("channels", channels, 1, 1024),
            number("regularization_factor", regularization_factor),
        )
        self.log_weight = nn.Parameter(torch.tensor(penalization_weight).log()) if conjugate_gradient else None

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        encoding = encoded(scan, self)
        x = first_image(encoding.coil_images(), encoding.start, self.start)
        for _ in range(self.unrolled_iterations):
            denoised = self.denoiser(x.reshape(-1, 1, *x.shape[-2:])).reshape(x.shape)
            if self.log_weight is None:
                x = denoised
                continue
            weight = self.log_weight.exp()
            rhs = encoding.start + weight * (x + denoised)
            x = solved(rhs, encoding, weight, iterations=self.conjugate_gradient_iterations)
        return encoding.estimate(magnitude(x, self.start))


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
        return to_complex(by_taps(self.last, self.middle(features) + first))


def _conv(i: int, o: int) -> nn.Conv2d:
    conv = nn.Conv2d(i, o, 3, padding=1, bias=False)
    nn.init.xavier_normal_(conv.weight)
    return conv
