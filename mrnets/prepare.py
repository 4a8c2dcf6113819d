"""From raw k-space to what a network was trained on, and back. The same code runs in training and on the scanner.

A weights file carries its `Preparation`. `prepare` completes what the stages before it have not done yet, and refuses
data on which a stage did something else than the network was trained with. Axes: see `mrnets.contract`.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from array_api_compat import is_cupy_array, is_numpy_array
from torch.utils.dlpack import from_dlpack

from mrnets.contract import Estimate, Raw, Scan
from mrnets.errors import InputError, unknown
from mrnets.physics import compress, espirit, whiten
from mrnets.physics.arrays import Array, array_namespace
from mrnets.physics.coils import mix, reduce, rss
from mrnets.physics.fourier import ifftc, resize

__all__ = ["Preparation", "Prepared", "compress_raw", "prepare", "restore", "sense_raw", "to_torch", "whiten_raw"]

Compression = Literal["auto", "gdcc", "svd"]
Sensitivities = Literal["espirit", "rss", "unitary", "none"]
Normalisation = Literal["max", "none"]


MOST_CROPPED = 0.3
"""Share of a slice's energy that ESPIRiT's crop may take."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What a network expects of its input. Part of every weights file."""

    whiten: Literal["covariance", "periphery", "none"] = "covariance"
    """"covariance": by the measured noise, left as it is where none was measured; "periphery": where none was measured,
    by the noise at the periphery of k-space; "none": the network wants unwhitened data."""
    coils: int | None = None
    """The number of coils the network takes; None: any number."""
    compression: Compression = "auto"
    """How to get to `coils`: geometric-decomposition ("gdcc"), plain ("svd"), or the first where there is a readout."""
    sens: Sensitivities = "espirit"
    """Where sensitivities come from; "none": the network takes none, or estimates its own."""
    kernel: int = 6
    """ESPIRiT kernel width, in samples."""
    calibration: int = 24
    """Width of the calibration block for sensitivities, in samples, where that much was measured."""
    threshold: float = 0.01
    """ESPIRiT: singular values of the calibration matrix that count half, relative to the largest."""
    crop: float = 0.9
    """ESPIRiT: eigenvalues below this are background, where the maps are zero."""
    normalisation: Normalisation = "max"
    """"max": k-space is divided by the largest magnitude of the zero-filled combined image, for each slice."""

    def __post_init__(self) -> None:
        for field, choices in _CHOICES.items():
            value = getattr(self, field)
            if value not in choices:
                raise unknown(f"value of {field} in a preparation", str(value), choices)
        if self.coils is not None and self.coils < 1:
            raise InputError(f"preparation: coils must be at least 1, got {self.coils}")

    def to_json(self) -> dict[str, Any]:
        """All fields, as JSON values."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Preparation:
        """The inverse of `to_json`; InputError for an unknown field or a value of the wrong type."""
        fields = {f.name: f for f in dataclasses.fields(Preparation)}
        for name, value in values.items():
            if name not in fields:
                raise unknown("field of a preparation", name, fields)
            default = fields[name].default
            accepted: tuple[type, ...] = (int, type(None)) if name == "coils" else (type(default),)
            if float in accepted:
                accepted = (float, int)
            if not isinstance(value, accepted) or isinstance(value, bool):
                raise InputError(f"preparation: {name} must be {accepted[0].__name__}, got {value!r}")
        return Preparation(**values)


_CHOICES: dict[str, tuple[str, ...]] = {
    "whiten": ("covariance", "periphery", "none"),
    "compression": get_args(Compression),
    "sens": get_args(Sensitivities),
    "normalisation": get_args(Normalisation),
}


@dataclass(frozen=True)
class Prepared:
    """A network's input, and the way back."""

    scan: Scan
    scale: Array
    """(batch,) float32: what `scan` was divided by."""
    phase: Array
    """(batch, y, x) complex64 of magnitude 1: what the image of `scan` lacks. Sensitivities estimated from the data
    contain the phase of the low-resolution image; a network sees an image that is nearly real, and its estimate gets
    back the phase that a fixed combination of the coils (the strongest virtual coil of the calibration lines) sees."""


def prepare(raw: Raw, preparation: Preparation, *, device: torch.device | str | None = None) -> Prepared:
    """`raw` (of any array library) as the torch Scan that a network with this `preparation` was trained on.

    Runs on `device`; None: where the data are. CuPy arrays come over without a copy. Raises InputError where an earlier
    stage contradicts `preparation`, or where the data cannot fulfil it (too few coils, no calibration lines).
    """
    raw = to_torch(raw, device)
    raw = _whitened(raw, preparation)
    raw = _compressed(raw, preparation)
    raw = _sensed(raw, preparation)
    scale = _scale(raw, preparation)
    factor = (1 / scale)[:, None, None, None, None]
    scan = Scan(
        kspace=raw.kspace * factor,
        mask=raw.mask,
        sens=None if preparation.sens == "none" else raw.sens,
        echo_times=raw.echo_times,
        calibration=None if raw.calibration is None else raw.calibration * factor,
    )
    return Prepared(scan, scale, _phase(raw))


