"""The batches of a run: which slices make each, and where they are augmented, masked and prepared.

Batch n of a run is the same in every process and on every machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mrnets import store
from mrnets.errors import InputError
from mrnets.physics.arrays import Array
from mrnets.preparation import Preparation
from mrnets.tensors import sent
from training.augment import augmented
from training.data import Example, Place, Preparing, Sample, Source, within
from training.options import Options
from training.planes import fully_sampled
from training.selfsupervised import split
from training.split import Part
from training.targets import First, finished
from training.undersample import as_sampled, generator, masked, require_calibration

__all__ = ["Batches", "examples", "mapped", "once", "to_device", "watched"]

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
    "image",
    "slices",
)
"""The part of a preparation that a source needs to prepare its batches itself."""


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
            volumes = sample.volumes or tuple(map(str, positions))
            rngs = [self._rng(within(volume, self.options.data), 2) for volume in volumes]
        fits = store.describe(self.options.network.name).task == "quantitative"
        preparation, held = self.options.preparation, self.options.self_supervised
        gaps = held.share > 0 and sample.raw is not None and not noise_free and not fully_sampled(sample)
        sample = as_sampled(sample) if gaps else masked(sample, self.options.masks, rngs)
        if sample.raw is not None and (preparation.sens != "none" or self._learns_maps):
            require_calibration(sample)
        example = finished(sample, preparation, noise_free, first, fits, all_samples=held.share > 0)
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
    computes. Raises InputError as the source does.
    """
    device, aside = torch.device(device), _Aside(torch.device(device))
    in_workers = workers > 0 and device.type == "cpu" and first is None
    if batches.ready_made and first is None and not in_workers:
        for n in order:
            yield aside.done(functools.partial(batches.example, n, device))
        return
    loader = torch.utils.data.DataLoader(
        _Told(functools.partial(batches.example, device="cpu") if in_workers else batches.__getitem__),
        batch_size=None,
        sampler=order,
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        pin_memory=False,
        collate_fn=_as_it_is,
    )
    for n, one in zip(order, loader, strict=True):
        if isinstance(one, InputError):
            raise one
        yield one if in_workers else aside.done(functools.partial(batches.finish, one, n, device, first))


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Raises InputError where a worker of `examples` has ended. torch raises RuntimeError for it, at any moment."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise InputError(
            f"a process that reads examples has ended ({str(error).strip().rstrip('.')}); if memory was short, give "
            "fewer workers; the same command goes on from the last checkpoint"
        ) from None


def once(example: Example, counted: set[Place]) -> bool:
    """Return whether none of the slices of `example` was counted before, and count them.

    Readers give another slice for one that shows nothing or is not finite, and that other one comes in its turn, too.
    """
    before = not counted.isdisjoint(example.places)
    counted.update(example.places)
    return not before


class _Aside:
    """A CUDA stream for work that runs while the network computes. On a CPU there is no such stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # Its small kernels come before those of the network, which take longer.
        self.stream = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None
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

        example: Example = mapped(made, kept)
        return example


@dataclass(frozen=True)
class _Told(torch.utils.data.Dataset[Any]):
    """The results of `make`, or its InputErrors: torch hides the sentence of an error of a worker in a traceback."""

    make: Callable[[int], Any]

    def __getitem__(self, n: int) -> Any:
        try:
            return self.make(n)
        except InputError as error:
            return error


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


def to_device(value: Any, device: torch.device | str) -> Any:
    """Return a dataclass of tensors, dictionaries of them and plain values, with all tensors on `device`.

    A CUDA device copies from pinned memory by itself: the host does not wait."""
    return mapped(value, lambda tensor: sent(tensor, device))


def mapped(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """Return a dataclass of tensors, dictionaries of them and plain values, with all tensors changed by `change`."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {f.name: mapped(getattr(value, f.name), change) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **changes)
    if isinstance(value, dict):
        return {key: mapped(v, change) for key, v in value.items()}
    return value
