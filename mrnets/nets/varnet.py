"""End-to-end variational network."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mrnets.blocks.checks import number, one_of, whole
from mrnets.blocks.complex import on_channels
from mrnets.blocks.consistency import cascaded, solved
from mrnets.blocks.correction import CorrectionUnet
from mrnets.blocks.encoding import Encoding, encoded
from mrnets.blocks.unet import NormUnet
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["VarNet"]

TRAITS = Traits(
    task="reconstruction",
    title="end-to-end variational network",
    paper="Sriram et al., MICCAI 2020",
    small={"cascades": 2, "channels": 4, "pooling_layers": 2},
    narrow={"cascades": 4, "channels": 8, "pooling_layers": 3},
    aliases={"num_cascades": "cascades"},
    fixed={"no_dc": False, "normalize": True},
)

Consistency = Literal["gradient", "proximal"]
"""With the data in each cascade: a step down the gradient, or the minimum that conjugate gradients find."""

_WEIGHT = 0.1
"""Weight of the distance to the denoised image, at the start of training."""


class VarNet(nn.Module):
    """Cascades of k <- k - w M (k - y) - E D(E^H k), from k = y. Each has a scalar w and a U-Net D of its own.

    start_iterations: of conjugate-gradient SENSE (with `start_regularisation`), whose k-space stands where nothing was
    measured at the start; 0, as published: zeros. A few cascades cannot unfold what gradient steps unfold slowly, such
    as regular undersampling with few coils.

    consistency: "gradient", as published, or "proximal", as PM of Hammernik et al. (2022) and MoDL. With the latter
    each cascade is x <- argmin ||E x - y||^2 + w ||x - z||^2 and z <- x + D(x). It starts from z = 0 or the start
    above, and the image is the last z. The minimum comes from `consistency_iterations` of conjugate gradients, which
    unfold what gradient steps need many cascades for. D is then a `CorrectionUnet`, which does not put the mean of its
    input back.

    Raises InputError where the scan lacks k-space, mask or sensitivities.
    """

    def __init__(
        self,
        *,
        cascades: int = 8,
        channels: int = 18,
        pooling_layers: int = 4,
        start_iterations: int = 0,
        start_regularisation: float = 0.01,
        consistency: Consistency = "gradient",
        consistency_iterations: int = 6,
    ) -> None:
        super().__init__()
        one_of("consistency", consistency, get_args(Consistency))
        gradient = consistency == "gradient"
        self.consistency_iterations = whole("consistency_iterations", consistency_iterations, 1, 1000)
        whole("cascades", cascades, 1, 64)
        self.start_iterations = whole("start_iterations", start_iterations, 0, 1000)
        self.start_regularisation = number("start_regularisation", start_regularisation, 0.0, 1e6)
        shape = {"channels": channels, "pooling_layers": pooling_layers}
        self.unets = nn.ModuleList(
            NormUnet(**shape) if gradient else CorrectionUnet(2, 2, **shape) for _ in range(cascades)
        )
        self.dc_weight = nn.Parameter(torch.ones(cascades)) if gradient else None
        self.log_weight = None if gradient else nn.Parameter(torch.full((cascades,), math.log(_WEIGHT)))

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        encoding = encoded(scan, self)
        guess = None
        if self.start_iterations:
            guess = solved(encoding.start, encoding, self.start_regularisation, iterations=self.start_iterations)
        if self.dc_weight is None:
            first = torch.zeros_like(encoding.start) if guess is None else guess
            return encoding.estimate(self._proximal(first, encoding))
        return encoding.estimate(cascaded(encoding, self.unets, self.dc_weight, guess)[-1])

    def _proximal(self, z: Tensor, encoding: Encoding) -> Tensor:
        assert self.log_weight is not None
        for unet, weight in zip(self.unets, self.log_weight.exp(), strict=True):
            x = z + solved(-encoding.gradient(z), encoding, weight, iterations=self.consistency_iterations)
            z = x + on_channels(unet, x)
        return z
