"""Variational network for relaxation maps, with Sriram et al.'s cascades.

The signal model of `mrnets.physics.relaxation`, in physical maps, takes the place of the image.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import nn

from mrnets.blocks.checks import number, one_of, whole
from mrnets.blocks.correction import CorrectionUnet
from mrnets.blocks.relaxometry import Start, relaxometry, with_decay
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["QVarNet"]

TRAITS = Traits(
    task="quantitative",
    title="variational network for relaxation maps, with Sriram et al.'s cascades",
    paper="Zhang et al., NeuroImage 2022",
    both_with=("start", "image"),
    echoes="together",
    breaks_graph="echo times are checked before they are used, which depends on the data",
    small={"cascades": 2, "channels": 4, "pooling_layers": 2},
    narrow={"cascades": 3, "channels": 8, "pooling_layers": 2},
    aliases={
        "num_cascades": "cascades",
        "initial": "start",
        "initial_iterations": "start_iterations",
        "initial_regularisation": "start_regularisation",
        "quantitative_module_num_cascades": "cascades",
        "quantitative_module_channels": "channels",
        "quantitative_module_pooling_layers": "pooling_layers",
    },
)


class QVarNet(nn.Module):
    """Cascades of maps <- maps - w * gradient of the data term + U(maps), R2* kept from becoming negative.

    Each cascade has a U-Net of its own and a step length w for each map.

    The maps start from a fit to a first reconstruction. See `relaxometry` for `start`, and for the units in which the
    network works. Any number of echoes from two on.
    Raises InputError where the scan lacks k-space, mask, echo times or sensitivities.
    """

    def __init__(
        self,
        *,
        cascades: int = 8,
        channels: int = 18,
        pooling_layers: int = 4,
        start: Start = "cgsense",
        start_iterations: int = 10,
        start_regularisation: float = 1e-3,
    ) -> None:
        super().__init__()
        whole("cascades", cascades, 1, 64)
        one_of("start", start, get_args(Start))
        self.start: Start = start
        self.start_iterations = whole("start_iterations", start_iterations, 1, 100)
        self.start_regularisation = number("start_regularisation", start_regularisation, 0.0, 1e6)
        self.unets = nn.ModuleList(
            CorrectionUnet(4, 4, channels=channels, pooling_layers=pooling_layers, groups=4) for _ in range(cascades)
        )
        self.step = nn.Parameter(torch.full((cascades, 4), 0.5))

    def forward(self, scan: Scan) -> Estimate:
        """maps "R2*" in 1/s, "S0" in the scale of k-space, "B0" in Hz, "phase" in rad, each (batch, y, x) float32."""
        problem, maps = relaxometry(
            scan,
            self,
            start=self.start,
            iterations=self.start_iterations,
            regularisation=self.start_regularisation,
        )
        for unet, step in zip(self.unets, self.step, strict=True):
            maps = with_decay(maps - step[:, None, None] * problem.gradient(maps) + unet(maps))
        estimate: Estimate = problem.estimate(maps)
        return estimate