def restore(estimate: Estimate, prepared: Prepared) -> Estimate:
    """`estimate` of `prepared.scan` in the units of the scanner: the image and the map "S0" by the scale, the image and
    the map "phase" by the phase. Drops `steps`."""
    scale = prepared.scale[:, None, None]
    back = {
        "S0": lambda m: m * scale,
        "phase": lambda m: torch.angle(torch.polar(torch.ones_like(m), m) * prepared.phase),
    }
    return dataclasses.replace(
        estimate,
        image=None if estimate.image is None else estimate.image * (scale * prepared.phase)[:, None],
        maps={name: back[name](m) if name in back else m for name, m in estimate.maps.items()},
        steps=(),
    )


def to_torch(raw: Raw, device: torch.device | str | None = None) -> Raw:
    """`raw` with torch tensors on `device` (None: where they are); no copy where the memory can be shared."""

    def tensor(x: Any) -> Any:
        if is_numpy_array(x):
            x = torch.from_numpy(x if x.flags.writeable else x.copy())
        elif is_cupy_array(x):
            x = from_dlpack(x)
        return x if device is None or not isinstance(x, torch.Tensor) else x.to(device)

    return dataclasses.replace(raw, **{f.name: tensor(getattr(raw, f.name)) for f in dataclasses.fields(raw)})


def whiten_raw(raw: Raw, covariance: Array) -> Raw:
    """`raw` with coils mixed so that noise of `covariance` (coil, coil) becomes white (Pruessmann 2001, app. A)."""
    if raw.whitened:
        raise InputError("prewhitening: these data are whitened already")
    if raw.sens is not None or raw.compressed:
        raise InputError("prewhitening must come before coil compression and before coil sensitivities")
    matrix = whiten.whitener(covariance)
    return dataclasses.replace(
        raw,
        kspace=mix(matrix, raw.kspace),
        calibration=None if raw.calibration is None else mix(matrix, raw.calibration),
        noise=None,
        whitened=True,
    )


def compress_raw(raw: Raw, coils: int, method: Compression = "auto", **options: Any) -> Raw:
    """`raw` with `coils` virtual coils, k-space and calibration by the same matrices; unchanged if it has that many.

    Matrices come from the calibration lines, or from the sampled k-space where there are none. `options` go to
    `physics.compress.gdcc_matrices` (window, align). Noise stays white, since every matrix has orthonormal rows.
    """
    have = raw.kspace.shape[-3]
    if coils == have:
        return raw
    if coils > have:
        raise InputError(f"coil compression: {coils} virtual coils asked for, but the data have {have} coils")
    if raw.compressed:
        raise InputError(f"coil compression: already compressed to {have} coils, now {coils} are asked for")
    if raw.sens is not None:
        raise InputError("coil compression must come before coil sensitivities")
    if method == "auto":
        method = "svd" if raw.readout is None else "gdcc"
    if method == "gdcc" and raw.readout is None:
        raise InputError("coil compression: gdcc needs a fully sampled readout; use svd")
    lines = (raw.kspace if raw.calibration is None else raw.calibration)[:, 0]
    if method == "svd":
        matrices, apply = compress.svd_matrix(lines, coils), _mixed
    elif raw.readout == "batch":
        matrices, apply = compress.gdcc_hybrid_matrices(lines, coils, **options), _mixed
    else:
        matrices, apply = compress.gdcc_matrices(lines, coils, size=raw.kspace.shape[-1], **options), compress.compress
    matrices = matrices[:, None]  # the same for every echo
    return dataclasses.replace(
        raw,
        kspace=apply(raw.kspace, matrices),
        calibration=None if raw.calibration is None else apply(raw.calibration, matrices),
        noise=None,
        compressed=method,
    )


def sense_raw(
    raw: Raw,
    method: Sensitivities = "espirit",
    *,
    kernel: int = 6,
    calibration: int = 24,
    threshold: float = 0.01,
    crop: float = 0.9,
) -> Raw:
    """`raw` with sensitivities from its calibration lines. Options as in `Preparation`. InputError without lines.

    Slices from which ESPIRiT's crop would take much of the object (few calibration lines for many coils) keep all of
    their maps, with a warning: a noisy background is better than a missing head.
    """
    if raw.calibration is None:
        raise InputError("coil sensitivities: the scan has no calibration lines (no fully sampled centre of k-space)")
    lines = raw.calibration[:, 0]
    shape = raw.kspace.shape[-2:]
    if method == "espirit":
        options: dict[str, Any] = {"width": calibration, "kernel": kernel, "threshold": threshold}
        sens = espirit.espirit(lines, shape, crop=crop, **options)
        xp = array_namespace(sens)
        empty = _cropped(lines, sens) > MOST_CROPPED
        if bool(xp.any(empty)):
            _logger.warning(
                "coil sensitivities: %s calibration lines do not carry the maps of %d coils; the background is kept",
                "x".join(map(str, lines.shape[-2:])),
                lines.shape[-3],
            )
            sens = xp.where(empty[:, None, None, None], espirit.espirit(lines, shape, crop=0.0, **options), sens)
    elif method == "rss":
        sens = espirit.rss_maps(lines, shape, width=calibration)
    elif method == "unitary":
        sens = espirit.unitary_maps(lines, shape)
    else:
        raise unknown("method for coil sensitivities", method, ("espirit", "rss", "unitary"))
    return dataclasses.replace(raw, sens=sens[:, None], sens_method=method)


