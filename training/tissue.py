"""Label maps of tissue for heads without manual labels: CSF, grey and white matter by a mixture of Gaussians.

Axes: images (contrast, z, y, x), priors (class, z, y, x), volumes (z, y, x). In the formulas the voxels of the brain
are one axis (voxel,). Affines are NIfTI's: (x, y, z) voxels to mm.
"""

from __future__ import annotations

import functools
import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrnets import heads
from mrnets.errors import InputError
from mrnets.files import make_folder, write_bytes
from training.panel import Picture, colours, write
from training.readers.files import nifti, voxels

__all__ = ["CLASSES", "Atlas", "aligned", "icbm152", "prepare", "segment"]

Volume = NDArray[np.float32]
Values = NDArray[np.float64]
Labels = NDArray[np.uint8]

CLASSES = ("csf", "grey", "white")
"""The values 1, 2 and 3 of a label map; 0 is not brain."""
CONTRASTS = ("T1", "T2", "FLAIR")
LESIONS = "GOLD_STANDARD"
ITERATIONS = 30
FLOOR = 1e-3
"""Least variance of a class along any direction, relative to that of the whole brain."""
LEAST = 0.01
"""Least prior of a class anywhere. Heads differ from the average head by more than its probabilities show."""
BLUR = 2.0
"""Standard deviation of the blur of the atlas, mm: about the distance between atlas and head after an affine map."""
COUPLING = 0.3
"""A neighbour of the same class adds this to the logarithm of a voxel's probability. There are then fewer single voxels
of another class in deep grey matter and brain stem, whose grey lies between two classes."""
PASSES = 8
ROUNDS = 3
POINTS = 30000
"""Voxels that the atlas is aligned to."""


@dataclass(frozen=True)
class Atlas:
    """An average head, without its scalp, and how probable grey and white matter are in it; CSF is the rest."""

    t1: Volume
    """(z, y, x), 0 beyond the brain."""
    grey: Volume
    """(z, y, x), 0 to 1."""
    white: Volume
    affine: Values
    """(4, 4)."""

    @functools.cached_property
    def blurred(self) -> tuple[Volume, Volume]:
        """Grey and white matter of heads that were aligned by an affine map only."""
        from scipy import ndimage

        sigma = BLUR / np.linalg.norm(self.affine[:3, :3], axis=0)[::-1]
        return ndimage.gaussian_filter(self.grey, sigma), ndimage.gaussian_filter(self.white, sigma)

    def priors(self, places: Values) -> Values:
        """(class, voxel) at `places` (voxel, 3), mm in the space of the atlas; their sum is 1."""
        from scipy import ndimage

        inverse = np.linalg.inv(self.affine)
        where = (places @ inverse[:3, :3].T + inverse[:3, 3])[:, ::-1].T
        grey, white = (ndimage.map_coordinates(tissue, where, order=1) for tissue in self.blurred)
        given = np.stack([np.maximum(1 - grey - white, 0), grey, white]).astype(np.float64)
        return LEAST + (1 - len(CLASSES) * LEAST) * given / given.sum(axis=0)


def icbm152() -> Atlas:
    """The ICBM152 2009a atlas that the nilearn package carries. Raises InputError where nilearn is not installed."""
    t1, grey, white = heads.icbm152("t1"), heads.icbm152("gm"), heads.icbm152("wm")
    whole = 255.0 if voxels(white).max() > 1 else 1.0  # nilearn's files are bytes
    return Atlas(
        voxels(t1).T, voxels(grey).T / whole, voxels(white).T / whole, np.asarray(nifti(t1).affine, np.float64)
    )


