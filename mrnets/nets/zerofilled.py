"""Zero-filled data and coil combination, no weights."""

from __future__ import annotations

import torch
from torch import nn

from mrnets.blocks.encoding import initial_image, measured
from mrnets.contract import Estimate, Scan
from mrnets.physics.coils import norm
from mrnets.traits import Traits

__all__ = ["ZeroFilled"]

TRAITS = Traits(
    task="reconstruction",
    title="zero-filled data and coil combination, no weights",
    paper="Roemer et al., MRM 1990",
    learns=False,
    sens="optional",
)


class ZeroFilled(nn.Module):
    """SENSE combination of the inverse-transformed data (Roemer 1990); root of the sum of squares without maps."""

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        kspace, mask = measured(scan, self, sets=True)
        image = initial_image(kspace, mask, scan.sens)
        if scan.sens is not None:
            power = norm(scan.sens) ** 2
            image = image / torch.where(power > 0, power, 1)
        return Estimate(image=image)
