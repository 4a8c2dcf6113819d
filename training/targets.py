"""Examples of masked samples: the input of a network, prepared as on a scanner, and its targets.

`prepare` is the one of the scanner. Axes: see `mrnets.contract`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from mrnets import store
from mrnets.contract import Raw, Scan
from mrnets.ending import ended
from mrnets.errors import InputError
from mrnets.physics.arrays import Array
from mrnets.physics.fourier import fftc, ifftc
from mrnets.physics.maps import MAPS, scaled
from mrnets.physics.relaxation import fit
from mrnets.preparation import Preparation
from mrnets.prepare import coil_transform, combine, mixed_blocks, prepare
from mrnets.prepare_image import prepare_image
from mrnets.restore import Prepared, restore
from mrnets.view import cropped
from training.data import Example, Sample
from training.options import Options
from training.selfsupervised import supervised

__all__ = ["First", "finished", "first_stage", "prepared"]

First = Callable[[Raw], Array]
"""The first of two stages: restored images (batch, echo, y, x) of a masked scan."""

EXPLAINED = 0.9
"""Share of the coil images' energy that sensitivities explain at least. A simulated scan with less is left out. Too few
calibration lines, too many coils or too much noise have cut most of the object out of its maps."""


def finished(
    sample: Sample,
    preparation: Preparation,
    noise_free: bool,
    first: First | None,
    fits: bool,
    *,
    all_samples: bool,
) -> Example:
    """Return an example of a masked sample: the input of the network and its targets. Tensors stay on their device.

    fits: whether the network makes maps. Maps that are not known are then fitted, which takes time. all_samples:
    whether k-space that was masked out is a target, too.
    """
    if sample.raw is None:
        ready = prepare_image(sample.image, preparation)
        device = ready.scale.device
        return Example(
            scan=ready.scan,
            names=sample.names,
            labels=sample.labels,
            region=sample.region,
            weight=torch.ones(len(sample.names), device=device),
            places=sample.places,
            ready=dataclasses.replace(ready, scan=Scan()),
        )
    image = None if first is None else first(sample.raw)
    ready, target, explained, kspace = prepared(sample.raw, sample.coil_images, preparation, image)
    weight = (explained > EXPLAINED).float() if noise_free else torch.ones_like(explained)
    example = Example(
        scan=ready.scan,
        names=sample.names,
        target=target,
        maps=_maps(sample, target, ready) if fits else {},
        labels=sample.labels,
        region=sample.region,
        weight=weight,
        places=sample.places,
        ready=dataclasses.replace(ready, scan=Scan()),
    )
    return supervised(example, kspace) if all_samples else example


def _maps(sample: Sample, target: Array, ready: Prepared) -> dict[str, Array]:
    """The known maps, and for the others the fit to the target."""
    assert sample.raw is not None
    fitted = dict(zip(MAPS, fit(target, sample.raw.echo_times).unbind(1), strict=True))
    return {**fitted, **scaled(sample.maps, 1 / ready.scale[:, None, None])}


def prepared(
    raw: Raw, coil_images: Array, preparation: Preparation, image: Array | None = None
) -> tuple[Prepared, Array, Array, Array]:
    """Prepare a scan and its fully sampled coil images (batch, echo, coil, y, x) alike.

    The same coil transform mixes both. The target is the optimal combination of the coil images with the sensitivities
    that the network gets, or their root sum of squares. `image`: as in `prepare`. Returns the scan, the target
    (batch, echo, y, x) in the scale of the scan, and the explained share (batch,). That is the part of the coil images'
    energy that the sensitivities explain. At last comes their k-space (batch, echo, coil, y, x) in the scale of the
    scan.
    """
    mixed, transform = coil_transform(raw, preparation)
    (ready,) = mixed_blocks(mixed, preparation, image=image)
    whole = dataclasses.replace(mixed, kspace=transform(fftc(coil_images)))
    kspace = cropped(whole, preparation).kspace
    full = ifftc(kspace)
    sens = ready.scan.sens
    scale = ready.scale * (preparation.whiten_scale if mixed.whitened else 1.0)
    target = combine(full, sens, preparation.combination) / scale[:, None, None, None]
    explained = torch.ones(len(target), device=target.device)
    if sens is not None:
        seen = combine(full, sens)
        explained = torch.sum(seen.abs() ** 2, dim=(1, 2, 3)) / torch.sum(full.abs() ** 2, dim=(1, 2, 3, 4))
    return ready, target, explained, kspace / scale[:, None, None, None, None]


def first_stage(options: Options, device: torch.device | str) -> First | None:
    """Return the first stage, made of the weights that `network.first` names; None without it.

    Raises InputError where they are not of a reconstruction network.
    """
    if options.network.first is None:
        return None
    trained = store.load(options.network.first, device)
    if store.describe(trained.name).task != "reconstruction":
        raise InputError(f"option network.first: {options.network.first} holds {trained.name}, which makes no images")
    preparation = Preparation.from_json(trained.preparation)
    forward = ended(trained.network, preparation, store.describe(trained.name).echoes)

    @torch.no_grad()
    def images(raw: Raw) -> Array:
        own = prepare(raw, preparation)
        image = restore(forward(own.scan), own).image
        assert image is not None
        return image

    return images
