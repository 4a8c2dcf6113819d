"""A network applied to frames: in batches that fit the memory, and back in the units of the raw data."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from gadgets.batches import as_one
from gadgets.frame import Frame, naming_shortfalls
from gadgets.models import Model
from mrnets.contract import Check, Estimate, Raw, Scan
from mrnets.noise import agreed_noise
from mrnets.physics.arrays import array_namespace

if TYPE_CHECKING:
    from mrnets.preparation import Preparation
    from mrnets.restore import Prepared

__all__ = ["USUAL_COMPUTING", "Computing", "Precision", "Runner"]

Precision = Literal["float32", "bfloat16", "float16"]
T = TypeVar("T")

PREPARED_AT_ONCE, PARTS = 16, 24
"""Slices at most, and parts of a volume at least. Prepared data are several times as large as the raw data: this bounds
their memory."""

FEW = 4
"""Slices in one pass, at most, that graphs are for. With one slice the host is 4 to 5 times slower than an H200. It is
faster with 16. There a graph, which takes seven runs to make, saves 6 to 16 % (`bench_device`)."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Computing:
    """Properties of the network gadget: where and how a network computes."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1."""
    batch: int = 0
    """Slices, or readout positions of a volume, in one forward pass; 0: 16 on a CUDA device, else 1."""
    precision: Precision = "float32"
    """The type of the network's convolutions and matrix products (torch.autocast)."""
    threads: int = 0
    """Threads of the processor, for all networks of the process; 0: as `mrnets.threads` and the environment say."""
    graphs: bool = True
    """Whether runs of few slices on a CUDA device are recorded as graphs and replayed (`mrnets.graphs`)."""


USUAL_COMPUTING = Computing()


@dataclass
class Runner:
    """A network and how it runs. Where its device is short of memory: in smaller batches, at last on the CPU."""

    model: Model
    batch: int
    precision: Precision
    on_cpu: Callable[[], Model]
    """Makes the same network on the CPU."""
    check: Check = "off"
    """Not "off": estimates get their `trust`, where the network is one that can be checked. "fallback": l1-wavelet has
    the share in the image that the left-out samples give it."""
    graphs: bool = False
    """Whether runs are recorded and replayed, where the device has graphs."""

    @classmethod
    def plain(cls, model: Model) -> Runner:
        """Return a runner slice by slice, of a model on the CPU."""
        return cls(model, 1, "float32", lambda: model)

    def reconstructed(self, frame: Frame) -> tuple[Estimate, tuple[str, ...]]:
        """Return the estimate of a frame in the units of its raw data, and notes.

        Raises ArithmeticError for values that are not finite, and whatever the network fails by."""
        return self._in_memory(lambda: _estimate(frame, self), len(frame.raw.kspace))

    def reconstructed_together(self, frames: list[Frame]) -> list[tuple[Estimate, tuple[str, ...]]]:
        """Return what `reconstructed` returns of each frame. They are slices of one form; see `gadgets.batches`.

        Raises as `reconstructed` does where one of them fails."""
        return self._in_memory(lambda: _estimates(frames, self), len(frames))

    def segmented(self, frames: list[Frame]) -> list[Estimate]:
        """Return the logits (batch, class, y, x) of frames that lie side by side. Raises as `reconstructed` does."""
        return self._in_memory(lambda: _segmented(frames, self), sum(len(frame.raw.kspace) for frame in frames))

    def _in_memory(self, work: Callable[[], T], slices: int) -> T:
        from mrnets.tensors import lacks_memory, release_spare

        while True:
            try:
                return work()
            except (MemoryError, RuntimeError) as error:
                if not lacks_memory(error):
                    raise
                held = self.model.graphs is not None and self.model.graphs.clear()
                if not held and not self._smaller(slices):
                    raise
            release_spare()

    @property
    def with_trial(self) -> int:
        """Slices in one run, at most, where half of them are those of the self-check's trial; 0: no such runs."""
        one_run = self.graphs and self.model.graphs is not None and self.model.reconstructs and self.check != "off"
        return min(FEW, self.batch) if one_run else 0

    def _smaller(self, slices: int) -> bool:
        """Take less memory from now on. Returns whether that is possible."""
        largest = max(slices, min(2 * slices, self.with_trial))
        if (batch := min(self.batch, largest)) > 1:
            self.batch = batch // 2
            _logger.warning("%s is out of memory; going on with batches of %d", self.model.name, self.batch)
        elif self.model.device.type != "cpu":
            self.model, self.precision = self.on_cpu(), "float32"
            _logger.warning("%s is out of memory; going on on the CPU", self.model.name)
        else:
            return False
        return True


