"""Reference vectors of ATOMMIC 1.0.1 (tests/data/atommic): published configurations at small widths, on a phantom.

A file holds inputs, outputs and such weights as were not drawn from torch's default uniform distribution. The others
are drawn again: the predecessor's networks were made with seed 0, and the file lists their tensors in the order they
were made.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from mrnets.atommic import named

FOLDER = Path(__file__).parents[1] / "data" / "atommic"


@dataclass(frozen=True)
class Vector:
    name: str
    options: dict[str, Any]
    """For `store.create(name, **options)`, which is the network as ATOMMIC computes it."""
    weights: dict[str, Tensor]
    """ATOMMIC's state dict."""
    tensors: dict[str, Tensor]
    """Inputs and outputs, in our axes."""


def vector(name: str) -> Vector:
    metadata, tensors = _read(name)
    weights = drawn(json.loads(metadata["seeded"]))
    for key in [key for key in tensors if key.startswith("weights.")]:
        weights[key.removeprefix("weights.")] = tensors.pop(key)
    for other in json.loads(metadata.get("shares", "[]")):
        tensors |= _read(other)[1]
    return Vector(*named(name, json.loads(metadata["options"])), weights, tensors)


def cc359() -> dict[str, Tensor]:
    """The second run, of reconstruction networks: images by name, and "kspace" as ATOMMIC's transform has it."""
    return {key: torch.view_as_complex(value) for key, value in _read("cc359")[1].items()}


def _read(name: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(FOLDER / f"{name}.safetensors", framework="pt") as file:
        return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def drawn(shapes: list[tuple[str, list[int]]]) -> dict[str, Tensor]:
    """torch's defaults: uniform within 1 / sqrt(inputs of a neuron), a bias as the weight before it."""
    generator = torch.Generator().manual_seed(0)
    weights, bound = {}, 1.0
    for key, shape in shapes:
        if len(shape) > 1:
            bound = torch.Size(shape[1:]).numel() ** -0.5
        weights[key] = torch.empty(shape).uniform_(-bound, bound, generator=generator)
    return weights


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float(torch.linalg.vector_norm(ours - theirs) / torch.linalg.vector_norm(theirs))


def min_max(logits: Tensor) -> Tensor:
    """ATOMMIC's scaling of its logits."""
    return torch.abs((logits - logits.min()) / (logits.max() - logits.min()))
