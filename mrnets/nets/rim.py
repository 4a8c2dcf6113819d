"""Recurrent inference machine."""

from __future__ import annotations

from typing import Literal

from torch import nn

from mrnets.blocks.checks import whole
from mrnets.blocks.encoding import encoded
from mrnets.blocks.recurrent import Rim, RimLayers, inferred
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["RIM"]

TRAITS = Traits(
    task="reconstruction",
    title="recurrent inference machine",
    paper="Lønning et al., MedIA 2019",
    steps=2,
    small={"conv_filters": (4, 4, 2), "recurrent_filters": (4, 4), "time_steps": 3},
    narrow={"conv_filters": (32, 32, 2), "recurrent_filters": (32, 32)},
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
        "num_cascades": 1,
    },
)


class RIM(nn.Module):
    """One inference machine of `time_steps` steps; see `mrnets.blocks.recurrent`.

    Raises InputError where the scan lacks k-space, mask or sensitivities.
    """

    def __init__(
        self,
        *,
        recurrent_layer: Literal["GRU", "IndRNN"] = "GRU",
        conv_filters: tuple[int, ...] = (64, 64, 2),
        conv_kernels: tuple[int, ...] = (5, 3, 3),
        conv_dilations: tuple[int, ...] = (1, 2, 1),
        recurrent_filters: tuple[int, ...] = (64, 64),
        time_steps: int = 8,
    ) -> None:
        super().__init__()
        self.time_steps = whole("time_steps", time_steps, 1, 128)
        layers = RimLayers(recurrent_layer, conv_filters, conv_kernels, conv_dilations, recurrent_filters)
        self.machine = Rim(2, layers)

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64; in training, steps: the image after every step but the last."""
        encoding = encoded(scan, self)
        images = inferred([self.machine], self.time_steps, encoding.start, encoding)
        return encoding.estimate(*images, steps=self.training)
