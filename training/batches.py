"""Examples from samples: which slices make a batch, and how they are augmented, masked and prepared.

Batch n of a run is the same in every process and on every machine. `prepare` is the one of the scanner. Axes: see
`mrnets.contract`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
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
from training.augment import augmented
from training.data import Example, Place, Preparing, Sample, Source
from training.options import Options
from training.planes import fully_sampled
from training.selfsupervised import split, supervised
from training.split import Part
from training.undersample import as_sampled, generator, masked, require_calibration

__all__ = ["Batches", "examples", "first_stage", "prepared", "to_device"]

First = Callable[[Raw], Array]
"""The first of two stages: restored images (batch, echo, y, x) of a masked scan."""

_STREAMS: dict[Part, int] = {"train": 0, "validation": 1, "test": 2}
_PREPARED = (
    "whiten",
    "whiten_scale",
    "coils",
    "image_crop",
    "kspace_crop",
    "sens",
    "combination",
    "normalisation",
    "normalise",
)
"""The part of a preparation that a source needs to prepare its batches itself."""
EXPLAINED = 0.9
"""Share of the coil images' energy that sensitivities explain at least. A simulated scan with less is left out. Too few
calibration lines, too many coils or too much noise have cut most of the object out of its maps."""


@dataclass(frozen=True)
class Batches(torch.utils.data.Dataset[Sample]):
    """The batches of a part of a data set, as they were measured, for one of several processes."""

    source: Source
    options: Options
    part: Part
    batch: int
    rank: int = 0
    world: int = 1

    def positions(self, n: int) -> list[int]:
        """Return the positions of batch n in the whole run. Several processes together see the same batches as one
        would."""
        start = (n * self.world + self.rank) * self.batch
        return list(range(start, start + self.batch))

    def __getitem__(self, n: int) -> Sample:
        positions = self.positions(n)
        return self.source.take([self._number(p) for p in positions], self._rng(positions[0]))

    @property
    def examined(self) -> int:
        """The number of slices of a validation: as many as asked for, each at most once."""
        size = len(self.source)
        return min(self.options.validation.examples or size, size)

    @property
    def ready_made(self) -> bool:
        """Whether the source prepares training batches itself, as this run wants them."""
        wanted, made = self.options.preparation, Preparation()
        alike = all(getattr(wanted, name) == getattr(made, name) for name in _PREPARED)
        held = self.options.self_supervised.share > 0
        return self.part == "train" and isinstance(self.source, Preparing) and alike and not held

    def example(self, n: int, device: torch.device | str) -> Example:
        """Batch n, prepared on `device`."""
        if self.ready_made and isinstance(self.source, Preparing):
            number = n * self.world + self.rank
            return self.source.prepared(number, self.batch, self.options.seed, torch.device(device))
        return self.finish(self[n], n, device)

    def finish(self, sample: Sample, n: int, device: torch.device | str, first: First | None = None) -> Example:
        """Return batch n augmented (in training), masked and prepared, all on `device`."""
        sample, positions = to_device(sample, device), self.positions(n)
        noise_free = sample.coil_images is not None
        if self.part == "train":
            sample = augmented(sample, self.options.augmentation, self._rng(positions[0], 1))
            rngs = [self._rng(p, 2) for p in positions]
        else:
            rngs = [self._rng(volume, 2) for volume in sample.volumes or tuple(map(str, positions))]
        fits = store.describe(self.options.network.name).task == "quantitative"
        preparation, held = self.options.preparation, self.options.self_supervised
        gaps = held.share > 0 and sample.raw is not None and not noise_free and not fully_sampled(sample)
        sample = as_sampled(sample) if gaps else masked(sample, self.options.masks, rngs)
        if sample.raw is not None and (preparation.sens != "none" or self._learns_maps):
            require_calibration(sample)
        example = _finished(sample, preparation, noise_free, first, fits, all_samples=held.share > 0)
        if self.part == "train":
            example = dataclasses.replace(example, ready=None)
        elif not example.places:
            example = dataclasses.replace(example, places=(Place("simulated", n, "simulated"),))
        return split(example, held, rngs) if gaps else example

    @property
    def _learns_maps(self) -> bool:
        """Whether the network makes its own sensitivities of the calibration lines."""
        bound = store.bind(self.options.network.name, **self.options.network.options)
        return bool(bound.get("sens_net")) and bound["sens_from"] == "calibration"

    def _rng(self, *place: int | str) -> np.random.Generator:
        return generator(self.options.seed, _STREAMS[self.part], *place)

    def _number(self, position: int) -> int:
        """The slice at a position. Training has another order in each epoch; validation takes evenly spaced slices."""
        size = len(self.source)
        if self.part == "train":
            return int(_order(self.options.seed, position // size, size)[position % size])
        return position * size // self.examined % size


def examples(
    batches: Batches,
    order: range,
    workers: int,
    device: torch.device | str,
    first: First | None = None,
) -> Iterator[Example]:
    """Give the batches `order`, which `workers` processes read ahead of the network.

    For a CPU the workers finish them, too. On a CUDA device they are finished on another stream, while the network
    computes.
    """
    device, aside = torch.device(device), _Aside(torch.device(device))
    in_workers = workers > 0 and device.type == "cpu" and first is None
    if batches.ready_made and first is None and not in_workers:
        for n in order:
            yield aside.done(functools.partial(batches.example, n, device))
        return
    loader = torch.utils.data.DataLoader(
        _Finished(batches) if in_workers else batches,
        batch_size=None,
        sampler=order,
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        pin_memory=False,
        collate_fn=_as_it_is,
    )
    for n, one in zip(order, loader, strict=True):
        yield one if in_workers else aside.done(functools.partial(batches.finish, one, n, device, first))


class _Aside:
    """A CUDA stream for work that runs while the network computes. On a CPU there is no such stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(device))

    def done(self, work: Callable[[], Example]) -> Example:
        """Return what `work` makes, for use on the current stream, which waits for it."""
        if self.stream is None:
            return work()
        with torch.cuda.stream(self.stream):
            made = work()
        network = torch.cuda.current_stream(self.device)
        network.wait_stream(self.stream)

        def kept(tensor: torch.Tensor) -> torch.Tensor:
            """Keep the memory from other use as long as the network reads it."""
            tensor.record_stream(network)
            return tensor

        example: Example = _mapped(made, kept)
        return example


