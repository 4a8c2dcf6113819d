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
from mrnets.texts import read_yaml, yaml_of
from mrnets.values import fits
from training import data as sets
from training import optimisers
from training.limits import check_numbers
from training.own import permit
from training.settings import Augmentation, Masks, NoiseToRecon, Optimiser, SelfSupervised, Simulated
from training.split import Split
from training.typed import build

__all__ = ["Early", "Loss", "Network", "Options", "Reader", "Stage", "Validation", "read"]


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
class Loss:
    """Weights of the terms, as `training.losses` defines them; the sum of those that apply is made 1."""

    ssim: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    complex_l1: float = 0.0
    decibel: float = 0.0
    wasserstein: float = 0.0
    kspace: float = 0.0
    dice: float = 0.0
    cross_entropy: float = 0.0
    own: dict[str, float] = field(default_factory=dict)
    """Weights of terms of one's own, each as "package.module:function" or by the name that its package has registered
    (`mrnets.plugins`). Such a term sees the last estimate only."""
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
    self_supervised: SelfSupervised = field(default_factory=SelfSupervised)
    noise_to_recon: NoiseToRecon = field(default_factory=NoiseToRecon)
    loss: Loss = field(default_factory=lambda: Loss(ssim=0.9, l1=0.1))
    stages: tuple[Stage, ...] = ()
    """Parts of the run with a loss of their own. After the last one `loss` holds, for all parameters."""
    optimiser: Optimiser = field(default_factory=Optimiser)
    validation: Validation = field(default_factory=Validation)
    early: Early = field(default_factory=Early)
    compare: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options of networks by their names, for `python -m training compare`."""
    steps: int = 10000
    """Steps of the optimiser; `epochs`, where given, decides instead. On the command line the last of both does."""
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
    graphs: bool = True
    """On a CUDA device, gradients of batches that are alike in shape are recorded as CUDA graphs and replayed: see
    `training.graphs`. Not with `compile`, and not with several processes."""
    kernels: bool = False
    """On a CUDA device, normalisation in U-Nets and E^H E are kernels of `mrnets.blocks.fused`. Convolutions have their
    channels last, and a layer of a U-Net keeps one activation instead of two. No GPU has trained so yet."""
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Beside log.csv and steps.csv."""
    log_every: int = 20
    """Steps from one row of loss, learning rate and gradient norm in the log to the next."""
    device: str = "cpu"
    allow: tuple[str, ...] = ()
    """Packages that may be imported for the networks of weights files; what the recipe itself names needs no mention
    here."""


def read(recipe: str | Path, overrides: Sequence[str] = ()) -> Options:
    """Return the options of a YAML recipe, with "key=value" or "part.key=value" overrides. Raises InputError."""
    values = read_yaml(recipe)
    pairs = [(text, *text.partition("=")) for text in overrides]
    settings = [(text, key, yaml_of(value, text) if equals else None, equals) for text, key, equals, value in pairs]
    if not isinstance(values, dict):
        raise InputError(f"recipe {recipe}: expected keys and values at its top")
    faults = Faults()
    permit(values)
    for text, key, value, equals in settings:
        with faults.gathered():
            if not equals:
                raise InputError(f"expected key=value on the command line, got {text!r}")
            if key == "network.name":
                permit({"network": {"name": value}})
                _carry(values, value)
            if key == "steps":  # of a recipe that has epochs
                values.pop("epochs", None)
            _set(values, key, value)
    with faults.gathered():
        permit(values)
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
        check_numbers(options)
    with faults.gathered():
        optimisers.check(options.optimiser)
    with faults.gathered():
        _check_values(options)
    faults.tell()


def _check_values(options: Options) -> None:
    if len(options.masks.centres) not in (1, len(options.masks.accelerations)):
        raise InputError("option masks.centres must have one value, or as many as masks.accelerations")
    lists = {"masks": ("names", "accelerations"), "simulated": ("masks", "matrix")}
    for part, name in ((part, name) for part, names in lists.items() for name in names):
        if not getattr(getattr(options, part), name):
            raise InputError(f"option {part}.{name} must have at least one value")
    ends = [stage.until for stage in options.stages]
    if ends != sorted(set(ends)):
        raise InputError(f"option stages: each must end after the one before it, and until has the values {ends}")
    _check_held(options)
    for loss in (options.loss, *(stage.loss for stage in options.stages)):
        weights = [*loss.own.values(), *(w for w in dataclasses.asdict(loss).values() if isinstance(w, float))]
        if not all(fits(weight, float) for weight in loss.own.values()):
            raise InputError("option loss.own must be names of terms with their weights, such as {my.module:term: 0.1}")
        if min(weights) < 0 or not sum(weights):
            raise InputError("option loss needs weights of at least 0, and one that is not 0")


def _check_held(options: Options) -> None:
    """Raise InputError where self-supervised training is asked for, and cannot be."""
    share = options.self_supervised.share
    if share and options.preparation.sens == "none":
        raise InputError("self_supervised.share needs sensitivities: preparation.sens=espirit")
    if share and options.network.first is not None:
        raise InputError("self_supervised.share excludes network.first, which would see the samples that are held out")
    if options.loss.kspace and not share:
        raise InputError("option loss.kspace needs self_supervised.share, such as 0.4")
    if options.self_supervised.turned and not share:
        raise InputError("option self_supervised.turned needs self_supervised.share, such as 0.4")


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
