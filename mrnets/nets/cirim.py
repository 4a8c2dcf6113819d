"""Cascades of independently recurrent inference machines."""

from __future__ import annotations

from typing import Literal

from torch import nn

from mrnets.blocks.checks import whole
from mrnets.blocks.encoding import encoded
from mrnets.blocks.recurrent import Rim, RimLayers, inferred
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["CIRIM"]

TRAITS = Traits(
    task="reconstruction",
    title="cascades of independently recurrent inference machines",
    paper="Karkalousos et al., PMB 2022",
    steps=3,
    small={"conv_filters": (4, 4, 2), "recurrent_filters": (4, 4), "time_steps": 2, "cascades": 2},
    narrow={"cascades": 2, "conv_filters": (32, 32, 2), "recurrent_filters": (32, 32), "time_steps": 4},
    aliases={"num_cascades": "cascades"},
    fixed={
        "recurrent_kernels": (1, 1, 0),
        "recurrent_dilations": (1, 1, 0),
        "recurrent_bias": (True, True, False),
        "conv_bias": (True, True, False),
        "conv_dim": 2,
        "depth": 2,
        "no_dc": True,
        "keep_prediction": True,
        "accumulate_predictions": True,
    },
)


class CIRIM(nn.Module):
    """`cascades` inference machines one after the other, each of `time_steps` steps; see `mrnets.blocks.recurrent`.

    Raises InputError where the scan lacks k-space, mask or sensitivities.
    """

    def __init__(
        self,
        *,
        recurrent_layer: Literal["IndRNN", "GRU"] = "IndRNN",
        conv_filters: tuple[int, ...] = (128, 128, 2),
        conv_kernels: tuple[int, ...] = (5, 3, 3),
        conv_dilations: tuple[int, ...] = (1, 2, 1),
        recurrent_filters: tuple[int, ...] = (128, 128),
        time_steps: int = 8,
        cascades: int = 5,
    ) -> None:
        super().__init__()
        self.time_steps = whole("time_steps", time_steps, 1, 128)
        layers = RimLayers(recurrent_layer, conv_filters, conv_kernels, conv_dilations, recurrent_filters)
        self.machines = nn.ModuleList(Rim(2, layers) for _ in range(whole("cascades", cascades, 1, 64)))

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64; in training, steps: the image after every step but the last."""
        encoding = encoded(scan, self)
        images = inferred(self.machines, self.time_steps, encoding.start, encoding)
        return encoding.estimate(*images, steps=self.training)
