"""The network: frames get their estimate, by a trained network or by one that needs no weights."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ismrmrd.xsd import ismrmrdHeader

from gadgets.batches import TOGETHER, in_batches
from gadgets.estimate import USUAL_COMPUTING, Computing, Runner
from gadgets.failures import FAILURES, ends_scan, lost_device, why
from gadgets.frame import Frame
from gadgets.gadget import gadget
from gadgets.models import Model, contrasts_of, device_of, model_of
from gadgets.neighbours import with_neighbours
from gadgets.received import with_frames
from gadgets.seen import Comparison
from gadgets.speaker import lack
from gadgets.trust import USUAL_CAUTION, Caution, doubted
from mrnets.contract import UNCHECKED, Check, Estimate
from mrnets.errors import InputError, counted
from mrnets.mrd.lines import Item

if TYPE_CHECKING:
    import torch

__all__ = ["network"]

MAX_THREADS = 128
"""OpenMP ends the process where the system has no more threads."""

_logger = logging.getLogger(__name__)


@gadget(takes=("kspace", "coil maps", "estimates"), gives="estimates")
def network(
    stream: Iterable[Item],
    header: ismrmrdHeader,
    *,
    weights: str | None = None,
    name: str | None = None,
    options: str = "",
    contrasts: str = "",
    computing: Computing = USUAL_COMPUTING,
    caution: Caution = USUAL_CAUTION,
) -> Iterator[Item]:
    """Give frames their estimate, in their own units. Everything else passes.

    weights: a weights file, or the name of one that ships. The preparation that it asks for is completed here.
    name, options: a network without weights instead, and its options, such as "iterations=20, regularisation=0.01".
    contrasts: the contrasts of images that are sent in, in the order of the network's: "t1c, t1, flair, t2". Weights
    of `python -m training` name them, too.
    device: auto, cpu, cuda, cuda:1.
    batch: slices (of volumes: readout positions) in one forward pass; 0: 16 on a CUDA device, else 1. Slices that have
    not come are not waited for.
    precision: of the network's convolutions and matrix products (torch.autocast). On processors with AMX, bfloat16 took
    0.5 to 0.7 of the time of `l1varnet_general`, and cost 0.03 dB at most (SNR 30 and 1000).
    threads: of the processor, for all networks of the process; 0: as `mrnets.threads` and the environment say.
    graphs: runs of at most 4 slices on a CUDA device are recorded when a form of scans comes for the second time, and
    replayed then; see `mrnets.graphs`. A slice takes a fourth of its time then (H200).
    fallback: the reconstruction of a frame on which the network fails, for example by values that are not finite. An
    estimate of an earlier network is kept instead. The images say so. "none": the failure ends the chain. A network
    that is out of memory runs with smaller batches, and then on the CPU, before it fails.
    strict: a scan unlike those of the training is refused. The weights file names the anatomy, matrix, acceleration and
    so on of these. Without `strict` the images and the log say how the scan differs.
    check: what is done where the data speak against the image of a trained reconstruction network; see `mrnets.trust`.
    "fallback": l1-wavelet takes its place, and the images say so. In other images it has the share that the left-out
    samples give it. "warn": the images say so, and are the network's alone. "off": nothing is checked.
    That saves one run of the network and two of l1-wavelet for each slice (of volumes: for 16 positions).

    Images that are sent in, without raw data, go to segmentation networks, and leave the chain as they came. Series
    are taken for contrasts by their names; images without a known one by their contrast counters.
    Several networks may follow each other, and their estimates are kept side by side. A segmentation network takes the
    image of the network before it, with echoes as contrasts; in volumes it takes planes across the readout. A network
    on several neighbouring slices waits for all slices of a repetition, and edge slices are repeated for it. A network
    with the option start="image" starts from the image of the network before it.

    Raises InputError before the first frame for weights, name, options or device that cannot be had. Raises it for a
    frame that contradicts the preparation, and with `strict` for a scan unlike those of the training. Raises it for a
    network on images where none came, or another number of contrasts.
    """
    runner = _runner(weights, name, options, computing, check=caution.check)
    model = runner.model
    training = Comparison.of(model, header, strict=caution.strict)
    if contrasts and model.takes == "kspace":
        raise InputError(f"contrasts is for networks on images; {model.name} takes raw data")
    if model.takes == "image":
        stream = with_frames(stream, model.contrasts or 1, contrasts_of(model, contrasts))
    stream = (training.noted(item) if isinstance(item, Frame) else item for item in stream)
    if model.slices > 1:
        yield from with_neighbours(stream, header, lambda frames: _completed(frames, runner, caution))
        return
    for batch in in_batches(stream, runner.batch if model.takes != "image" else 1):
        yield from _batch(batch, runner, caution) if isinstance(batch[0], Frame) else batch


def _runner(weights: str | None, name: str | None, options: str, computing: Computing, *, check: Check) -> Runner:
    """Return the network ready to run. Raises InputError for weights, name, options or device that cannot be had."""
    batch, threads = computing.batch, computing.threads
    if batch < 0 or not 0 <= threads <= MAX_THREADS:
        raise InputError(f"batch must be 0 or more and threads 0 to {MAX_THREADS}, got {batch} and {threads}")
    if threads:
        import torch

        torch.set_num_threads(threads)

    def on(device: str) -> Model:
        return model_of(weights, name, options, device_of(device))

    model = on(computing.device)
    batch = batch or (1 if model.device.type == "cpu" else TOGETHER)
    return Runner(model, batch, computing.precision, lambda: on("cpu"), check, computing.graphs)


def _batch(frames: list[Frame], runner: Runner, caution: Caution) -> Iterator[Frame]:
    """Yield frames with their estimate. Where one of several fails, each is computed alone: the others do not."""
    if len(frames) > 1:
        try:
            for frame in frames:
                _check(frame, runner.model)
            found = runner.reconstructed_together(frames)
        except Exception as error:  # noqa: BLE001 the frame that it is of raises it again, alone
            _logger.debug("%d slices are computed one by one: %s", len(frames), why(error))
        else:
            for frame, (estimate, notes) in zip(frames, found, strict=True):
                yield from _believed(frame, estimate, notes, runner.model, caution)
            return
    for frame in frames:
        yield from _completed([frame], runner, caution)


def _completed(frames: list[Frame], runner: Runner, caution: Caution) -> list[Frame]:
    """Return frames with their estimate: one, or several slices that lie side by side. Lost ones are left out."""
    for frame in frames:
        _check(frame, runner.model)
    if frames[0].failed and runner.model.takes != "image":
        if caution.fallback == "none":
            raise RuntimeError(frames[0].failed)
        return _fallen_back(frames, frames[0].failed, [_PLAINEST])
    try:
        if runner.model.takes == "image":
            return _segmented(frames, runner)
        (frame,) = frames
        estimate, notes = runner.reconstructed(frame)
        return _believed(frame, estimate, notes, runner.model, caution)
    except Exception as error:  # whatever a network fails by, the scan is not to be lost
        if caution.fallback == "none" or ends_scan(error):
            raise
        reason = f"the network {runner.model.name} failed ({why(error)})"
        return _fallen_back(frames, reason, [_Simpler(caution.fallback), _PLAINEST])


def _segmented(frames: list[Frame], runner: Runner) -> list[Frame]:
    """Return frames that lie side by side with their segmentation."""
    both = zip(frames, runner.segmented(frames), strict=True)
    notes = _alone(frames, runner.model)
    return [_with(frame, estimate, runner.model, notes) for frame, estimate in both]


def _believed(frame: Frame, estimate: Estimate, notes: tuple[str, ...], model: Model, caution: Caution) -> list[Frame]:
    """Return a frame with its estimate, and with what the data say of that; it may come from a simpler method then."""
    if caution.check != "off" and model.reconstructs and not estimate.trust:
        notes = (*notes, f"{model.name}: {UNCHECKED}")
    frame, doubt = doubted(frame, estimate, model.name)
    if doubt and caution.check == "fallback":
        return _fallen_back([frame], doubt, [_Simpler("l1wavelet", device=model.device), _PLAINEST])
    if doubt:
        _logger.warning("%s", doubt)
        notes = (*notes, f"WARNING: {doubt}")
    return [_with(frame, estimate, model, (*_notes(frame, model), *notes))]


def _check(frame: Frame, model: Model) -> None:
    """Raise InputError where the network takes images and `frame` has none, or another number of contrasts."""
    if model.takes == "kspace":
        return
    image = None if frame.estimate is None else frame.estimate.image
    if image is None:
        what = "segments images" if model.takes == "image" else "starts from images"
        raise InputError(
            f"{model.name} {what}, and none came; the chain needs a network gadget before it that makes them, "
            "as segment.xml has: there, set network.2.weights"
        )
    if model.contrasts not in (None, image.shape[1]):
        raise InputError(
            f"{model.name} takes images of {counted(model.contrasts, 'contrast')} (the echoes of a scan), "
            f"and the scan has {image.shape[1]}"
        )


@dataclass(frozen=True)
class _Simpler:
    """A method without weights, for frames on which a network fails."""

    method: str
    maps: bool = True
    """With coil sensitivities. Otherwise the image is the root of the sum of squares."""
    device: torch.device | None = None
    """None: the CPU."""


_PLAINEST = _Simpler("zerofilled", maps=False)


def _fallen_back(frames: list[Frame], failure: str, ways: list[_Simpler]) -> list[Frame]:
    """Return frames with what came before, or with an image by the first of `ways` that gives one, and a note.

    A frame of which there is no image is left out, and the scan lacks it."""
    found = []
    for frame in frames:
        if frame.estimate is not None:
            note = f"FALLBACK: {failure}; what came before it stays"
            found.append(replace(frame, fallback=True, notes=(*frame.notes, note)))
            _logger.warning("%s", note)
        elif (image := _simpler(frame, failure, ways)) is not None:
            found.append(image)
        else:
            idx = frame.headers[0, 0]["idx"]
            lack(f"slice {idx['slice']} of repetition {idx['repetition']} could not be reconstructed: {failure}")
    return found


def _simpler(frame: Frame, failure: str, ways: list[_Simpler]) -> Frame | None:
    """Return the frame with an image by the first of `ways` that gives one."""
    for way in ways:
        note = f"FALLBACK to {way.method}: {failure}"
        _logger.warning("%s", note)
        model = model_of(None, way.method, "", way.device or device_of("cpu"))
        raw = frame.raw if way.maps else replace(frame.raw, sens=None, calibration=None)
        try:
            estimate, notes = Runner.plain(model).reconstructed(replace(frame, raw=raw))
        except (InputError, *FAILURES) as error:
            if lost_device():
                raise
            failure = f"{failure}, and {way.method} failed ({why(error)})"
            continue
        return _with(replace(frame, fallback=True, notes=(*frame.notes, note)), estimate, model, notes)
    return None


def _with(frame: Frame, estimate: Estimate, model: Model, notes: tuple[str, ...]) -> Frame:
    """Return the frame with what `model` has estimated, beside what earlier networks have and it has not."""
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
        notes=tuple(dict.fromkeys((*frame.notes, *model.notes, *notes))),
        units={**frame.units, **model.units},
        labels=model.labels or frame.labels,
        classes=frame.classes if estimate.logits is None else classes,
    )


def _notes(frame: Frame, model: Model) -> tuple[str, ...]:
    wants_noise = model.takes != "image" and model.preparation is not None and model.preparation.whiten == "covariance"
    if wants_noise and not frame.raw.whitened and frame.raw.noise is None:
        return (f"{model.name} was trained on prewhitened data, but the scan has no noise measurement",)
    return ()


def _alone(frames: list[Frame], model: Model) -> tuple[str, ...]:
    there = sum(len(frame.raw.kspace) for frame in frames)
    return () if there >= model.slices else (f"{model.name} takes {model.slices} neighbouring slices; {there} came",)
