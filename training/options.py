"""All settings of a run: frozen dataclasses, read from a YAML recipe, overridden on the command line.

An unknown key, or a value of another type, is an error that names the option and the nearest right key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mrnets import store
from mrnets.errors import Faults, InputError
from mrnets.physics import masks
from mrnets.preparation import Preparation
from mrnets.seen import Seen
from training import data as sets
from training.data import Split
from training.typed import build

__all__ = [
    "Augmentation",
    "Early",
    "Loss",
    "Masks",
    "Network",
    "Optimiser",
    "Options",
    "Reader",
    "Simulated",
    "Stage",
    "Validation",
    "read",
]

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Network:
    """Which network; `options` not given keep their published values."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    zero: tuple[str, ...] = ()
    """Parameters whose names end so start at zero. An unrolled network whose last layers do gives its input at
    first."""
    start: str | None = None
    """A weights file of the same network to start from; None: from scratch."""
    first: str | None = None
    """A weights file of a reconstruction network, whose images this network starts from (`Scan.image`). It is the first
    of two stages of quantitative networks with `start: image`."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How the data are read: a file of `training/readers`."""

    name: str = "simulated"
    options: dict[str, Any] = field(default_factory=dict)
    split: Split = field(default_factory=Split)


@dataclass(frozen=True, kw_only=True)
class Masks:
    """How fully sampled data are undersampled. Simulated scans draw their masks as `simulated` says."""

    source: str = "drawn"
    """"drawn": at random; "data": the mask that comes with each slice, or the sampling of a prospective scan. Else the
    path of a .npy or HDF5 file, see `training.undersample`."""
    key: str = ""
    """The data set of masks in an HDF5 file."""
    names: tuple[str, ...] = ("equispaced1d",)
    """Functions of `mrnets.physics.masks`, drawn from with equal chances."""
    accelerations: tuple[float, ...] = (4.0,)
    """Counted over the whole matrix, the calibration region included; drawn from with equal chances."""
    centres: tuple[float, ...] = (0.08,)
    """Width of the fully sampled centre: below 1 as a fraction of each axis, from 1 on in samples. One for each
    acceleration, or one for all."""
    options: dict[str, Any] = field(default_factory=dict)
    """More arguments of the mask's function, such as fwhm."""
    partial_fourier: float = 0.0
    """Fraction of outer k-space left out."""
    kspace_crop: tuple[int, int] | None = None
    """(y, x): fully sampled k-space is cropped to this before it is masked."""
    image_crop: tuple[int, int] | None = None
    """(y, x): fully sampled images are cropped to at most this before they are masked."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of training slices before they are masked; ranges are (least, largest). By default all are off."""

    flips: bool = False
    """Along y, along x, with equal chances."""
    rotations: bool = False
    """By multiples of 90 degrees."""
    crop: float = 1.0
    """Least share of each axis of the field of view that is kept."""
    intensity: Range = (1.0, 1.0)
    """Exponent of the magnitude, relative to its maximum."""
    phase: float = 0.0
    """Largest strength of a smooth random phase; see `mrnets.physics.simulate.random_phase`."""
    noise: Range = (0.0, 0.0)
    """Standard deviation of added complex noise, relative to the largest magnitude of the combined image."""
    coils: float = 1.0
    """Least share of the coils that is kept, as a random subset."""


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """The distributions of simulated scans; ranges are (least, largest)."""

    validation_volumes: tuple[str, ...] = ()
    """Volumes whose path contains one of these are for validation, and never trained on."""
    examples: int = 1000
    """Scans in an epoch."""
    matrix: tuple[int, ...] = (96, 112, 128, 144, 160, 176, 192)
    """Sizes of y and of x, drawn independently."""
    coils: tuple[int, int] = (4, 32)
    """Log-uniform."""
    masks: tuple[str, ...] = tuple(masks.names())
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
    echo_times: tuple[tuple[float, ...], ...] = ()
    """s, ascending: protocols, of which each batch takes one. Where there is one, scans have several echoes with R2*,
    B0 and phase, for networks that estimate relaxation maps."""
    echo_stretch: Range = (1.0, 1.0)
    """Factor of the echo times of a protocol; log-uniform."""
    decay: Range = (8.0, 60.0)
    """R2* of tissue, 1/s; iron and veins have up to two and a half times the largest."""
    off_resonance: Range = (10.0, 150.0)
    """Largest B0 (either sign) of a slice, Hz; log-uniform."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Weights of the terms, as `training.losses` defines them; the sum of those that apply is made 1."""

    ssim: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    complex_l1: float = 0.0
    decibel: float = 0.0
    wasserstein: float = 0.0
    dice: float = 0.0
    cross_entropy: float = 0.0
    steps: bool = True
    """Deep supervision: earlier estimates count too, with weights from 0.1 to 1, evenly spaced in their logarithm."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the run with a loss of its own, for tasks that are learnt one after the other."""

    until: int
    """The first step that is not of this stage."""
    loss: Loss
    trains: tuple[str, ...] = ()
    """Names of the parameters that learn start so; empty: all learn."""


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """The optimiser and its learning rate."""

    name: Literal["adam", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    schedule: Literal["cosine", "inverse_sqrt", "constant"] = "cosine"
    """The learning rate after the warm-up. "cosine": half a cosine down to zero over the steps of the run;
    "inverse_sqrt": falls with the inverse square root of the step."""
    warm_up: float = 200
    """Steps in which the learning rate rises from zero; below 1: as a share of all steps."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.999
    """Decay of the average of the weights. The weights file gets the average."""
    accumulate: int = 1
    """Batches whose mean gradient makes one step."""


@dataclass(frozen=True, kw_only=True)
class Early:
    """Early stopping: the run ends when `metric` has not improved for `patience` validations. 0: never.

    The weights file then gets the weights of the best validation."""

    metric: str = "loss"
    patience: int = 0


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The validation: how often, and on how many examples, which are always the same."""

    every: int = 500
    """Steps."""
    examples: int = 16
    """Evenly spaced through the data, each at most once; 0: all of them."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """A run."""

    network: Network
    weights: str
    """The weights file that the run writes at its end."""
    folder: str
    """Checkpoint, log and pictures of the run. A run continues where its folder has a checkpoint."""
    data: str | None = None
    """Folder of the data set. Simulated scans take anatomy (.nii, .nii.gz, .cfl) from it; without one, the ICBM152
    volume that comes with nilearn."""
    licence: str = "not stated"
    """The licence of the data, for the weights file's provenance."""
    seen: Seen = field(default_factory=Seen)
    """Facts of the data, such as their anatomy, for the weights file: a scanner warns of other scans. Ranges that are
    not given here are those of the simulation and of the masks."""
    reader: Reader = field(default_factory=Reader)
    masks: Masks = field(default_factory=Masks)
    augmentation: Augmentation = field(default_factory=Augmentation)
    preparation: Preparation = field(default_factory=Preparation)
    simulated: Simulated = field(default_factory=Simulated)
    loss: Loss = field(default_factory=lambda: Loss(ssim=0.9, l1=0.1))
    stages: tuple[Stage, ...] = ()
    """Parts of the run with a loss of their own. After the last one `loss` holds, for all parameters."""
    optimiser: Optimiser = field(default_factory=Optimiser)
    validation: Validation = field(default_factory=Validation)
    early: Early = field(default_factory=Early)
    compare: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options of networks by their names, for `python -m training compare`."""
    steps: int = 10000
    """Steps of the optimiser; `epochs`, where given, decides instead."""
    epochs: float | None = None
    """Passes over the training data."""
    batch: int = 1
    """On each device."""
    seed: int = 0
    save_every: int = 250
    workers: int = 1
    """Processes that read examples (and, for a CPU, prepare them) while the network learns; 0: none."""
    threads: int = 0
    """Threads of torch for the network; 0: torch decides."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """The type of convolutions. Fourier transforms and data consistency are always float32."""
    compile: bool = False
    """torch.compile, where the network can."""
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Beside log.csv."""
    device: str = "cpu"


def read(recipe: str | Path, overrides: Sequence[str] = ()) -> Options:
    """Return the options of a YAML recipe, with "key=value" or "part.key=value" overrides. Raises InputError."""
    import yaml

    try:
        values = yaml.safe_load(Path(recipe).read_text(encoding="utf-8"))
        pairs = [(text, *text.partition("=")) for text in overrides]
        settings = [
            (text, key, yaml.safe_load(value) if equals else None, equals) for text, key, equals, value in pairs
        ]
    except OSError as error:
        raise InputError(f"cannot read the recipe {recipe}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"recipe {recipe}: not UTF-8 text") from None
    except yaml.YAMLError as error:
        raise InputError(f"recipe {recipe}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise InputError(f"recipe {recipe}: expected keys and values at its top")
    faults = Faults()
    for text, key, value, equals in settings:
        with faults.gathered():
            if not equals:
                raise InputError(f"expected key=value on the command line, got {text!r}")
            if key == "network.name":
                _carry(values, value)
            _set(values, key, value)
    with faults.gathered():
        options = build(Options, values)
    faults.tell()
    _check(options)
    return options


def _check(options: Options) -> None:
    """Raise InputError for names and values that their types allow and a run does not; all that are found."""
    faults = Faults()
    for name, values in {options.network.name: options.network.options, **options.compare}.items():
        with faults.gathered():
            store.bind(name, **values)
    with faults.gathered():
        sets.bind(options.reader.name, options.reader.options)
    for name in dict.fromkeys((*options.masks.names, *options.simulated.masks)):
        with faults.gathered():
            masks.kind(name)
    with faults.gathered():
        _check_values(options)
    faults.tell()


def _check_values(options: Options) -> None:
    if len(options.masks.centres) not in (1, len(options.masks.accelerations)):
        raise InputError("option masks.centres must have one value, or as many as masks.accelerations")
    for name, number in (("batch", options.batch), ("optimiser.accumulate", options.optimiser.accumulate)):
        if number < 1:
            raise InputError(f"option {name} must be at least 1, got {number}")
    for loss in (options.loss, *(stage.loss for stage in options.stages)):
        weights = [w for w in dataclasses.asdict(loss).values() if not isinstance(w, bool)]
        if min(weights) < 0 or not sum(weights):
            raise InputError("option loss needs weights of at least 0, and one that is not 0")


def _carry(values: dict[str, Any], name: Any) -> None:
    """Leave of the options of the recipe's network those that the network `name`, which takes its place, has too."""
    match values.get("network"):
        case {"name": str(before), "options": dict(options), **rest} if isinstance(name, str) and name != before:
            values["network"] = {**rest, "name": name, "options": store.carried(before, options, name)}


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    """Set an option of a recipe; keys and values change those of its keys that they name."""
    *parts, last = key.split(".")
    for part in parts:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise InputError(f"option {key}: {part} has no parts")
    values[last] = _merged(values.get(last), value)


def _merged(before: Any, value: Any) -> Any:
    if isinstance(before, dict) and isinstance(value, dict):
        return {**before, **{key: _merged(before.get(key), inner) for key, inner in value.items()}}
    return value
