"""Types that stages and networks take and return. They are plain data; no array library is imported here.

Axes: batch = slices of a scan, or samples of a training batch; echo, coil, y, x. A 2-D slice has x = readout. A
3-D scan was inverse-transformed along its fully sampled readout: batch = readout position, y = encode step 2,
x = encode step 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from mrnets.physics.arrays import Array

if TYPE_CHECKING:
    from mrnets.physics.espirit import Espirit

__all__ = ["UNCHECKED", "Check", "Estimate", "Raw", "Scan", "Trust"]

Check = Literal["fallback", "warn", "off"]
"""The consequence where the data speak against the image of a trained reconstruction network. "fallback": l1-wavelet
makes the image, and a note says so. In other images it has a share (`mrnets.trust.mixed`). "warn": a note says so.
"off": nothing is checked."""


@dataclass(frozen=True, kw_only=True)
class Raw:
    """Sorted k-space, with what is known of it and what earlier stages did to it.

    Frozen: a stage makes a new one with `dataclasses.replace`. Arrays are NumPy, CuPy or torch, all of one library.
    """

    kspace: Array
    """(batch, echo, coil, y, x) complex64; zeros where not sampled."""
    mask: Array
    """(batch or 1, 1, 1, y, x) bool: what was sampled."""
    calibration: Array | None = None
    """(batch, 1, coil, y', x') complex64: a fully sampled block around the k-space centre, which is at (y'//2, x'//2).
    From calibration lines, separate or embedded; of the first echo. None: no such block is known."""
    calibration_images: int = 1
    """Images with different lines whose mean `calibration` is. Several do not agree to within their noise where the
    object or its brightness changes."""
    sens: Array | None = None
    """(batch, set, coil, y, x) complex64. The norm over coils is a weight: 1 inside the object, 0 outside it, and
    between them where it is not sure. One set of maps, or two where the object is larger than the field of view. Each
    has an image of its own there, and they are orthogonal."""
    echo_times: Array | None = None
    """(echo,) float32, s."""
    noise: Array | None = None
    """(coil, coil) complex64: covariance of complex noise samples at the dwell time of `kspace`; of unwhitened data.
    None: not measured. Whitened data have the identity, and None here."""
    readout: Literal["x", "batch", None] = "x"
    """The fully sampled axis. "x": k-space along the last axis (2-D). "batch": inverse-transformed along the batch
    (3-D). None: no axis is fully sampled (2-D masks in plane)."""
    averages: float = 1.0
    """Lines that were averaged into one sample: the harmonic mean over what was sampled. Noise variance goes with its
    inverse."""
    variance: float = 1.0
    """Variance of complex noise in a single sample once it is whitened; 2 where real and imaginary part have 1 each."""
    whitened: bool = False
    compressed: str | None = None
    """None, or how the coils were compressed: "gdcc" or "svd"."""
    sens_method: str | None = None
    """None, or where `sens` came from: "espirit", "rss", "unitary", "given". Without `sens` one of the first three is
    how whoever needs them is to estimate them: of a volume in parts, since all of them take more memory than k-space.
    """
    sens_options: Espirit | None = None
    """Options of that estimation."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Input of a network: torch tensors, or None where a task does not have them. Made by `mrnets.prepare.prepare`."""

    kspace: Array | None = None
    """(batch, echo, coil, y, x) complex64."""
    mask: Array | None = None
    """(batch or 1, 1, 1, y, x) bool."""
    sens: Array | None = None
    """(batch, set, coil, y, x) complex64; as that of `Raw`."""
    image: Array | None = None
    """(batch, contrast, [z,] y, x) complex64 or float32."""
    echo_times: Array | None = None
    """(echo,) float32, s."""
    calibration: Array | None = None
    """(batch, 1, coil, y', x') complex64, in the scale of `kspace`; for networks that estimate sensitivities."""
    noise: Array | None = None
    """(batch,) float32: standard deviation of complex noise in a sample of one coil, in the scale of `kspace`.
    None: not known."""


@dataclass(frozen=True, kw_only=True)
class Trust:
    """How far the image of a slice agrees with the data. Errors are root mean squares over the samples of all coils.

    In standard deviations of the samples' noise. Made by `mrnets.trust.examined`."""

    residual: float | None = None
    """E x - y over the measured samples; 1 is right. None: the noise is not known."""
    prediction: float | None = None
    """Error of the network's predictions of samples that were left out; 1 cannot be undercut. Where the noise is not
    known, relative to the size of these samples. None: there was nothing to leave out."""
    reference: float | None = None
    """Error of l1-wavelet's predictions of the same samples."""
    significance: float | None = None
    """Standard errors by which these samples speak against the network's predictions. Negative: against those of
    l1-wavelet."""
    reference_residual: float | None = None
    """`residual` of that l1-wavelet image over the samples that it was given."""
    share: float | None = None
    """Part of l1-wavelet's prediction, 0 to 1, beside the network's in the mean of both that fits these samples best.
    None: there was nothing to leave out."""
    change: float | None = None
    """Change that leaving these samples out makes to the network's image, in k-space between the measured samples.
    Root mean square, in the unit of the prediction error."""
    reference_change: float | None = None
    """The same of l1-wavelet's image."""


UNCHECKED = "its image was not checked against the data, which have no coil sensitivities"
"""The end of a note on a network that estimates them itself, or takes none."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Output of a network. A field that it does not estimate is None or empty."""

    image: Array | None = None
    """(batch, echo, y, x) complex64. What a network gives is in the scale of the maps: E takes it to the data. With two
    sets of maps that is (batch, set, y, x), of one echo. The end of a network (`mrnets.ending`) multiplies it with the
    norm of the maps and combines the sets."""
    unweighted: Array | None = None
    """(batch, echo, set, y, x): `image` before that. None: it is as the network gave it."""
    maps: dict[str, Array] = field(default_factory=dict)
    """Name to (batch, y, x), SI units."""
    logits: Array | None = None
    """(batch, class, [z,] y, x)."""
    steps: tuple[Estimate, ...] = ()
    """Earlier estimates, first to last, for deep supervision."""
    trust: tuple[Trust, ...] = ()
    """Results of the self-check, for the slices that were checked."""
