"""Cascades of independently recurrent inference machines."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

from mrnets.blocks.checks import one_of, whole
from mrnets.blocks.consistency import Start, first_image, magnitude
from mrnets.blocks.encoding import encoded
from mrnets.blocks.recurrent import Rim, inferred
from mrnets.contract import Estimate, Scan
from mrnets.errors import InputError
from mrnets.traits import Traits

__all__ = ["CIRIM"]

TRAITS = Traits(
    task="reconstruction",
    title="cascades of independently recurrent inference machines",
    paper="Karkalousos et al., PMB 2022",
    steps=3,
    small={"conv_filters": (4, 4, 2), "recurrent_filters": (4, 4), "time_steps": 2, "num_cascades": 2},
    narrow={"num_cascades": 2, "conv_filters": (32, 32, 2), "recurrent_filters": (32, 32), "time_steps": 4},
)


class CIRIM(nn.Module):
    """`num_cascades` inference machines one after the other, each of `time_steps` steps; see `mrnets.blocks.recurrent`.

    start: for imported weights, see `Start`.
    Raises InputError where the scan lacks k-space, mask or what the sensitivities need.
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
        num_cascades: int = 5,
        start: Start = "sense",
    ) -> None:
        super().__init__()
        one_of("start", start, get_args(Start))
        self.start: Start = start
        self.time_steps = whole("time_steps", time_steps, 1, 128)
        if conv_filters[-1:] != (2,):
            raise InputError(f"conv_filters must end with 2, the channels of one complex image, not {conv_filters}")
        self.machines = nn.ModuleList(
            Rim(
                4,
                unit=recurrent_layer,
                filters=conv_filters,
                kernels=conv_kernels,
                dilations=conv_dilations,
                recurrent_filters=recurrent_filters,
            )
            for _ in range(whole("num_cascades", num_cascades, 1, 64))
        )

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64; in training, steps: the image after every step but the last."""
        encoding = encoded(scan, self)
        first = first_image(encoding.coil_images(), encoding.start, self.start)
        images = inferred(self.machines, self.time_steps, first, encoding)
        return encoding.estimate(*(magnitude(x, self.start) for x in images), steps=self.training)
