"""Pictures of a validation: rows of zero-filled, estimate, target, and the error five times as bright."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["write"]


def write(path: Path, rows: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
    """PNG of magnitudes (y, x): zero-filled, estimate, target of each row. Writes nothing where pillow is absent."""
    try:
        from PIL import Image
    except ModuleNotFoundError:
        return
    width = max(max(t.shape) for _, _, t in rows)
    lines = []
    for zero_filled, estimate, target in rows:
        peak = target.max().clamp(min=1e-12)
        tiles = [zero_filled / peak, estimate / peak, target / peak, 5 * (estimate - target).abs() / peak]
        ny, nx = target.shape
        lines.append(torch.cat([functional.pad(t, (0, width - nx, 0, width - ny)) for t in tiles], dim=1))
    grey = (torch.cat(lines).clamp(0, 1) * 255).to(torch.uint8)
    Image.fromarray(grey.numpy()).save(path)
