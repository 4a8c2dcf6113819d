"""Heads of random contrasts, drawn from FreeSurfer's label maps: for segmentation, and as scans for joint networks.

    folder/SUBJECT.mgz, .nii or .nii.gz; also in folders below it

No image is read. Each label gets a random intensity. The slice is blurred, shaded and made noisy as a scanner would do
it (Billot et al., SynthSeg, Medical Image Analysis 86:102789, 2023). A network that learnt from them works for
images of any contrast. Label maps of whole heads (skull, scalp) teach it also what is not brain.

Axes: volume (z, y, x), upwards, forwards and to the right; slice (y, x), slab (plane, y, x). Distances in mm.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from mrnets.errors import InputError
from mrnets.physics.fourier import fftc, ifftc, resize
from training.data import Sample, Source, stacked
from training.readers._variation import smooth
from training.readers.files import listed, nifti, split_problems, voxels
from training.readers.simulated import Layout, draw_layout, scanned
from training.settings import Range, Simulated
from training.split import Part, Split, part_of

__all__ = ["CLASSES", "Drawn", "Reader", "class_of"]

Labels = NDArray[np.int32]
Name = Literal["background", "csf", "grey", "white"]

CLASSES: tuple[Name, ...] = ("background", "csf", "grey", "white")
SHARES: dict[Name, dict[tuple[int, ...], Range]] = {
    "csf": {
        (4, 5, 14, 15, 24, 43, 44, 72, 122, 221): (0.0, 0.05),  # ventricles, sulci
        (30, 31, 62, 63, 136, 137, 163, 164): (0.1, 0.9),  # choroid plexus, vessels
    },
    "grey": {
        (3, 42): (-0.05, 0.05),  # cortex
        (8, 47, 17, 53, 18, 54): (-0.15, 0.3),  # cerebellum, hippocampus, amygdala
        (11, 50, 12, 51, 26, 58): (0.0, 0.5),  # caudate, putamen, accumbens
        (10, 49): (0.2, 0.85),  # thalamus
        (13, 52): (0.4, 1.05),  # pallidum
    },
    "white": {
        (2, 41, 192, *range(250, 256)): (0.95, 1.05),  # cerebrum, corpus callosum
        (7, 46, 16, *range(170, 180)): (0.7, 1.1),  # cerebellum, brain stem
        (28, 60, 85): (0.4, 1.0),  # ventral diencephalon, chiasm
        (25, 57, 77, 78, 79): (-0.5, 1.0),  # lesions
    },
}
"""Labels of each class (FreeSurferColorLUT), and the range of their intensities. That is a share of the way from CSF to
grey matter (csf), or from grey to white matter (the others). Cortical parcels (1000 to 2999) are cortex, those of white
matter (3000 to 5002) white matter. Other labels are no brain."""
OVERSAMPLED = 2
"""Points along each axis for a pixel."""
PLANES = 3
"""Points through a slice."""
MAX_LABEL = 20000
"""Largest label; FreeSurferColorLUT ends below."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Random slices of the label maps below a folder, in random fields of view; ranges are (least, largest)."""

    view: Range = (160.0, 300.0)
    """Field of view, mm; log-uniform. The pixels follow from `simulated.matrix`."""
    thickness: Range = (1.0, 4.0)
    """Thickness of a slice, mm."""
    tilt: float = 8.0
    """Standard deviation of the angles between slices and the axes of the volume, degrees."""
    bend: float = 3.0
    """Largest standard deviation of the smooth displacement that gives each head another shape, mm."""
    t1: float = 0.6
    """Share of slices with the contrast of T1-weighting: white above grey matter, and grey above CSF."""
    stripped: float = 0.4
    """Share of slices that show the brain alone."""
    shading: Range = (0.0, 0.5)
    """Standard deviation of the logarithm of the bias field."""
    blur: Range = (0.0, 1.0)
    """Standard deviation of a blur beside that of the matrix, pixels; half of the slices have none and ring."""
    noise: Range = (0.0, 0.08)
    """Standard deviation of complex noise, relative to the brightest tissue of the brain."""
    scans: bool = False
    """Make simulated scans, as `simulated` says, whose noise is theirs."""
    settings: Simulated = field(default_factory=Simulated)
    """The matrices, and the number of slices of an epoch."""

    def read(self, folder: Path, part: Part, split: Split) -> Source:
        """Return slices of the label maps of `part`. Raises InputError where there are none."""
        files = listed(folder, ".mgz", ".nii", ".nii.gz")
        return Drawn({name: files[name] for name in part_of(list(files), part, split)}, self)

    def check(self, folder: Path, split: Split) -> Iterator[str]:
        """Give a sentence for each file that cannot be read or is no label map of a head. All are read."""
        try:
            files = listed(folder, ".mgz", ".nii", ".nii.gz")
        except InputError as error:
            yield str(error)
            return
        yield from split_problems(files, split)
        for path in files.values():
            try:
                _head(path)
            except InputError as error:
                yield str(error)


