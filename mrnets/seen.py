"""The data that a network was trained on: part of the provenance of a weights file, and readable without torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from mrnets.errors import InputError, unknown
from mrnets.values import converted, described

__all__ = ["KEY", "Range", "Seen"]

Range = tuple[float, float]
"""(least, largest)."""

KEY = "seen"
"""Where it stands in the provenance."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The range of the training data. An empty or absent field means that anything fits: nothing is known or needed."""

    anatomy: tuple[str, ...] = ()
    """Parts of the body in lower case, such as brain or knee; "phantom" is one of them."""
    contrasts: tuple[str, ...] = ()
    """Weightings in lower case: t1, t2, flair, pd."""
    masks: tuple[str, ...] = ()
    """Functions of `mrnets.physics.masks`."""
    field_strength: Range | None = None
    """T."""
    matrix: Range | None = None
    """Samples of k-space along each phase-encoding axis and along the readout, without its oversampling."""
    acceleration: Range | None = None
    """All samples of k-space over the measured ones, calibration lines among them."""
    snr: Range | None = None
    """Bright tissue over the standard deviation of complex noise in the combined, fully sampled image."""
    coils: Range | None = None
    """Coils, after compression."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in _WORDS or value is None:
                continue
            if not (math.isfinite(value[1]) and 0 < value[0] <= value[1]):
                raise InputError(f"seen: {field.name} must be (least, largest) above 0, got {value}")

    def to_json(self) -> dict[str, Any]:
        """All fields that say something, as JSON values."""
        return {name: list(value) for name, value in dataclasses.asdict(self).items() if value}

    @staticmethod
    def from_json(values: object) -> Seen:
        """The inverse of `to_json`; InputError for an unknown field or a value of the wrong type."""
        if not isinstance(values, Mapping):
            raise InputError(f"seen: expected fields with values, got {values!r}")
        hints = get_type_hints(Seen)
        given = {}
        for name, value in values.items():
            if name not in hints:
                raise unknown("field of seen", str(name), hints)
            try:
                given[name] = converted(value, hints[name])
            except ValueError:
                raise InputError(f"seen: {name} must be {described(hints[name])}, got {value!r}") from None
        return Seen(**given)


_WORDS = ("anatomy", "contrasts", "masks")
