"""Zero-filled data and coil combination, no weights."""

from __future__ import annotations

from torch import nn

from mrnets.blocks.encoding import initial_image, measured
from mrnets.contract import Estimate, Scan
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
        kspace, mask = measured(scan, self)
        return Estimate(image=initial_image(kspace, mask, scan.sens))
