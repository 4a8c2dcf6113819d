"""Multi-task learning for MRI reconstruction and segmentation."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch
from torch import Tensor, nn

from mrnets.blocks.attention import AttentionUnet
from mrnets.blocks.checks import whole
from mrnets.blocks.coilwise import one_echo
from mrnets.blocks.recurrent import Rim, RimLayers, State, infer
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["MTLRS"]

TRAITS = Traits(
    task="joint",
    title="multi-task learning for MRI reconstruction and segmentation",
    paper="Karkalousos et al., 2024",
    echoes="one",
    steps=3,
    small={
        "conv_filters": (4, 4, 2),
        "recurrent_filters": (4, 4),
        "time_steps": 2,
        "cascades": 2,
        "channels": 2,
        "pooling_layers": 2,
    },
    narrow={
        "conv_filters": (32, 32, 2),
        "recurrent_filters": (32, 32),
        "time_steps": 4,
        "cascades": 2,
        "channels": 8,
        "pooling_layers": 3,
    },
    aliases={
        "num_cascades": "cascades",
        "joint_reconstruction_segmentation_module_cascades": "cascades",
        "reconstruction_module_recurrent_layer": "recurrent_layer",
        "reconstruction_module_conv_filters": "conv_filters",
        "reconstruction_module_conv_kernels": "conv_kernels",
        "reconstruction_module_conv_dilations": "conv_dilations",
        "reconstruction_module_recurrent_filters": "recurrent_filters",
        "reconstruction_module_time_steps": "time_steps",
        "segmentation_module_output_channels": "classes",
        "segmentation_module_channels": "channels",
        "segmentation_module_pooling_layers": "pooling_layers",
        "segmentation_module_dropout": "dropout",
    },
    fixed={
        "segmentation_module": "AttentionUNet",
        "segmentation_module_input_channels": 1,
        "reconstruction_module_num_cascades": 1,
        "task_adaption_type": "multi_task_learning",
        "reconstruction_module_recurrent_kernels": (1, 1, 0),
        "reconstruction_module_recurrent_dilations": (1, 1, 0),
        "reconstruction_module_recurrent_bias": (True, True, False),
        "reconstruction_module_conv_bias": (True, True, False),
        "reconstruction_module_conv_dim": 2,
        "reconstruction_module_depth": 2,
        "reconstruction_module_no_dc": True,
        "reconstruction_module_keep_prediction": True,
        "reconstruction_module_accumulate_predictions": True,
    },
)


class MTLRS(nn.Module):
    """Cascades of an inference machine and an attention U-Net, which turns the magnitude image into logits.

    Image and state go on from cascade to cascade, and the segmentation is fed back. The magnitude image, weighted by
    the logits, is added to the state; the logits are brought to the range from 0 to 1 before. See
    `mrnets.blocks.recurrent` for the machine. Raises InputError for several echoes, and as `encoded` does.
    """

    def __init__(
        self,
        *,
        classes: int = 4,
        recurrent_layer: Literal["IndRNN", "GRU"] = "IndRNN",
        conv_filters: tuple[int, ...] = (64, 64, 2),
        conv_kernels: tuple[int, ...] = (5, 3, 3),
        conv_dilations: tuple[int, ...] = (1, 2, 1),
        recurrent_filters: tuple[int, ...] = (64, 64),
        time_steps: int = 8,
        cascades: int = 5,
        channels: int = 32,
        pooling_layers: int = 5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        whole("classes", classes, 1, 256)
        whole("cascades", cascades, 1, 64)
        self.time_steps = whole("time_steps", time_steps, 1, 128)
        layers = RimLayers(recurrent_layer, conv_filters, conv_kernels, conv_dilations, recurrent_filters)
        self.machines = nn.ModuleList(Rim(2, layers) for _ in range(cascades))
        self.segmentations = nn.ModuleList(
            AttentionUnet(1, classes, channels=channels, pooling_layers=pooling_layers, dropout=dropout)
            for _ in range(cascades)
        )

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, 1, y, x) complex64, logits (batch, class, y, x) float32.

        In training, steps: the image after every time step but the last, with logits where a cascade ends.
        """
        encoding = one_echo(scan, self)
        x = encoding.start
        state: State | None = None
        steps: list[Estimate] = []
        for machine, segmentation in zip(self.machines, self.segmentations, strict=True):
            images, state = infer(machine, self.time_steps, x, encoding, state)
            x = images[-1]
            logits = segmentation(x.abs())
            state = [hidden + _tiled(x.abs() * _in_range(logits), hidden.shape[1]) for hidden in state]
            estimate = dataclasses.replace(encoding.estimate(x), logits=logits)
            steps += [*(encoding.estimate(image) for image in images[:-1]), estimate]
        return dataclasses.replace(estimate, steps=tuple(steps[:-1]) if self.training else ())


def _in_range(logits: Tensor) -> Tensor:
    low, high = logits.amin((1, 2, 3), keepdim=True), logits.amax((1, 2, 3), keepdim=True)
    return (logits - low) / torch.clamp(high - low, min=1e-6)


def _tiled(features: Tensor, channels: int) -> Tensor:
    return features.repeat(1, math.ceil(channels / features.shape[1]), 1, 1)[:, :channels]