def segment(images: Volume, priors: NDArray[Any], mask: NDArray[np.bool_], *, iterations: int = ITERATIONS) -> Labels:
    """Label map (z, y, x): the most probable class of each voxel in `mask`, numbered from 1; 0 elsewhere.

    The model is a mixture of one Gaussian (with full covariance) for each class, with the priors as weights. It is
    fitted by expectation-maximisation (Ashburner and Friston, Unified segmentation, NeuroImage 26:839-851, 2005). The
    bias field and the several Gaussians for a class of that paper are left out. The last step adds the six neighbours
    of a voxel as a Markov random field, in the mean-field approximation of Van Leemput et al. (IEEE TMI 18:897-908,
    1999).

    images: (contrast, z, y, x), of any scale, without shading (N4).
    priors: (class, z, y, x), at least 0, need not sum to 1.
    mask: (z, y, x).
    A class without voxels keeps the Gaussian it had. Raises InputError for other shapes, values that are not finite,
    and an empty mask.
    """
    if images.ndim != 4 or priors.ndim != 4 or not images.shape[1:] == priors.shape[1:] == mask.shape:
        raise InputError(
            "images (contrast, z, y, x), priors (class, z, y, x) and mask (z, y, x) must have one grid, "
            f"got {images.shape}, {priors.shape} and {mask.shape}"
        )
    if not mask.any():
        raise InputError("the mask of the brain is empty")
    if not np.isfinite(images[:, mask]).all() or not np.isfinite(priors[:, mask]).all():
        raise InputError("images or priors have values that are not finite")
    values, given = images[:, mask].astype(np.float64), priors[:, mask].astype(np.float64)
    labels = np.zeros(mask.shape, np.uint8)
    labels[mask] = 1 + np.argmax(_coupled(_log(given) + _fitted(values, given, iterations), mask), axis=0)
    return labels


