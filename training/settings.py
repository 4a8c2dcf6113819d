"""Settings of a run that modules of their own read: how scans are sampled, changed and simulated, and the optimiser.

Parts of `training.options.Options`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mrnets.physics import masks

__all__ = ["Augmentation", "Masks", "Motion", "NoiseToRecon", "Optimiser", "Range", "SelfSupervised", "Simulated"]

Range = tuple[float, float]


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
class Motion:
    """Rigid motion between lines of a fully sampled training slice; see `training.motion`. By default there is none."""

    share: float = 0.0
    """Share of the slices that move."""
    poses: int = 4
    """Poses during a scan, from 2 on."""
    shift: float = 3.0
    """Largest shift along each axis, pixels."""
    turn: float = 3.0
    """Largest turn, degrees."""


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
    motion: Motion = field(default_factory=Motion)


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
class NoiseToRecon:
    """A term of the loss that needs no target: see `training.noise2recon`."""

    weight: float = 0.0
    """Weight of the term. The weights of all other terms sum to 1. 0: off."""
    levels: Range = (0.02, 0.1)
    """Standard deviation of the added noise, relative to the largest magnitude of the zero-filled image."""


@dataclass(frozen=True, kw_only=True)
class SelfSupervised:
    """Training on accelerated scans, whose samples are split in two (Yaman 2020, MRM 84:3172).

    The network gets one set, and the term `kspace` of the loss compares what it predicts with the other set. A scan
    that was not fully sampled keeps its own sampling. In a fully sampled one the mask leaves out the other set.
    """

    share: float = 0.0
    """Share of the samples outside the centre that the network does not get; 0: off."""
    centre: int = 4
    """Samples along each axis in the middle of k-space that the network always gets (Yaman 2020)."""
    width: float = 0.25
    """Standard deviation, relative to each axis, of the Gaussian density around the middle by which they are drawn."""
    turned: float = 0.0
    """Weight of a term that takes each scan once more, with its image turned; see `training.turned`. The weights of all
    other terms sum to 1. 0: off."""


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """The optimiser and its learning rate."""

    name: str = "adamw"
    """A class of torch.optim, in any case: adam, adamw, sgd, radam ..."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    betas: tuple[float, float] | None = None
    """Decay of the averages of gradient and squared gradient; None: torch's."""
    options: dict[str, Any] = field(default_factory=dict)
    """More arguments of the optimiser, such as momentum."""
    schedule: str = "cosine"
    """The learning rate after the warm-up. "cosine": half a cosine down to `min_lr` over the steps of the run.
    "linear": a straight line down to it. "inverse_sqrt": falls with the inverse square root of the step. "constant".
    Or a class of torch.optim.lr_scheduler."""
    schedule_options: dict[str, Any] = field(default_factory=dict)
    """Arguments of a schedule of torch, in steps after the warm-up, for a learning rate of 1."""
    min_lr: float = 0.0
    """The learning rate at which the warm-up starts and the schedule ends."""
    warm_up: float = 200
    """Steps in which the learning rate rises from zero; below 1: as a share of all steps."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.999
    """Decay of the average of the weights. The weights file gets the average."""
    accumulate: int = 1
    """Batches whose mean gradient makes one step."""
