"""The noise by which a scan is still to be whitened, and its noise level then. Axes: see `mrnets.contract`."""

from __future__ import annotations

import math
from contextlib import suppress

import torch

from mrnets.contract import Raw
from mrnets.errors import InputError
from mrnets.noise import levels
from mrnets.physics import whiten
from mrnets.physics.arrays import Array
from mrnets.physics.filtered import filtered_noise
from mrnets.preparation import Preparation
from mrnets.tensors import part, sent

__all__ = ["covariance_left", "noise_level"]

ESTIMATED_FROM = 8
"""Slices, evenly spaced, from which an unknown noise level is estimated."""
FEW_COILS = 4
"""Fewer coils do not predict the samples of each other. Calibration lines of one coil showed 1.1 to 7 times the
noise."""
FILTERED = "background of the image, since the edges of k-space seem to be filtered"


def covariance_left(raw: Raw, preparation: Preparation) -> Array | None:
    """Return the noise (coil, coil) by which `raw` is still to be whitened; None: it stays as it is.

    Raises InputError where `raw` is whitened and the network wants it otherwise.
    """
    if preparation.whiten == "none":
        if raw.whitened:
            raise InputError("the network wants data that are not prewhitened: set noise.whiten=false")
        return None
    if raw.whitened:
        return None
    if raw.noise is not None or preparation.whiten != "periphery":
        return raw.noise
    first = raw.kspace[:, :1]  # the first echo, as for the calibration
    return whiten.periphery_covariance(first, start=preparation.patch_start, length=preparation.patch_length)


def noise_level(raw: Raw) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    """Return the standard deviation (batch,) of complex noise in a sample of one coil, and notes if it was estimated.

    raw: torch tensors. Whitened data have the root of their variance, less by averaging. Other data are looked at:
    slices one by one, since those of a training batch come from several scans, and a volume as a whole.
    """
    batch = raw.kspace.shape[0]
    if raw.whitened:
        level = math.sqrt(raw.variance / raw.averages)
        return torch.full((batch,), level, device=raw.kspace.device), ()
    lines = None if raw.calibration is None else raw.calibration[:, 0]
    if raw.readout == "batch":
        (seen,) = [None] if lines is None else levels(lines[batch // 2 : batch // 2 + 1])
        found = [_estimated(raw, seen)] * batch
    else:
        each = [None] * batch if lines is None else levels(lines)
        found = [_estimated(part(raw, slice(n, n + 1)), seen) for n, seen in enumerate(each)]
    known, notes = [level for level, _ in found if level is not None], tuple(dict.fromkeys(n for _, n in found if n))
    return (sent(torch.tensor(known), raw.kspace.device) if len(known) == batch else None), notes


def _estimated(raw: Raw, seen: float | None) -> tuple[float | None, str]:
    """Return the noise level of unwhitened data, the mean over the coils, and where it came from.

    It is what was `seen` in calibration lines, or comes from the periphery of k-space of a few slices. With few coils
    both may have signal in them, and the smaller one is nearer to the noise.
    """
    found = {"calibration lines": seen} if seen else {}
    if not seen or raw.kspace.shape[-3] < FEW_COILS:
        step = max(len(raw.kspace) // ESTIMATED_FROM, 1)
        with suppress(InputError):
            some = raw.kspace[::step, :1]
            level = math.sqrt(float(whiten.periphery_covariance(some).diagonal().real.mean()))
            filtered = None if raw.readout == "batch" else filtered_noise(some, level)
            found |= {"periphery of k-space": level} if filtered is None else {FILTERED: filtered}
    if not found:
        return None, "the noise level is not known"
    level, where = min((level, where) for where, level in found.items())
    return level, f"the noise level was estimated from the {where}" if level else ""
