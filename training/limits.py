"""The numbers that options of a run may have. A number outside them would end a run late, or quietly spoil it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from mrnets.errors import Faults, InputError

__all__ = ["check_numbers"]

_LEAST = {
    **dict.fromkeys(("steps", "batch", "save_every", "log_every", "validation.every", "optimiser.accumulate"), 1.0),
    **dict.fromkeys(("simulated.coils", "simulated.acceleration", "simulated.calibration", "simulated.matrix"), 1.0),
    "augmentation.motion.poses": 2.0,
}
"""Other numbers of `_CHECKED` must be at least 0."""
_ABOVE_ZERO = {
    *("epochs", "optimiser.clip", "self_supervised.width"),
    *("augmentation.crop", "augmentation.coils", "augmentation.intensity"),
    *("simulated.snr", "simulated.echo_stretch", "simulated.off_resonance"),
}
_MOST = {
    **dict.fromkeys(("augmentation.crop", "augmentation.coils", "augmentation.motion.share"), 1.0),
    **dict.fromkeys(("simulated.phantoms", "simulated.partial_fourier", "simulated.without_noise_scan"), 1.0),
    **dict.fromkeys(("optimiser.ema", "self_supervised.share"), 1.0),
    "seed": 2.0**63,
}
_BELOW = {"optimiser.ema", "self_supervised.share", "seed"}
"""Those that must be below their largest value."""
_RANGES = {
    *("augmentation.intensity", "augmentation.noise", "noise_to_recon.levels"),
    *("simulated.coils", "simulated.acceleration", "simulated.calibration", "simulated.snr"),
    *("simulated.echo_stretch", "simulated.decay", "simulated.off_resonance"),
}
_CHECKED = ("augmentation", "early", "noise_to_recon", "optimiser", "self_supervised", "simulated", "validation")
"""Parts whose numbers are checked here. Masks and the preparation check their own."""


def check_numbers(options: Any) -> None:
    """Raise InputError for numbers of `training.options.Options` that cannot be, and for ranges that fall; all that
    are found."""
    faults = Faults()
    for name, value in _numbers(options):
        with faults.gathered():
            _check(name, value)
    faults.tell()


def _numbers(part: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Numbers and tuples of them, by the names of their options."""
    for field in dataclasses.fields(part):
        value, name = getattr(part, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value) and (prefix or name in _CHECKED):
            yield from _numbers(value, f"{name}.")
        elif _is_number(value) or (isinstance(value, tuple) and value and all(map(_is_number, value))):
            yield name, value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check(name: str, value: Any) -> None:
    least, above = _LEAST.get(name, 0.0), name in _ABOVE_ZERO
    most = _MOST.get(name, math.inf)
    values = value if isinstance(value, tuple) else (value,)
    lowest, highest = min(values), max(values)
    if lowest < least or (above and lowest == 0) or highest > most or (name in _BELOW and highest == most):
        low = f"above {least:g}" if above else f"at least {least:g}"
        high = "" if most == math.inf else f" and {'below' if name in _BELOW else 'at most'} {most:g}"
        raise InputError(f"option {name} must be {low}{high}, got {_told(value)}")
    if name in _RANGES and values[0] > values[1]:
        raise InputError(f"option {name} must be [least, largest], got {_told(value)}")


def _told(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
