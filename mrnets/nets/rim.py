"""Recurrent inference machine."""

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

__all__ = ["RIM"]

TRAITS = Traits(
    task="reconstruction",
    title="recurrent inference machine",
    paper="Lønning et al., MedIA 2019",
    steps=2,
    small={"conv_filters": (4, 4, 2), "recurrent_filters": (4, 4), "time_steps": 3},
    narrow={"conv_filters": (32, 32, 2), "recurrent_filters": (32, 32)},
)


class RIM(nn.Module):
    """One inference machine of `time_steps` steps; see `mrnets.blocks.recurrent`.

    start: for imported weights, see `Start`.
    Raises InputError where the scan lacks k-space, mask or what the sensitivities need.
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
        start: Start = "sense",
    ) -> None:
        super().__init__()
        one_of("start", start, get_args(Start))
        self.start: Start = start
        self.time_steps = whole("time_steps", time_steps, 1, 128)
        if conv_filters[-1:] != (2,):
            raise InputError(f"conv_filters must end with 2, the channels of one complex image, not {conv_filters}")
        self.machine = Rim(
            4,
            unit=recurrent_layer,
            filters=conv_filters,
            kernels=conv_kernels,
            dilations=conv_dilations,
            recurrent_filters=recurrent_filters,
        )

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64; in training, steps: the image after every step but the last."""
        encoding = encoded(scan, self)
        first = first_image(encoding.coil_images(), encoding.start, self.start)
        images = inferred([self.machine], self.time_steps, first, encoding)
        return encoding.estimate(*(magnitude(x, self.start) for x in images), steps=self.training)