@dataclass(frozen=True)
class Head:
    """A label map with a voxel of air around it."""

    indices: torch.Tensor
    """(z, y, x) uint8: numbers of the `values`."""
    values: tuple[int, ...]
    """Ascending, the first is 0."""
    spacing: tuple[float, float, float]
    """(z, y, x), mm."""
    brain: torch.Tensor
    """(voxel, 3): indices of voxels of the brain, a few thousand."""


@dataclass(frozen=True)
class Drawn:
    """Random slices of some label maps. A slice depends on the generator only, not on its number."""

    files: dict[str, Path]
    how: Reader
    labels: tuple[str, ...] = CLASSES

    @property
    def subjects(self) -> tuple[str, ...]:
        return tuple(self.files)

    def __len__(self) -> int:
        return self.how.settings.examples if self.files else 0

    def take(self, numbers: Sequence[int], rng: np.random.Generator) -> Sample:
        layout = dataclasses.replace(draw_layout(self.how.settings, rng), detail=float(OVERSAMPLED))
        drawn = stacked([self._one(layout, rng) for _ in numbers])
        if not self.how.scans:
            return drawn
        assert drawn.image is not None
        scan = scanned(drawn.image[:, 0], layout, self.how.settings, rng)
        return dataclasses.replace(scan, names=drawn.names, labels=drawn.labels)

    def _one(self, layout: Layout, rng: np.random.Generator) -> Sample:
        """image (1, 1, y, x) of `layout.fine` for scans, else of `layout.shape`; labels (1, class, y, x)."""
        name = list(self.files)[int(rng.integers(len(self.files)))]
        head = _head(self.files[name])
        slab = _slab(head, layout, self.how, rng)
        classes, brain = _classes(head, rng, stripped=rng.random() < self.how.stripped)
        image = _painted(slab, _levels(head, brain, self.how.t1, rng), rng)
        image = image * torch.exp(float(rng.uniform(*self.how.shading)) * smooth(rng, layout.fine, 3))
        if not self.how.scans:
            image = _measured(image, layout.shape, self.how, rng)
        planes = functional.one_hot(classes[slab[PLANES // 2]], len(CLASSES)).permute(2, 0, 1).float()
        # the classes around the middle of each pixel: fine pixel 2 n is pixel n
        chosen = functional.avg_pool2d(planes, 3, stride=OVERSAMPLED, padding=1).argmax(0)
        labels = torch.stack([chosen == n for n in range(len(CLASSES))])
        return Sample(names=(name,), image=image[None, None], labels=labels[None])


def class_of(value: int) -> int:
    """Return the number of the class in `CLASSES` of a value of FreeSurfer's table."""
    name, _ = _tissue(value)
    return CLASSES.index(name)


def _tissue(value: int) -> tuple[Name, Range]:
    """The class of a label, and the range of its share."""
    value = {1: 3, 2: 3, 3: 2, 4: 2, 5: 2}.get(
        value // 1000, value
    )  # cortical parcels, and the white matter below them
    for name, groups in SHARES.items():
        for values, share in groups.items():
            if value in values:
                return name, share
    return "background", (0.0, 0.0)


@functools.lru_cache(maxsize=64)
def _head(path: Path) -> Head:
    """Raises InputError for values that are not whole numbers, more than 256 of them, and a head without brain."""
    from nibabel.orientations import apply_orientation, io_orientation

    image = nifti(path)
    data = voxels(path)
    if not (np.isfinite(data).all() and (data == np.rint(data)).all()):
        raise InputError(f"{path}: expected a label map, got values that are not whole numbers")
    orientation = io_orientation(image.affine)
    volume = apply_orientation(data, orientation).T
    x, y, z = (float(image.header.get_zooms()[int(n)]) for n in np.argsort(orientation[:, 0]))
    if not 0 <= volume.min() <= volume.max() <= MAX_LABEL:
        raise InputError(f"{path}: expected labels from 0 to {MAX_LABEL}, got {volume.min():g} to {volume.max():g}")
    counts = np.bincount(volume.ravel().astype(np.uint16))
    counts[0] += 1  # air, of which some heads have none
    values = np.flatnonzero(counts)
    if len(values) > 256:
        raise InputError(f"{path}: expected at most 256 labels, got {len(values)}")
    volume = np.pad(volume.astype(np.uint16), 1)
    indices = (np.cumsum(counts > 0) - 1).astype(np.uint8)[volume]
    brain = np.argwhere(np.array([class_of(int(v)) > 0 for v in values])[indices])
    if not len(brain):
        raise InputError(f"{path}: none of its labels is of the brain; expected those of FreeSurferColorLUT")
    return Head(
        torch.from_numpy(indices),
        tuple(int(v) for v in values),
        (z, y, x),
        torch.from_numpy(brain[:: max(len(brain) // 5000, 1)].astype(np.float32)),
    )


def _slab(head: Head, layout: Layout, how: Reader, rng: np.random.Generator) -> torch.Tensor:
    """Labels (plane, y, x) int64 of the points of a slice through the brain, on `layout.fine`, as numbers of the
    values."""
    from scipy.spatial.transform import Rotation

    spacing = torch.tensor(head.spacing)
    turn = Rotation.from_euler("zyx", rng.normal(0, how.tilt, 3), degrees=True).as_matrix()
    axes = turn @ np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)  # columns: through the slice, along y, along x
    through, down, right = torch.from_numpy(axes.T.astype(np.float32))
    middle = head.brain.mean(0) * spacing
    passed = head.brain[int(rng.integers(len(head.brain)))] * spacing
    middle = middle + through * ((passed - middle) @ through) + torch.from_numpy(rng.normal(0, 8, 3)).float()
    size = np.exp(rng.uniform(*np.log(how.view))) * np.exp(rng.normal(0, 0.06, 2))
    y, x = (float(s) * (torch.arange(n) - n // 2) / n for s, n in zip(size, layout.fine, strict=True))
    bend, nodes = float(rng.uniform(0, how.bend)), int(rng.integers(4, 8))
    thickness = float(rng.uniform(*how.thickness))
    index = torch.zeros((PLANES, *layout.fine), dtype=torch.int32)
    for axis, pixels in enumerate(head.indices.shape):
        place = middle[axis] + y[:, None] * down[axis] + x * right[axis] + bend * smooth(rng, layout.fine, nodes)
        steps = through[axis] * thickness / PLANES * (torch.arange(PLANES) - PLANES // 2)
        slab = (place + steps[:, None, None]) / spacing[axis]
        index.mul_(pixels).add_(slab.round_().clamp_(0, pixels - 1).int())  # the outermost voxels are air
    return head.indices.view(-1)[index].long()


def _classes(head: Head, rng: np.random.Generator, *, stripped: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(value,): the class of each label; and whether it is seen. Some brains are stripped of the CSF around them."""
    classes = torch.tensor([class_of(v) for v in head.values])
    seen = torch.ones(len(classes), dtype=torch.bool)
    if stripped:
        seen = classes > 0
        if rng.random() < 0.3 and 24 in head.values:
            seen[head.values.index(24)] = False
    return torch.where(seen, classes, 0), seen


def _levels(head: Head, seen: torch.Tensor, t1: float, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(value,): mean and spread of the intensity of each label; the brightest tissue of the brain is about 1."""
    if rng.random() < t1:
        grey = rng.uniform(0.5, 0.9)
        csf, white = grey * rng.uniform(0.05, 0.75), 1.0
    else:
        csf, grey, white = rng.permutation([1.0, rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9)])
    means = []
    for value in head.values:
        name, share = _tissue(value)
        start, end = (csf, grey) if name == "csf" else (grey, white)
        outside = rng.uniform(0, 0.15) if rng.random() < 0.3 else rng.uniform(0, 1.6)
        means.append(outside if name == "background" else start + rng.uniform(*share) * (end - start))
    means[0] = 0.0
    spreads = rng.uniform(0, 0.08, len(means)) * means
    as_seen = torch.from_numpy(np.stack([np.maximum(means, 0), spreads])).float() * seen
    return as_seen[0], as_seen[1]


def _painted(slab: torch.Tensor, levels: tuple[torch.Tensor, torch.Tensor], rng: np.random.Generator) -> torch.Tensor:
    """(y, x): intensities of the labels with some texture, averaged through the slice."""
    shape = (slab.shape[-2], slab.shape[-1])
    texture = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)) + smooth(rng, shape, 12)
    mean, spread = levels
    return (mean[slab].mean(0) + spread[slab[PLANES // 2]] * texture).clamp(min=0)


def _measured(image: torch.Tensor, shape: tuple[int, int], how: Reader, rng: np.random.Generator) -> torch.Tensor:
    """(*shape): magnitude of `image` from noisy k-space, which ends at the edges of the matrix or falls off there."""
    kspace: Any = resize(fftc(image.to(torch.complex64)), shape) * float(np.sqrt(np.prod(shape) / image.numel()))
    if rng.random() < 0.5:
        sigma = float(rng.uniform(*how.blur))
        y, x = (torch.exp(-2 * (np.pi * sigma * (torch.arange(n) / n - 0.5)) ** 2) for n in shape)
        kspace = kspace * y[:, None] * x
    level = float(rng.uniform(*how.noise)) / np.sqrt(2)
    added = level * rng.standard_normal((*shape, 2), dtype=np.float32)
    return torch.abs(ifftc(kspace) + torch.view_as_complex(torch.from_numpy(added.astype(np.float32))))
