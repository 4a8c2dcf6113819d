"""The network: frames get their estimate, by a trained network or by one that needs no weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from ismrmrd.xsd import ismrmrdHeader

from gadgets.frame import Frame, naming_shortfalls
from gadgets.gadget import gadget
from gadgets.models import Model, device_of, model_of
from gadgets.neighbours import with_neighbours
from gadgets.received import with_frames
from mrnets.contract import Estimate, Raw, Scan
from mrnets.errors import InputError
from mrnets.mrd.lines import Item

if TYPE_CHECKING:
    from mrnets.preparation import Preparation, Sensitivities

__all__ = ["network"]

Precision = Literal["float32", "bfloat16", "float16"]
Fallback = Literal["l1wavelet", "cgsense", "zerofilled", "none"]

PREPARED_AT_ONCE = 16
"""Slices: what prepared data, several times as large as the raw data, take of memory is bounded by it."""

_logger = logging.getLogger(__name__)


@gadget(takes=("kspace", "coil maps", "estimates"), gives="estimates")
def network(
    stream: Iterable[Item],
    header: ismrmrdHeader,
    *,
    weights: str | None = None,
    name: str | None = None,
    options: str = "",
    device: str = "auto",
    batch: int = 1,
    precision: Precision = "float32",
    fallback: Fallback = "l1wavelet",
) -> Iterator[Item]:
    """Give frames their estimate, in their own units. Everything else passes.

    weights: a weights file, or the name of one that ships. The preparation that it asks for is completed here.
    name, options: a network without weights instead, and its options, such as "iterations=20, regularisation=0.01".
    device: auto, cpu, cuda, cuda:1.
    batch: slices (of volumes: readout positions) in one forward pass.
    fallback: the reconstruction of a frame on which the network fails: it is out of memory, or its values are not
    finite. An estimate of an earlier network is kept instead. The images say so. "none": the failure ends the chain.

    Images that are sent in, without raw data, go to segmentation networks, and leave the chain as they came.
    Several networks may follow each other, and their estimates are kept side by side. A segmentation network takes the
    image of the network before it, with echoes as contrasts; in volumes it takes planes across the readout. A network
    on several neighbouring slices waits for all slices of a repetition, and edge slices are repeated for it. A network
    with the option start="image" starts from the image of the network before it.

    Raises InputError before the first frame for weights, name, options or device that cannot be had; at a frame that
    contradicts the preparation; and for a network on images where none came, or not its number of contrasts.
    """
    if batch < 1:
        raise InputError(f"batch must be at least 1, got {batch}")
    model = model_of(weights, name, options, device_of(device))
    how = _How(batch, precision, fallback)
    stream = with_frames(stream, model.contrasts or 1) if model.takes == "image" else stream
    if model.slices > 1:
        yield from with_neighbours(stream, header, lambda frames: _completed(frames, model, how))
        return
    for item in stream:
        yield _completed([item], model, how)[0] if isinstance(item, Frame) else item


@dataclass(frozen=True)
class _How:
    batch: int
    precision: Precision
    fallback: Fallback


def _completed(frames: list[Frame], model: Model, how: _How) -> list[Frame]:
    """Frames with their estimate: one, or several slices that lie side by side."""
    for frame in frames:
        _check(frame, model)
    try:
        if model.takes == "image":
            estimates = _segmented(frames, model, how)
            notes = _alone(frames, model)
        else:
            (frame,) = frames
            estimate, notes = _estimate(frame, model, how)
            estimates = [estimate]
    except InputError:
        raise
    except Exception as error:  # whatever a network fails by, the scan is not to be lost
        if how.fallback == "none":
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return [_fallen_back(frame, f"the network {model.name} failed ({reason})", how.fallback) for frame in frames]
    both = zip(frames, estimates, strict=True)
    return [_with(frame, estimate, model, (*_notes(frame, model), *notes)) for frame, estimate in both]


def _check(frame: Frame, model: Model) -> None:
    """Raises InputError where the network takes images and `frame` has none, or not as many as it takes."""
    if model.takes == "kspace":
        return
    image = None if frame.estimate is None else frame.estimate.image
    if image is None:
        what = "segments images" if model.takes == "image" else "starts from images"
        raise InputError(
            f"{model.name} {what}, and none came; the chain needs a network gadget before it that makes them"
        )
    if model.contrasts not in (None, image.shape[1]):
        raise InputError(
            f"{model.name} takes images of {model.contrasts} contrasts (the echoes of a scan), "
            f"and the scan has {image.shape[1]}"
        )


def _fallen_back(frame: Frame, failure: str, fallback: str) -> Frame:
    """With what came before, or an image by `fallback`, and a note."""
    kept = frame.estimate is not None
    note = f"FALLBACK: {failure}; what came before it stays" if kept else f"FALLBACK to {fallback}: {failure}"
    _logger.warning("%s", note)
    frame = replace(frame, fallback=True, notes=(*frame.notes, note))
    if kept:
        return frame
    simple = model_of(None, fallback, "", device_of("cpu"))
    estimate, notes = _estimate(frame, simple, _How(1, "float32", "none"))
    return _with(frame, estimate, simple, notes)


def _with(frame: Frame, estimate: Estimate, model: Model, notes: tuple[str, ...]) -> Frame:
    """What `model` has estimated, beside what earlier networks have and it has not."""
    before = frame.estimate or Estimate()
    made = [*estimate.maps, *(["Image"] if estimate.image is not None else [])]
    made += ["Segmentation"] if estimate.logits is not None else []
    classes = "exclusive" if model.preparation is None else model.preparation.classes
    return replace(
        frame,
        estimate=Estimate(
            image=before.image if estimate.image is None else estimate.image,
            maps={**before.maps, **estimate.maps},
            logits=before.logits if estimate.logits is None else estimate.logits,
        ),
        history=(*frame.history, model.name),
        made={**frame.made, **dict.fromkeys(made, model.name)},
        notes=tuple(dict.fromkeys((*frame.notes, *notes))),
        units={**frame.units, **model.units},
        labels=model.labels or frame.labels,
        classes=frame.classes if estimate.logits is None else classes,
    )


def _notes(frame: Frame, model: Model) -> tuple[str, ...]:
    wants_noise = model.takes != "image" and model.preparation is not None and model.preparation.whiten == "covariance"
    if wants_noise and not frame.raw.whitened and frame.raw.noise is None:
        return (f"{model.name} was trained on prewhitened data, but the scan has no noise measurement",)
    return ()


def _estimate(frame: Frame, model: Model, how: _How) -> tuple[Estimate, tuple[str, ...]]:
    """In the units of the raw data, and notes. Raises ArithmeticError for values that are not finite."""
    import torch

    from mrnets.prepare import consistent, prepare_blocks, restore

    raw = frame.raw
    image = frame.estimate.image if model.takes == "both" and frame.estimate is not None else None
    preparation = model.preparation or _as_it_comes(raw)
    parts: list[Estimate] = []
    notes: tuple[str, ...] = ()
    with naming_shortfalls(frame), torch.inference_mode():
        blocks = prepare_blocks(
            raw,
            preparation,
            image=image,
            size=how.batch * math.ceil(PREPARED_AT_ONCE / how.batch),
            device=model.device,
        )
        for block in blocks:
            scan = block.scan
            batches = (_slices(scan, n, n + how.batch) for n in range(0, len(block.scale), how.batch))
            some = [consistent(_run(model, one, how), one, preparation) for one in batches]
            parts.append(restore(_joined(some), block))
            notes = block.notes
        return _finite(_joined(parts)), notes


def _segmented(frames: list[Frame], model: Model, how: _How) -> list[Estimate]:
    """Logits (batch, class, y, x) of frames that lie side by side. Raises ArithmeticError as `_estimate` does."""
    import torch

    from mrnets.prepare import prepare_image, restore

    preparation = model.preparation
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
            estimate = _run(model, prepared.scan, how)
            logits = estimate.logits
            assert logits is not None, f"{model.name} is a segmentation network without logits"
            own = logits if model.slices == 1 else logits[:, :, model.slices // 2]
            parts.append(restore(Estimate(logits=own), prepared))
        logits = _finite(_joined(parts)).logits
    assert logits is not None
    return [Estimate(logits=part) for part in logits.split([len(image) for image in images])]


def _alone(frames: list[Frame], model: Model) -> tuple[str, ...]:
    there = sum(len(frame.raw.kspace) for frame in frames)
    return () if there >= model.slices else (f"{model.name} takes {model.slices} neighbouring slices; {there} came",)


def _run(model: Model, scan: Scan, how: _How) -> Estimate:
    import torch

    with torch.autocast(model.device.type, getattr(torch, how.precision), enabled=how.precision != "float32"):
        estimate: Estimate = model.module(scan)
    return estimate


def _finite(estimate: Estimate) -> Estimate:
    import torch

    for array in (estimate.image, estimate.logits, *estimate.maps.values()):
        if array is not None and not bool(torch.isfinite(array).all()):
            raise ArithmeticError("its output is not finite")
    return estimate


def _as_it_comes(raw: Raw) -> Preparation:
    """What a network without weights asks for: no more than the chain and the scan give it."""
    from mrnets.preparation import Preparation

    if raw.sens is None and raw.calibration is None:
        return Preparation(sens="none", normalisation="none", consistency=None)
    methods: dict[str | None, Sensitivities] = {"rss": "rss", "unitary": "unitary"}
    return Preparation(sens=methods.get(raw.sens_method, "espirit"), normalisation="none", consistency=None)


def _slices(scan: Scan, start: int, stop: int) -> Scan:
    """Part of the batch; what is the same for all of it stays."""

    def part(name: str, x: Any) -> Any:
        alone = x is None or name == "echo_times" or x.shape[0] == 1
        return x if alone else x[start:stop]

    return Scan(**{f.name: part(f.name, getattr(scan, f.name)) for f in fields(Scan)})


def _joined(parts: list[Estimate]) -> Estimate:
    """Estimates of parts of a batch as one; earlier steps are dropped."""
    import torch

    def cat(arrays: list[Any]) -> Any:
        return None if arrays[0] is None else torch.cat(arrays)

    return Estimate(
        image=cat([part.image for part in parts]),
        maps={name: cat([part.maps[name] for part in parts]) for name in parts[0].maps},
        logits=cat([part.logits for part in parts]),
    )
