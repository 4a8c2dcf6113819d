"""qVarNet as ATOMMIC 1.0.1 computes it."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor, nn

from mrnets.atommic.forms import padded
from mrnets.atommic.relaxometry import Problem, problem_of
from mrnets.blocks.checks import number, one_of, whole
from mrnets.blocks.relaxometry import Start
from mrnets.blocks.unet import NormUnet
from mrnets.contract import Estimate, Scan
from mrnets.errors import InputError
from mrnets.traits import Traits

__all__ = ["QVarNet"]

TRAITS = Traits(
    task="quantitative",
    title="variational network for relaxation maps",
    paper="Zhang et al., NeuroImage 2022",
    differs="its signal model holds in the scale of its training data only, and its B0 has one sign only",
    both_with=("start", "image"),
    echoes="together",
    small={"cascades": 2, "channels": 4, "pooling_layers": 2},
    aliases={
        "quantitative_module_num_cascades": "cascades",
        "quantitative_module_channels": "channels",
        "quantitative_module_pooling_layers": "pooling_layers",
        "quantitative_module_padding_size": "padding",
    },
    fixed={
        "use_reconstruction_module": False,
        "quantitative_module_in_channels": 8,
        "quantitative_module_out_channels": 8,
        "quantitative_module_normalize": True,
        "quantitative_module_signal_forward_model_sequence": "MEGRE",
        "quantitative_maps_regularization_factors": (150.0, 150.0, 1000.0, 150.0),
    },
)

ECHOES = 4
"""The residuals of so many echoes stand for the changes of as many maps."""


class QVarNet(nn.Module):
    """Cascades of maps <- |maps + U(w r)|, each with a U-Net U and a weight w of its own.

    r are the residuals of the four echoes in the image, which U turns into complex changes of the four maps. Parts of
    R2* below 0 become 0 before the magnitude is taken. See `mrnets.atommic.relaxometry` for the signal model. The
    options of the start are those of our qvarnet.
    Raises InputError where the scan lacks k-space, mask, echo times or sensitivities, or has not four echoes.
    """

    name = "atommic.qvarnet"

    def __init__(
        self,
        *,
        cascades: int = 8,
        channels: int = 18,
        pooling_layers: int = 4,
        padding: int | None = 11,
        start: Start = "image",
        start_iterations: int = 10,
        start_regularisation: float = 1e-3,
    ) -> None:
        super().__init__()
        whole("cascades", cascades, 1, 64)
        one_of("start", start, get_args(Start))
        self.start: Start = start
        self.start_iterations = whole("start_iterations", start_iterations, 1, 100)
        self.start_regularisation = number("start_regularisation", start_regularisation, 0.0, 1e6)
        shape = {"channels": channels, "pooling_layers": pooling_layers}
        self.unets = nn.ModuleList(padded(NormUnet(ECHOES, ECHOES, **shape), padding=padding) for _ in range(cascades))
        self.dc_weight = nn.Parameter(torch.ones(cascades))

    def forward(self, scan: Scan) -> Estimate:
        """maps "R2*" in 1/s, "S0" in the scale of k-space, "B0" in Hz, "phase" in rad, each (batch, y, x) float32."""
        problem = problem_of(
            scan,
            self,
            start=self.start,
            iterations=self.start_iterations,
            regularisation=self.start_regularisation,
        )
        if (echoes := len(problem.echo_times)) != ECHOES:
            raise InputError(f"{self.name} takes {ECHOES} echoes, and the scan has {echoes}")
        return problem.estimate(self.refined(problem))

    def refined(self, problem: Problem) -> Tensor:
        """The last maps, in ATOMMIC's units."""
        maps = problem.start
        for unet, weight in zip(self.unets, self.dc_weight, strict=True):
            change = unet(weight * problem.encoding.gradient(problem.signal(maps)))
            real, imag = maps + change.real, change.imag
            first = torch.complex(real[:, :1].clamp(min=0), imag[:, :1].clamp(min=0))
            maps = torch.cat((first, torch.complex(real[:, 1:], imag[:, 1:])), dim=1).abs()
        return maps
