"""Classical methods to stand beside networks.

Where a method has a setting, each image gets the best of several, by its error, which no scanner could choose. Only
"l1wavelet" is what a scanner gets: its threshold follows from the noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from mrnets import store
from mrnets.blocks.consistency import sparse
from mrnets.blocks.encoding import Encoding, initial_image
from mrnets.contract import Estimate, Scan
from mrnets.ending import maps_of_object, weighted
from mrnets.physics.maps import MAPS
from mrnets.physics.relaxation import fit
from training.data import Example
from training.kmeans import classes
from training.selfsupervised import missed

__all__ = ["REGULARISATIONS", "THRESHOLDS", "images", "maps", "segmentations"]

REGULARISATIONS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Weights of CG-SENSE's regularisation."""
THRESHOLDS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
"""Thresholds of tuned l1-wavelet, relative to the largest magnitude of the zero-filled image."""


def images(example: Example, *, wavelet: bool = False) -> dict[str, Estimate]:
    """ "zerofilled" and, where the scan has sensitivities, "cgsense" and "l1wavelet"; with `wavelet`, "l1wavelet tuned"
    too: the best of `THRESHOLDS` for each image."""
    made = {"zerofilled": _untuned("zerofilled", example.scan)}
    if example.scan.sens is not None:
        made["cgsense"] = _cgsense(example)
        made["l1wavelet"] = _untuned("l1wavelet", example.scan)
        if wavelet:
            made["l1wavelet tuned"] = _best(example, _thresholded(example.scan))
    return made


def maps(example: Example) -> dict[str, Estimate]:
    """ "fit": voxel by voxel, to the echoes that CG-SENSE gives; 0 outside the object, as those of networks."""
    if example.scan.sens is None:
        return {}
    fitted = fit(_cgsense(example).image, example.scan.echo_times)
    return {"fit": Estimate(maps=maps_of_object(dict(zip(MAPS, fitted.unbind(1), strict=True)), example.scan))}


def segmentations(example: Example) -> dict[str, Estimate]:
    """ "kmeans": the grey values of the slice, in as many classes as there are labels, the brightest last."""
    image, labels = example.scan.image, example.labels
    if image is None or labels is None or image.ndim != 4 or image.shape[1] != 1:
        return {}
    return {"kmeans": Estimate(logits=torch.stack([classes(plane[0], labels.shape[1]) for plane in image]))}


def _untuned(name: str, scan: Scan) -> Estimate:
    return weighted(store.create(name)(scan), scan)


def _cgsense(example: Example) -> Estimate:
    scan = example.scan
    return _best(example, (weighted(store.create("cgsense", regularisation=r)(scan), scan) for r in REGULARISATIONS))


def _thresholded(scan: Scan) -> Iterator[Estimate]:
    """The l1-wavelet image for each of `THRESHOLDS`, whatever the noise level."""
    kspace, mask, sens = scan.kspace, scan.mask, scan.sens
    assert kspace is not None
    assert mask is not None
    assert sens is not None
    encoding = Encoding(kspace, mask, sens, initial_image(kspace, mask, sens))
    noiseless = torch.zeros(len(kspace), device=kspace.device)
    for threshold in THRESHOLDS:
        image = sparse(encoding, noiseless, iterations=60, regularisation=threshold)
        yield weighted(Estimate(image=image), scan)


def _best(example: Example, tried: Iterable[Estimate]) -> Estimate:
    """The one of several images whose magnitude is nearest to the target's.

    Without a target it is the one that predicts best the samples that no method gets."""
    return min(tried, key=lambda estimate: float(_error(estimate, example)))


def _error(estimate: Estimate, example: Example) -> Tensor:
    assert estimate.image is not None
    if example.target is not None:
        return torch.sum((estimate.image.abs() - example.target.abs()) ** 2)
    error, _ = missed(estimate, example)
    return torch.sum(error.abs() ** 2)