def aligned(atlas: Atlas, images: Volume, mask: NDArray[np.bool_], affine: Values) -> Volume:
    """Priors (class, z, y, x) of a head in `images` (contrast, z, y, x) with `affine`, zero outside its brain `mask`.

    The affine map from head to atlas maximises the likelihood of the mixture (Ashburner and Friston 2005). It is fitted
    in turn with the Gaussians. The start makes the moments of both brains agree. Heads "in MNI space" need it where
    they were only turned and not scaled.
    """
    index = np.argwhere(mask)
    places = index[:, ::-1] @ affine[:3, :3].T + affine[:3, 3]
    few = np.arange(0, len(index), max(len(index) // POINTS, 1))
    matrix, shift = _registered(atlas, images[:, mask][:, few].astype(np.float64), places[few], places)
    priors = np.zeros((len(CLASSES), *mask.shape), np.float32)
    priors[:, mask] = atlas.priors(places @ matrix.T + shift)
    return priors


def prepare(folder: Path, output: Path) -> None:
    """Write the data set of `recipes/simulated_joint.yaml`, and print a line for each subject.

    output/SUBJECT/T1.nii.gz and tissue.nii.gz come from every folder in `folder`. ICBM152 is labelled by its own
    probabilities. output/SUBJECT.png shows each.

    A subject has NIfTI files T1*, T2*, FLAIR* and GOLD_STANDARD* on one grid. The images are 0 outside the brain and
    without shading. The gold standard has the lesions, which count as white matter. Raises InputError for anything
    else.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    subjects = sorted(path for path in folder.iterdir() if path.is_dir() and any(path.glob("*.nii*")))
    if not subjects:
        raise InputError(f"{folder}: no folder in it holds NIfTI files (.nii, .nii.gz)")
    for path in subjects:  # faults of all, before the first minute is spent
        _files(path)
    atlas = icbm152()
    for path in subjects:
        images, lesions, affine = _subject(path)
        mask = (images != 0).all(axis=0)
        healthy = mask & ~lesions
        if not healthy.any():
            raise InputError(f"{path}: no voxel has all of {', '.join(CONTRASTS)} and is not a lesion")
        labels = segment(images, aligned(atlas, images, healthy, affine), healthy)
        labels[lesions & mask] = 1 + CLASSES.index("white")
        _write(output, path.name, images[0], labels, affine)
    priors = np.stack([1 - atlas.grey - atlas.white, atlas.grey, atlas.white])
    labels = np.where(atlas.t1 > 0, 1 + priors.argmax(axis=0), 0).astype(np.uint8)
    _write(output, "icbm152", atlas.t1, labels, atlas.affine)


# The mixture


def _fitted(values: Values, priors: Values, iterations: int) -> Values:
    """Logarithm of the Gaussian of each class at each voxel, (class, voxel), of `values` (contrast, voxel)."""
    spread = np.atleast_2d(np.cov(values, bias=True))
    # An image without contrast differs from its mean by rounding alone, which must not tell one class from another.
    rounding = np.square(np.finfo(np.float32).eps * np.abs(values).max(axis=1))
    least = np.diag(np.maximum(FLOOR * np.diag(spread), rounding) + np.finfo(np.float64).tiny ** 0.5)
    means = np.repeat(values.mean(axis=1)[None], len(priors), axis=0)
    covariances = np.repeat((spread + least)[None], len(priors), axis=0)
    densities = np.zeros_like(priors)  # the first shares are the priors'
    for _ in range(max(iterations, 1)):
        shares = np.where(priors > 0, _shares(_log(priors) + densities), 0)
        for k, share in enumerate(shares):
            if (total := share.sum()) < 1:  # less than a voxel
                continue
            means[k] = values @ share / total
            away = values - means[k][:, None]
            covariances[k] = (away * share) @ away.T / total + least
        densities = np.stack([_gaussian(values, m, c) for m, c in zip(means, covariances, strict=True)])
    return densities


def _gaussian(values: Values, mean: Values, covariance: Values) -> Values:
    """Logarithm of the Gaussian at (contrast, voxel), without the factor that all classes share: (voxel,)."""
    root = np.linalg.cholesky(covariance)
    whitened = np.linalg.inv(root) @ (values - mean[:, None])
    return -0.5 * np.square(whitened).sum(axis=0) - np.log(np.diag(root)).sum()


def _coupled(logarithms: Values, mask: NDArray[np.bool_]) -> Values:
    """Logarithms of probabilities (class, voxel of `mask`), in which the neighbours have their say."""
    from scipy import ndimage

    neighbours = ndimage.generate_binary_structure(3, 1).astype(np.float32)
    neighbours[1, 1, 1] = 0
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    inside, coupled = mask[box], logarithms
    for _ in range(PASSES):
        shares = np.zeros((len(logarithms), *inside.shape), np.float32)
        shares[:, inside] = _shares(coupled)
        around = [ndimage.convolve(share, neighbours, mode="constant")[inside] for share in shares]
        coupled = logarithms + COUPLING * np.stack(around)
    return coupled


def _shares(logarithms: Values) -> Values:
    """The share of each class in each voxel, (class, voxel); the sum over classes is 1."""
    relative = np.exp(logarithms - logarithms.max(axis=0))
    return relative / relative.sum(axis=0)


def _log(priors: Values) -> Values:
    return np.log(np.maximum(priors, np.finfo(np.float64).tiny))


# Alignment


def _registered(atlas: Atlas, values: Values, places: Values, brain: Values) -> tuple[Values, Values]:
    """Matrix (3, 3) and shift (3,) from mm of the head to mm of the atlas; `values` (contrast, voxel) at `places`."""
    from scipy import optimize

    index = np.argwhere(atlas.t1 > 0)[:, ::-1] @ atlas.affine[:3, :3].T + atlas.affine[:3, 3]
    centre, scale = brain.mean(axis=0), index.std(axis=0) / np.maximum(brain.std(axis=0), 1e-6)

    def mapped(steps: Values) -> tuple[Values, Values]:
        """A step moves a voxel some 7 cm from the centre by about a millimetre."""
        matrix = (np.eye(3) + steps[3:].reshape(3, 3) / 70) @ np.diag(scale)
        return matrix, index.mean(axis=0) + steps[:3] - matrix @ centre

    def unlikely(steps: Values, densities: Values) -> float:
        matrix, shift = mapped(steps)
        return -float(np.logaddexp.reduce(_log(atlas.priors(places @ matrix.T + shift)) + densities, axis=0).mean())

    steps = np.zeros(12)
    for _ in range(ROUNDS):
        matrix, shift = mapped(steps)
        densities = _fitted(values, atlas.priors(places @ matrix.T + shift), 10)
        how = {"maxiter": 3, "xtol": 0.05, "ftol": 1e-5}
        steps = optimize.minimize(unlikely, steps, (densities,), method="Powell", options=how).x
    return mapped(steps)


# Files


def _files(folder: Path) -> list[Path]:
    """The files of the contrasts and of the lesions. Raises InputError for one missing, double, or of another grid."""
    found = []
    for name in (*CONTRASTS, LESIONS):
        matching = sorted(folder.glob(f"{name}*.nii")) + sorted(folder.glob(f"{name}*.nii.gz"))
        if len(matching) != 1:
            names = ", ".join(path.name for path in matching) or "none"
            raise InputError(f"{folder}: expected one NIfTI file {name}*, found {len(matching)} ({names})")
        found += matching
    first = nifti(found[0])
    for path in found[1:]:
        other = nifti(path)
        if other.shape != first.shape:
            raise InputError(f"{path}: expected the grid of {found[0].name}, {first.shape}, got {other.shape}")
        if not np.allclose(other.affine, first.affine, atol=1e-2):
            raise InputError(f"{path}: expected the affine of {found[0].name}, got another")
    return found


def _subject(folder: Path) -> tuple[Volume, NDArray[np.bool_], Values]:
    """Images (contrast, z, y, x), lesions (z, y, x), and the affine. Raises InputError also for NaN."""
    files = _files(folder)
    volumes = []
    for path in files:
        volumes.append(voxels(path).T)
        if not np.isfinite(volumes[-1]).all():
            raise InputError(f"{path}: has values that are not finite")
    return np.stack(volumes[:-1]), volumes[-1] > 0.5, np.asarray(nifti(files[0]).affine, np.float64)


def _write(output: Path, name: str, image: Volume, labels: Labels, affine: Values) -> None:
    """T1, label map and picture of a subject, and a line."""
    import nibabel

    make_folder(output / name)
    for file, volume in (("T1", image), ("tissue", labels)):
        nifti = nibabel.Nifti1Image(volume.T, affine).to_bytes()
        write_bytes(output / name / f"{file}.nii.gz", gzip.compress(nifti, mtime=0))
    write(output / f"{name}.png", [_picture(image, labels)])
    counts = np.bincount(labels.ravel(), minlength=1 + len(CLASSES))[1:]
    millilitres = counts.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000
    shares = ", ".join(f"{c} {n:.1%}" for c, n in zip(CLASSES, counts / max(counts.sum(), 1), strict=True))
    print(f"{name}: {shares} of {millilitres:.0f} mL", flush=True)


def _picture(image: Volume, labels: Labels) -> Picture:
    """The middle slices of the brain across z, y and x; the image above, its classes in colour below."""
    brain = np.argwhere(labels > 0)
    middle = brain.mean(axis=0).round().astype(int) if len(brain) else np.array(labels.shape) // 2
    bright = max(float(np.percentile(image[labels > 0], 99)) if len(brain) else 0.0, 1e-30)
    grey = (255 * np.clip(image / bright, 0, 1)).astype(np.uint8)
    palette = np.array([(0, 0, 0), *colours(len(CLASSES))], np.uint8)
    tiles = []
    for axis in range(3):
        plane, classes = (v.take(middle[axis], axis=axis)[::-1] for v in (grey, labels))
        shown = np.repeat(plane[..., None], 3, axis=2)
        tinted = np.where(classes[..., None] > 0, (shown // 2 + palette[classes] // 2), shown)
        tile = np.concatenate([shown, tinted.astype(np.uint8)], axis=1)
        tiles.append(np.pad(tile, ((0, max(labels.shape) - len(tile)), (0, 0), (0, 0))))
    return np.concatenate(tiles, axis=1)