@dataclass(frozen=True)
class _Finished(torch.utils.data.Dataset[Example]):
    batches: Batches

    def __getitem__(self, n: int) -> Example:
        return self.batches.example(n, "cpu")


def _as_it_is(batch: Any) -> Any:
    return batch


def _order(seed: int, epoch: int, size: int) -> Array:
    key = (seed, epoch, size)
    if key not in _orders:
        _orders.clear()
        _orders[key] = np.random.default_rng([seed, 9, epoch]).permutation(size)
    return _orders[key]


_orders: dict[tuple[int, int, int], Array] = {}
"""The permutation of the current epoch, kept because shuffling the data set for each sample would take long."""


def _finished(
    sample: Sample,
    preparation: Preparation,
    noise_free: bool,
    first: First | None,
    fits: bool,
    *,
    all_samples: bool,
) -> Example:
    """Make an example of a masked sample: the input of the network and its targets. Tensors stay on their device.

    fits: whether the network makes maps. Maps that are not known are then fitted, which takes time. all_samples:
    whether k-space that was masked out is a target, too.
    """
    weight = torch.ones(len(sample.names))
    if sample.raw is None:
        ready = prepare_image(sample.image, preparation)
        device = ready.scale.device
        return Example(
            scan=ready.scan,
            names=sample.names,
            labels=sample.labels,
            region=sample.region,
            weight=weight.to(device),
            places=sample.places,
            ready=dataclasses.replace(ready, scan=Scan()),
        )
    image = None if first is None else first(sample.raw)
    ready, target, explained, kspace = prepared(sample.raw, sample.coil_images, preparation, image)
    if noise_free:
        weight = (explained > EXPLAINED).float()
    example = Example(
        scan=ready.scan,
        names=sample.names,
        target=target,
        maps=_maps(sample, target, ready) if fits else {},
        labels=sample.labels,
        region=sample.region,
        weight=weight.to(target.device),
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


def to_device(value: Any, device: torch.device | str) -> Any:
    """Return a dataclass of tensors, dictionaries of them and plain values, with all tensors on `device`.

    A CUDA device copies from pinned memory by itself: the host does not wait."""
    pinned = torch.device(device).type == "cuda"

    def there(tensor: torch.Tensor) -> torch.Tensor:
        source = tensor.pin_memory() if pinned and tensor.device.type == "cpu" else tensor
        return source.to(device, non_blocking=True)

    return _mapped(value, there)


def _mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return change(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {f.name: _mapped(getattr(value, f.name), change) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **changes)
    if isinstance(value, dict):
        return {key: _mapped(v, change) for key, v in value.items()}
    return value