def _estimate(frame: Frame, how: Runner) -> tuple[Estimate, tuple[str, ...]]:
    """Return the estimate in the units of the raw data, and notes. Raises ArithmeticError for values not finite."""
    import torch

    from mrnets.ending import ended
    from mrnets.preparation import as_it_comes
    from mrnets.prepare import prepare_blocks
    from mrnets.restore import restore
    from mrnets.tensors import slices_of

    model = how.model
    raw, doubts = _agreed(frame.raw)
    image = frame.estimate.image if model.takes == "both" and frame.estimate is not None else None
    preparation = model.preparation or as_it_comes(raw)
    forward = _checked(ended(partial(_on_grid, how), preparation, model.echoes), preparation, how, len(raw.kspace))
    parts: list[Estimate] = []
    notes: tuple[str, ...] = ()
    with naming_shortfalls(frame), torch.inference_mode():
        blocks = prepare_blocks(
            raw,
            preparation,
            image=image,
            size=how.batch * math.ceil(_at_once(len(raw.kspace)) / how.batch),
            device=model.device,
        )
        for block in blocks:
            scan = block.scan
            batches = (slices_of(scan, n, n + how.batch) for n in range(0, len(block.scale), how.batch))
            some = [forward(one) for one in batches]
            parts.append(restore(_joined(some), block))
            notes = (*doubts, *block.notes)
        return _fetched(_joined(parts)), notes