def _cropped(calibration: Array, sens: Array) -> Array:
    """(batch,): the share of the calibration lines' energy, seen on every fourth pixel, where the maps are zero."""
    xp = array_namespace(calibration)
    offsets = [n // 2 % 4 for n in sens.shape[-2:]]  # the pixel at n // 2 is one of them
    kept = xp.any(sens[..., offsets[0] :: 4, offsets[1] :: 4] != 0, axis=1)
    # From this grid's centre to where n // 2 has come, which is not its own m // 2 where n is not a multiple of 4.
    images = ifftc(resize(calibration, kept.shape[-2:]))
    shift = [n // 2 // 4 - m // 2 for n, m in zip(sens.shape[-2:], kept.shape[-2:], strict=True)]
    energy = xp.roll(xp.sum(xp.abs(images) ** 2, axis=1), shift, axis=(-2, -1))
    total = xp.sum(energy, axis=(-2, -1))
    zero = xp.zeros_like(energy)
    return xp.sum(xp.where(kept, zero, energy), axis=(-2, -1)) / xp.where(total > 0, total, xp.ones_like(total))


def _mixed(kspace: Array, matrices: Array) -> Array:
    return mix(matrices, kspace)


def _whitened(raw: Raw, preparation: Preparation) -> Raw:
    if preparation.whiten == "none":
        if raw.whitened:
            raise InputError("the network wants data that are not prewhitened: take the noise gadget out of the chain")
        return raw
    if raw.whitened:
        return raw
    if raw.noise is not None:
        return whiten_raw(raw, raw.noise)
    if preparation.whiten == "periphery":
        return whiten_raw(raw, whiten.periphery_covariance(raw.kspace))
    return raw


def _compressed(raw: Raw, preparation: Preparation) -> Raw:
    if preparation.coils is None:
        return raw
    have = raw.kspace.shape[-3]
    if have < preparation.coils or (raw.compressed and have != preparation.coils):
        how = "compressed to" if raw.compressed else "has"
        raise InputError(f"the network takes {preparation.coils} coils, but the scan {how} {have}")
    if raw.compressed and preparation.compression not in ("auto", raw.compressed):
        raise InputError(
            f"the network was trained on coils compressed by {preparation.compression}, "
            f"but the chain used {raw.compressed}"
        )
    return compress_raw(raw, preparation.coils, preparation.compression)


def _sensed(raw: Raw, preparation: Preparation) -> Raw:
    if preparation.sens == "none":
        return raw
    if raw.sens is None:
        return sense_raw(
            raw,
            preparation.sens,
            kernel=preparation.kernel,
            calibration=preparation.calibration,
            threshold=preparation.threshold,
            crop=preparation.crop,
        )
    if raw.sens_method not in (preparation.sens, "given"):
        raise InputError(
            f"the network was trained with {preparation.sens} sensitivities, but the chain used {raw.sens_method}"
        )
    return raw


def _scale(raw: Raw, preparation: Preparation) -> torch.Tensor:
    """(batch,): the divisor of k-space; 1 for an empty slice."""
    batch = raw.kspace.shape[0]
    if preparation.normalisation == "none":
        return torch.ones(batch, device=raw.kspace.device)
    coil_images = ifftc(raw.kspace)
    combined = rss(coil_images) if raw.sens is None else torch.abs(reduce(coil_images, raw.sens))
    largest = combined.reshape(batch, -1).amax(dim=-1)
    return torch.where(largest > 0, largest, torch.ones_like(largest))


def _phase(raw: Raw) -> torch.Tensor:
    """`Prepared.phase`: 1 where there are no sensitivities, or none that were estimated from calibration lines."""
    batch, (height, width) = raw.kspace.shape[0], raw.kspace.shape[-2:]
    if raw.sens is None or raw.calibration is None or raw.sens_method == "given":
        return torch.ones(batch, height, width, dtype=raw.kspace.dtype, device=raw.kspace.device)
    lines = raw.calibration[:, 0].flatten(-2)
    gram = lines @ lines.mH
    if raw.readout == "batch":  # a volume has one virtual coil, not one for each readout position
        gram = gram.sum(0, keepdim=True)
    coil = torch.linalg.eigh(gram)[1][..., -1]
    largest = coil.gather(-1, coil.abs().argmax(-1, keepdim=True))
    seen = reduce(raw.sens[:, 0], (coil * largest.conj()).unsqueeze(-1).unsqueeze(-1))
    return torch.polar(torch.ones_like(seen.real), torch.angle(seen))
