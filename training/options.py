"""All settings of a run: frozen dataclasses, read from a YAML recipe, overridden on the command line.

A key that does not exist, or a value of another type, is an error that names the place and the nearest right key.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from mrnets import store
from mrnets.errors import InputError, unknown
from mrnets.prepare import Preparation

__all__ = ["Loss", "Network", "Optimiser", "Options", "Simulated", "Validation", "read"]

T = TypeVar("T")
Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Network:
    """Which network; `options` not given keep their published values."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    zero: tuple[str, ...] = ()
    """Parameters whose names end so start at zero: an unrolled network whose last layers do starts at its input."""
    start: str | None = None
    """A weights file of the same network to start from; None: from scratch."""


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """What the simulated scans are drawn from; ranges are (least, largest)."""

    validation_volumes: tuple[str, ...] = ()
    """Volumes whose path contains one of these are for validation, and never trained on."""
    matrix: tuple[int, ...] = (96, 112, 128, 144, 160, 176, 192)
    """Sizes of y and of x, drawn independently."""
    coils: tuple[int, int] = (4, 32)
    """Log-uniform."""
    masks: tuple[str, ...] = (
        "equispaced1d",
        "regular1d",
        "random1d",
        "gaussian1d",
        "equispaced2d",
        "gaussian2d",
        "poisson2d",
    )
    acceleration: Range = (1.5, 10.0)
    """Log-uniform; of regular1d rounded to the distance between lines, 6 at most."""
    phantoms: float = 0.15
    """Share of examples that show random ellipses, not anatomy: sharp edges and bright rims, which fold visibly."""
    calibration: tuple[int, int] = (12, 32)
    """Width of the fully sampled centre, in samples; narrower where the acceleration leaves no room."""
    blur: float = 1.5
    """Half of the slices are blurred by up to this much (standard deviation, pixels), as interpolated scans are."""
    partial_fourier: float = 0.15
    """Share of scans with partial Fourier."""
    snr: Range = (10.0, 200.0)
    """Bright tissue over the standard deviation of complex noise in the fully sampled combined image; log-uniform."""
    without_noise_scan: float = 0.1
    """Share of scans that come without a noise measurement, and so unwhitened."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Weights of the terms; their sum is made 1."""

    ssim: float = 0.9
    l1: float = 0.1
    complex_l1: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """AdamW, with a warm-up and a cosine down to zero over the steps of the run."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warm_up: int = 200
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.999
    """Decay of the average of the weights, which is what the weights file gets."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """How often and on how many examples, always the same."""

    every: int = 500
    examples: int = 16


@dataclass(frozen=True, kw_only=True)
class Options:
    """A run."""

    network: Network
    weights: str
    """The weights file that the run writes at its end."""
    folder: str
    """Checkpoint, log and pictures of the run; a run whose folder has a checkpoint goes on from there."""
    data: str | None = None
    """Folder of anatomy (.nii, .nii.gz, .cfl); None: the ICBM152 volume that comes with nilearn."""
    licence: str = "not stated"
    """Of the data, for the weights file's provenance."""
    preparation: Preparation = field(default_factory=Preparation)
    simulated: Simulated = field(default_factory=Simulated)
    loss: Loss = field(default_factory=Loss)
    optimiser: Optimiser = field(default_factory=Optimiser)
    validation: Validation = field(default_factory=Validation)
    steps: int = 10000
    batch: int = 1
    seed: int = 0
    save_every: int = 250
    workers: int = 1
    """Processes that prepare examples while the network learns; 0: none."""
    threads: int = 0
    """Of torch, for the network; 0: torch decides."""
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"


def read(recipe: str | Path, overrides: Sequence[str] = ()) -> Options:
    """The options of a YAML recipe, with "key=value" or "part.key=value" overrides. Raises InputError."""
    import yaml

    try:
        values = yaml.safe_load(Path(recipe).read_text(encoding="utf-8"))
        pairs = [(text, *text.partition("=")) for text in overrides]
        settings = [
            (text, key, yaml.safe_load(value) if equals else None, equals) for text, key, equals, value in pairs
        ]
    except OSError as error:
        raise InputError(f"cannot read the recipe {recipe}: {error.strerror or error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"recipe {recipe}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise InputError(f"recipe {recipe}: expected keys and values at its top")
    for text, key, value, equals in settings:
        if not equals:
            raise InputError(f"expected key=value on the command line, got {text!r}")
        _set(values, key, value)
    options = _build(Options, values, "")
    store.bind(options.network.name, **options.network.options)
    return options


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parts, last = key.split(".")
    for part in parts:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise InputError(f"option {key}: {part} has no parts")
    values[last] = value


def _build(cls: type[T], values: Mapping[str, Any], place: str) -> T:
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise unknown(f"option{f' of {place[:-1]}' if place else ''}", str(key), hints)
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        if f.name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise InputError(f"option {place}{f.name} is missing")
    return cls(**{key: _value(hints[key], value, f"{place}{key}") for key, value in values.items()})


def _value(hint: Any, value: Any, place: str) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return _build(typing.cast("type[Any]", hint), value, f"{place}.")
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _value(inner[0], value, place)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [inner[0]] * len(value) if inner[-1] is ... else inner
        if len(kinds) == len(value):
            return tuple(_value(kind, element, place) for kind, element in zip(kinds, value, strict=True))
    if origin is Literal and value in inner:
        return value
    if origin is dict and isinstance(value, dict):
        return value
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:  # YAML takes 1e-3 for a string
            return float(value)
        except ValueError:
            pass
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    expected = hint.__name__ if isinstance(hint, type) and not inner else str(hint).replace("typing.", "")
    raise InputError(f"option {place} must be {expected}, got {value!r}")
