"""Variational network for relaxation maps, with Sriram et al.'s cascades.

The signal model of `mrnets.physics.relaxation`, in physical maps, takes the place of the image.
"""

from __future__ import annotations

import torch
from torch import nn

from mrnets.blocks.checks import number, one_of, whole
from mrnets.blocks.correction import CorrectionUnet
from mrnets.blocks.relaxometry import Initial, relaxometry
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["QVarNet"]

TRAITS = Traits(
    task="quantitative",
    title="variational network for relaxation maps, with Sriram et al.'s cascades",
    paper="Zhang et al., NeuroImage 2022",
    both_with=("initial", "image"),
    echoes="together",
    breaks_graph="echo times are checked before they are used, which depends on the data",
    small={"num_cascades": 2, "channels": 4, "pooling_layers": 2},
    narrow={"num_cascades": 3, "channels": 8, "pooling_layers": 2},
)


class QVarNet(nn.Module):
    """Cascades of maps <- maps - w * gradient of the data term + U(maps), R2* kept from becoming negative.

    Each cascade has a U-Net of its own and a step length w for each map. The maps start from a fit to a first
    reconstruction; see `relaxometry` for `initial`, and for the units in which the network works. Any number of echoes
    from two on.

    Raises InputError where the scan lacks k-space, mask, echo times or what the sensitivities need.
    """

    def __init__(
        self,
        *,
        num_cascades: int = 8,
        channels: int = 18,
        pooling_layers: int = 4,
        initial: Initial = "cgsense",
        initial_iterations: int = 10,
        initial_regularisation: float = 1e-3,
    ) -> None:
        super().__init__()
        whole("num_cascades", num_cascades, 1, 64)
        one_of("initial", initial, ("cgsense", "image"))
        self.initial = initial
        self.initial_iterations = whole("initial_iterations", initial_iterations, 1, 100)
        self.initial_regularisation = number("initial_regularisation", initial_regularisation, 0.0, 1e6)
        self.unets = nn.ModuleList(
            CorrectionUnet(4, 4, channels=channels, pooling_layers=pooling_layers, groups=4)
            for _ in range(num_cascades)
        )
        self.step = nn.Parameter(torch.full((num_cascades, 4), 0.5))

    def forward(self, scan: Scan) -> Estimate:
        """maps "R2*" in 1/s, "S0" in the scale of k-space, "B0" in Hz, "phase" in rad, each (batch, y, x) float32."""
        problem, maps = relaxometry(
            scan,
            self,
            initial=self.initial,
            iterations=self.initial_iterations,
            regularisation=self.initial_regularisation,
        )
        for unet, step in zip(self.unets, self.step, strict=True):
            maps = maps - step[:, None, None] * problem.gradient(maps) + unet(maps)
            maps = torch.cat((maps[:, :1].clamp(min=0), maps[:, 1:]), dim=1)
        estimate: Estimate = problem.estimate(maps)
        return estimate
