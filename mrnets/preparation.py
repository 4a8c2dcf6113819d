"""How the input of a network is made. It is part of every weights file, and readable without torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mrnets.classes import Classes
from mrnets.contract import Raw
from mrnets.errors import InputError, unknown
from mrnets.physics.compress import Gdcc
from mrnets.physics.espirit import Espirit
from mrnets.physics.normalise import Normalisation
from mrnets.values import described, fits

__all__ = ["Combination", "Compression", "Preparation", "Sensitivities", "Whitening", "as_it_comes"]

Whitening = Literal["covariance", "periphery", "none"]
Compression = Literal["auto", "gdcc", "svd"]
Sensitivities = Literal["espirit", "rss", "unitary", "none"]
Combination = Literal["sense", "rss"]
Plane = tuple[int, int]
"""Two numbers of samples or pixels, (y, x)."""

_MAX_SIZE = 65536


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How the input of a network is made. Fields that an older weights file lacks have the values given here."""

    whiten: Whitening = "covariance"
    """"covariance": by the measured noise; data without a noise measurement stay as they are. "periphery": without a
    noise measurement, by the noise at the periphery of k-space of the first echo. "none": the network needs unwhitened
    data."""
    patch_start: Plane | None = None
    """"periphery": the first sample (y, x) of the patch of k-space that holds noise, counted from the corner of
    k-space. None: the patch reaches inwards as far as there is no signal (`physics.whiten.periphery_covariance`)."""
    patch_length: Plane | None = None
    """Samples of that patch, (y, x); goes with `patch_start`."""
    whiten_scale: float = 1.0
    """Standard deviation of the noise in the network's input, after whitening (by any stage) and before the
    normalisation."""
    coils: int | None = None
    """The number of coils the network takes; None: any number."""
    compression: Compression = "auto"
    """How to get to `coils`: geometric-decomposition ("gdcc"), plain ("svd"), or the first where there is a readout."""
    compression_lines: int | None = Gdcc.lines
    """Width of the calibration block for the compression matrices, at most, in samples along each phase encoding. None:
    all measured samples."""
    compression_window: int = Gdcc.window
    """gdcc: readout positions that make one matrix together; odd."""
    compression_align: bool = Gdcc.align
    """gdcc: virtual coils stay themselves along the readout. False leaves them to change from position to position."""
    image_crop: Plane | None = None
    """At most so many pixels (y, x) in the middle of the field of view. Only fully sampled axes are cropped: the
    readout, or all axes before a mask is applied. Along an undersampled axis, parts of the object outside a smaller
    field of view would alias. Such an axis stays whole. See `crop_raw`, by which readers of fully sampled data crop
    before they mask. Images come back on their whole grid, zero where they were cropped, and say so."""
    kspace_crop: Plane | None = None
    """At most so many samples (y, x) in the middle of k-space, after `image_crop`; the same before or after masking.
    Nothing is zero-filled to it. Images come back on their whole grid, at the lower resolution."""
    sens: Sensitivities = "espirit"
    """Where sensitivities come from; "none": the network takes none, or estimates its own."""
    sets: int = 1
    """Sets of maps that the network takes, at most. 2: ESPIRiT adds a second one where the object is larger than the
    field of view."""
    kernel: int = Espirit.kernel
    """ESPIRiT kernel width, in samples."""
    calibration: int = Espirit.calibration
    """Width of the calibration block for sensitivities, in samples, where that much was measured."""
    threshold: float = Espirit.threshold
    """ESPIRiT: singular values of the calibration matrix that count half, relative to the largest."""
    crop: float = Espirit.crop
    """ESPIRiT: eigenvalue where the maps count about half; they fade to zero in the background."""
    combination: Combination = "sense"
    """How coil images become one image where there are sensitivities. It is used for the normalisation and for the
    target of training. "sense": the optimal combination with the sensitivities. "rss": the root of the sum of
    squares."""
    consistency: float | None = 0.035
    """Standard deviation of the network's error, relative to an image whose maximum is 1. The estimate z becomes
    argmin ||E x - y||^2 + (noise / consistency)^2 ||x - z||^2, so that measured samples stay as exact as their noise
    allows. Only where sensitivities and the noise level are known. None: the estimate stays as the network gives it."""
    normalisation: Normalisation = "max"
    """The number that divides k-space of each slice, or an image of each contrast; see
    `physics.normalise.scale_and_offset`. Only real images get an offset."""
    normalise: Literal["image", "coils", "kspace"] = "image"
    """The data whose statistic normalises: the combined zero-filled image, the images of all coils, or the k-space
    samples that were measured. The scale is one number for all of them."""
    image: Literal["magnitude", "complex"] = "magnitude"
    """The input of a network that takes images."""
    contrasts: int | None = None
    """The number of contrasts such a network takes; None: what its options say."""
    slices: int = 1
    """Neighbouring slices that such a network takes together, its own in the middle; odd. 1: it takes (y, x) alone."""
    classes: Classes = "exclusive"
    """The meaning of logits; see `mrnets.classes`."""

    def __post_init__(self) -> None:
        hints = get_type_hints(Preparation)
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name), hints[field.name])
        for name in ("coils", "compression_lines", "contrasts"):
            if getattr(self, name) is not None:
                _check_range(name, getattr(self, name), 1)
        for name in ("image_crop", "kspace_crop", "patch_length"):
            for size in getattr(self, name) or ():
                _check_range(name, size, 1)
        for name in ("compression_window", "slices"):
            _check_range(name, getattr(self, name), 1, 255)
            if getattr(self, name) % 2 == 0:
                raise InputError(f"preparation: {name} must be odd, got {getattr(self, name)}")
        _check_range("sets", self.sets, 1, 2)
        if not (math.isfinite(self.whiten_scale) and self.whiten_scale > 0):
            raise InputError(f"preparation: whiten_scale must be positive, got {self.whiten_scale}")
        if self.consistency is not None and not (math.isfinite(self.consistency) and self.consistency > 0):
            raise InputError(f"preparation: consistency must be positive, got {self.consistency}")
        if (self.patch_start is None) != (self.patch_length is None):
            raise InputError("preparation: patch_start and patch_length go together")
        if self.patch_start is not None and self.whiten != "periphery":
            raise InputError(f"preparation: patch_start is for whiten: periphery, and whiten is {self.whiten}")

    @property
    def gdcc(self) -> Gdcc:
        """Options of the coil compression."""
        return Gdcc(window=self.compression_window, align=self.compression_align, lines=self.compression_lines)

    @property
    def espirit(self) -> Espirit:
        """Options of ESPIRiT; its calibration width is that of the other methods too."""
        return Espirit(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Espirit)})

    def to_json(self) -> dict[str, Any]:
        """All fields, as JSON values."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Preparation:
        """The inverse of `to_json`; InputError for an unknown field or a value of the wrong type."""
        hints = get_type_hints(Preparation)
        given: dict[str, Any] = {}
        for name, value in values.items():
            if name not in hints:
                raise unknown("field of a preparation", name, hints)
            given[name] = tuple(value) if isinstance(value, list) else value
        return Preparation(**given)


def as_it_comes(raw: Raw) -> Preparation:
    """Return the preparation of a network without weights: no more than earlier stages and the scan give it."""
    if raw.sens is None and raw.calibration is None:
        return Preparation(sens="none", normalisation="none", consistency=None)
    methods: dict[str | None, Sensitivities] = {"rss": "rss", "unitary": "unitary"}
    return Preparation(sens=methods.get(raw.sens_method, "espirit"), sets=2, normalisation="none", consistency=None)


def _check_type(name: str, value: object, hint: Any) -> None:
    if get_origin(hint) is Literal and value not in get_args(hint):
        raise unknown(f"value of {name} in a preparation", str(value), get_args(hint))
    if not fits(value, hint):
        raise InputError(f"preparation: {name} must be {described(hint)}, got {value!r}")


def _check_range(name: str, value: int, low: int, high: int = _MAX_SIZE) -> None:
    if not low <= value <= high:
        raise InputError(f"preparation: {name} must be at least {low} and at most {high}, got {value}")