def _estimates(frames: list[Frame], how: Runner) -> list[tuple[Estimate, tuple[str, ...]]]:
    """Return what `_estimate` does of each of several slices. The network gets them in one batch.

    Slices that differ in nothing but their arrays are prepared as one batch, too."""
    import torch

    from mrnets.ending import ended
    from mrnets.restore import restore
    from mrnets.tensors import estimate_of, joined, slices_of

    model = how.model
    with torch.inference_mode():
        raw = as_one(frames)
        groups = [frames] if raw is not None else [[frame] for frame in frames]
        ready = [_prepared(raw or group[0].raw, group, model) for group in groups]
        scan = joined([block.scan for block, _, _ in ready])
        preparation = ready[0][1]
        forward = _checked(ended(partial(_on_grid, how), preparation, model.echoes), preparation, how, slices=1)
        whole = _joined([forward(slices_of(scan, n, n + how.batch)) for n in range(0, len(frames), how.batch)])
        size = len(groups[0])
        places = [slice(first, first + size) for first in range(0, len(frames), size)]
        own = [restore(estimate_of(whole, some), one[0]) for some, one in zip(places, ready, strict=True)]
        together = _fetched(_joined(own))
    return [(estimate_of(together, slice(n, n + 1)), ready[n // size][2]) for n in range(len(frames))]


def _agreed(raw: Raw) -> tuple[Raw, tuple[str, ...]]:
    """Return `agreed_noise`, unless the gadget coils has done that before it made the maps."""
    return agreed_noise(raw) if raw.sens_method is None else (raw, ())


def _prepared(raw: Raw, frames: list[Frame], model: Model) -> tuple[Prepared, Preparation, tuple[str, ...]]:
    """Return the data of frames prepared for the network, how, and notes."""
    from mrnets.preparation import as_it_comes
    from mrnets.prepare import prepare

    raw, doubts = _agreed(raw)
    images = [frame.estimate.image for frame in frames if model.takes == "both" and frame.estimate is not None]
    image = array_namespace(*images).concat(images) if images else None
    preparation = model.preparation or as_it_comes(raw)
    with naming_shortfalls(frames[0]):
        block = prepare(raw, preparation, image=image, device=model.device)
    return block, preparation, (*doubts, *block.notes)


def _segmented(frames: list[Frame], how: Runner) -> list[Estimate]:
    """Return logits (batch, class, y, x) of frames that lie side by side. Raises as `_estimate` does."""
    import torch

    from mrnets.prepare_image import prepare_image
    from mrnets.restore import restore

    model, preparation = how.model, how.model.preparation
    assert preparation is not None
    images = [torch.as_tensor(f.estimate.image, device=model.device) for f in frames if f.estimate is not None]
    stack = torch.cat(images)
    reach = torch.arange(model.slices) - model.slices // 2
    parts = []
    with torch.inference_mode():
        for start in range(0, len(stack), how.batch):
            image = stack[start : start + how.batch]
            if model.slices > 1:
                places = (torch.arange(start, start + len(image))[:, None] + reach).clamp(0, len(stack) - 1)
                image = stack[places.to(model.device)].movedim(1, 2)
            prepared = prepare_image(image, preparation)
            estimate = _recorded(partial(_run, how), how, "segmentation")(prepared.scan)
            logits = estimate.logits
            assert logits is not None, f"{model.name} is a segmentation network without logits"
            own = logits if model.slices == 1 else logits[:, :, model.slices // 2]
            parts.append(restore(Estimate(logits=own), prepared))
        logits = _fetched(_joined(parts)).logits
    assert logits is not None
    return [Estimate(logits=part) for part in logits.split([len(image) for image in images])]


def _at_once(slices: int) -> int:
    """Return the slices, or readout positions of a volume, that are prepared at once."""
    return min(PREPARED_AT_ONCE, math.ceil(slices / PARTS))


def _checked(
    forward: Callable[[Scan], Estimate], preparation: Preparation, how: Runner, slices: int
) -> Callable[[Scan], Estimate]:
    """Return `forward` with the self-check, where the network is one that can be checked. Graphs run both."""
    from mrnets.selfcheck import checked
    from mrnets.trust import classical

    forward = _recorded(forward, how, preparation)
    if not how.model.reconstructs:
        return forward
    return checked(forward, how.check, slices, _recorded(classical, how, "l1wavelet"), how.with_trial)


def _recorded(forward: Callable[[Scan], Estimate], how: Runner, name: Hashable) -> Callable[[Scan], Estimate]:
    """Return `forward` as a device runs it: by kernels that were compared, and as graphs where they are wanted.

    The name tells it from others of the model."""
    from mrnets.tensors import slices_in

    graphs, proved, key = how.model.graphs, how.model.proved, (name, how.precision)

    def compared(scan: Scan) -> Estimate:
        if proved is None:
            return forward(scan)
        return proved.run(forward, scan, key, rounded=how.precision != "float32")

    def run(scan: Scan) -> Estimate:
        if how.graphs and graphs is not None and slices_in(scan) <= FEW:
            return graphs.run(compared, scan, key)
        return compared(scan)

    return run


def _run(how: Runner, scan: Scan) -> Estimate:
    import torch

    with torch.autocast(how.model.device.type, getattr(torch, how.precision), enabled=how.precision != "float32"):
        estimate: Estimate = how.model.module(scan)
    logits: Any = estimate.logits  # NumPy, which images are made with, has no bfloat16
    return estimate if logits is None else replace(estimate, logits=logits.float())


def _on_grid(how: Runner, scan: Scan) -> Estimate:
    """Return what the network makes. Raises ArithmeticError for an image that is not on the grid of the k-space."""
    estimate = _run(how, scan)
    kspace: Any = scan.kspace
    shape = kspace.shape[:1] + kspace.shape[-2:]
    if (image := estimate.image) is not None and (image.ndim != 4 or image.shape[:1] + image.shape[-2:] != shape):
        raise ArithmeticError(f"its image has the shape {tuple(image.shape)}")
    return estimate


def _fetched(estimate: Estimate) -> Estimate:
    """Return an estimate in the host's memory. Raises ArithmeticError for values that are not finite, and for none.

    A device is waited for once: what is asked of the values is asked of the copy. NumPy is asked, in this thread: torch
    would start a team of threads for it, which took 100 ms in a server."""
    import torch

    def here(array: Any) -> Any:
        return None if array is None else array.to("cpu", non_blocking=True)

    maps = {name: here(array) for name, array in estimate.maps.items()}
    found = replace(estimate, image=here(estimate.image), maps=maps, logits=here(estimate.logits))
    given = [array for array in (estimate.image, estimate.logits, *estimate.maps.values()) if array is not None]
    if not given:
        raise ArithmeticError("it has no output")
    if given[0].device.type == "cuda":
        torch.cuda.current_stream(given[0].device).synchronize()
    copies = [array for array in (found.image, found.logits, *maps.values()) if array is not None]
    if not all(np.isfinite(array.numpy()).all() for array in copies):
        raise ArithmeticError("its output is not finite")
    return found


def _joined(parts: list[Estimate]) -> Estimate:
    """Return estimates of parts of a batch as one, without earlier steps."""
    import torch

    def cat(arrays: list[Any]) -> Any:
        return None if arrays[0] is None else torch.cat(arrays)

    return Estimate(
        image=cat([part.image for part in parts]),
        maps={name: cat([part.maps[name] for part in parts]) for name in parts[0].maps},
        logits=cat([part.logits for part in parts]),
        trust=tuple(one for part in parts for one in part.trust),
    )
