"""Cascades of recurrent inference machines for relaxation maps.

The signal model of `mrnets.physics.relaxation`, in physical maps, takes the place of the image.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

from mrnets.blocks.checks import number, one_of, whole
from mrnets.blocks.recurrent import Rim, RimLayers
from mrnets.blocks.relaxometry import Start, inferred_maps, relaxometry
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["QCIRIM"]

TRAITS = Traits(
    task="quantitative",
    title="cascades of recurrent inference machines for relaxation maps",
    paper="Zhang et al., NeuroImage 2022",
    both_with=("start", "image"),
    echoes="together",
    steps=3,
    breaks_graph="echo times are checked before they are used, which depends on the data",
    small={"conv_filters": (4, 4, 4), "recurrent_filters": (4, 4), "time_steps": 2, "cascades": 2},
    narrow={"cascades": 1, "conv_filters": (32, 32, 4), "recurrent_filters": (32, 32)},
    aliases={
        "num_cascades": "cascades",
        "initial": "start",
        "initial_iterations": "start_iterations",
        "initial_regularisation": "start_regularisation",
        "quantitative_module_recurrent_layer": "recurrent_layer",
        "quantitative_module_conv_filters": "conv_filters",
        "quantitative_module_conv_kernels": "conv_kernels",
        "quantitative_module_conv_dilations": "conv_dilations",
        "quantitative_module_recurrent_filters": "recurrent_filters",
        "quantitative_module_time_steps": "time_steps",
        "quantitative_module_num_cascades": "cascades",
    },
    fixed={
        "quantitative_module_recurrent_kernels": (1, 1, 0),
        "quantitative_module_recurrent_dilations": (1, 1, 0),
        "quantitative_module_recurrent_bias": (True, True, False),
        "quantitative_module_conv_bias": (True, True, False),
        "quantitative_module_conv_dim": 2,
        "quantitative_module_depth": 2,
        "quantitative_module_no_dc": True,
        "quantitative_module_keep_prediction": True,
        "quantitative_module_accumulate_predictions": True,
    },
)


class QCIRIM(nn.Module):
    """`cascades` inference machines one after the other, each of `time_steps` steps: maps <- maps + Rim(maps, g).

    g is the gradient of the data term with respect to the maps. R2* is kept from becoming negative. Maps and state go
    on from machine to machine.

    The maps start from a fit to a first reconstruction. See `relaxometry` for `start`, and for the units in which the
    network works. Any number of echoes from two on.
    Raises InputError where the scan lacks k-space, mask, echo times or sensitivities.
    """

    def __init__(
        self,
        *,
        recurrent_layer: Literal["IndRNN", "GRU"] = "IndRNN",
        conv_filters: tuple[int, ...] = (64, 64, 4),
        conv_kernels: tuple[int, ...] = (5, 3, 3),
        conv_dilations: tuple[int, ...] = (1, 2, 1),
        recurrent_filters: tuple[int, ...] = (64, 64),
        time_steps: int = 8,
        cascades: int = 5,
        start: Start = "cgsense",
        start_iterations: int = 10,
        start_regularisation: float = 1e-3,
    ) -> None:
        super().__init__()
        self.time_steps = whole("time_steps", time_steps, 1, 128)
        one_of("start", start, get_args(Start))
        self.start: Start = start
        self.start_iterations = whole("start_iterations", start_iterations, 1, 100)
        self.start_regularisation = number("start_regularisation", start_regularisation, 0.0, 1e6)
        layers = RimLayers(recurrent_layer, conv_filters, conv_kernels, conv_dilations, recurrent_filters)
        self.machines = nn.ModuleList(Rim(4, layers) for _ in range(whole("cascades", cascades, 1, 64)))

    def forward(self, scan: Scan) -> Estimate:
        """maps "R2*" in 1/s, "S0" in the scale of k-space, "B0" in Hz, "phase" in rad, each (batch, y, x) float32.

        In training, steps: the maps after every step but the last.
        """
        problem, maps = relaxometry(
            scan,
            self,
            start=self.start,
            iterations=self.start_iterations,
            regularisation=self.start_regularisation,
        )
        *earlier, last = inferred_maps(self.machines, self.time_steps, maps, problem.gradient)
        estimate: Estimate = problem.estimate(last, tuple(map(problem.estimate, earlier)) if self.training else ())
        return estimate
