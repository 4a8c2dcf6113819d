"""A trained network as ONNX, or as a program of torch.export, for other software: where it has no complex numbers.

The exported graph takes images as they are, of any scale, and normalises them as the weights file says.
Axes: image (batch, contrast, [z,] y, x) float32; logits (batch, class, [z,] y, x) float32.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mrnets import store
from mrnets.errors import InputError
from mrnets.files import make_folder, write_bytes
from mrnets.preparation import Preparation
from mrnets.prepare_image import prepare_image

__all__ = ["FACTS", "SIZE", "exported"]

SIZE = (256, 256)
FACTS = "mrnets"
"""The key under which the file holds the weights file's header, as JSON: labels, preparation, provenance."""


class _Plain(nn.Module):
    """Logits of images: normalisation and network in one."""

    def __init__(self, trained: store.Trained) -> None:
        super().__init__()
        self.network = trained.network
        self.preparation = Preparation.from_json(trained.preparation)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (batch, class, [z,] y, x)."""
        logits = self.network(prepare_image(image, self.preparation).scan).logits
        assert isinstance(logits, Tensor)
        return logits


def exported(weights: str | Path, path: Path, size: tuple[int, int] = SIZE) -> Path:
    """Write the network of a weights file as `path` (.onnx or .pt2) and return that.

    Any number of images of `size` (y, x) goes through it. Raises InputError with the reason where it cannot be: another
    ending of `path`, complex numbers, or what torch's exporter says.
    """
    writers: dict[str, Callable[[_Plain, Tensor, str], bytes]] = {".onnx": _onnx, ".pt2": _program}
    if path.suffix not in writers:
        raise InputError(f"{path}: the ending must be .onnx (ONNX) or .pt2 (torch.export)")
    trained = store.load(weights)
    if reason := _complex(trained):
        raise InputError(f"{weights} cannot be exported: {reason}; `python -m gadgets replay` and `serve` run it")
    module = _Plain(trained).eval()
    facts = json.dumps({key: value for key, value in trained.metadata.items() if key != "tensors"})
    try:
        with torch.no_grad(), _quiet():
            content = writers[path.suffix](module, _example(module, size), facts)
    except (InputError, ModuleNotFoundError):
        raise
    except Exception as error:  # whatever torch's exporter meets in a network
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{weights} cannot be exported: {type(error).__name__}: {reason}") from error
    make_folder(path.parent)
    write_bytes(path, content)
    return path


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what exporters tell their developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _example(module: _Plain, size: tuple[int, int]) -> Tensor:
    """Two images, because torch takes an axis of length 1 for a constant."""
    preparation = module.preparation
    contrasts = preparation.contrasts or int(getattr(module.network, "contrasts", 1))
    return torch.rand((2, contrasts, *([preparation.slices] if preparation.slices > 1 else []), *size))


def _complex(trained: store.Trained) -> str:
    """Return why a network has complex numbers; empty where it has none."""
    preparation = Preparation.from_json(trained.preparation)
    if store.describe(trained.name).takes_with(trained.options) != "image":
        return f"{trained.name} takes k-space and computes with complex numbers, which ONNX does not have"
    if preparation.image == "complex":
        return f"{trained.name} takes complex images, and ONNX does not have complex numbers"
    if preparation.kspace_crop is not None or preparation.normalise == "kspace":
        return "its preparation goes through k-space, and ONNX does not have complex numbers"
    return ""


def _traced(module: _Plain, image: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(module, (image,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},))


def _program(module: _Plain, image: Tensor, facts: str) -> bytes:
    content = io.BytesIO()
    torch.export.save(_traced(module, image), content, extra_files={FACTS: facts})
    return content.getvalue()


def _onnx(module: _Plain, image: Tensor, facts: str) -> bytes:
    program: Any = torch.onnx.export(
        _traced(module, image), input_names=["image"], output_names=["logits"], dynamo=True, verbose=False
    )
    model = program.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = FACTS, facts
    return bytes(model.SerializeToString())
