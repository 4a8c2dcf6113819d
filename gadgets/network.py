"""The network: frames get their estimate, by a trained network or by one that needs no weights."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ismrmrd.xsd import ismrmrdHeader

from gadgets.frame import Frame
from gadgets.lines import Item
from gadgets.stream import gadget
from mrnets.contract import Estimate, Raw, Scan
from mrnets.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from mrnets.prepare import Preparation, Sensitivities

__all__ = ["network"]

Precision = Literal["float32", "bfloat16", "float16"]
Fallback = Literal["cgsense", "zerofilled", "none"]

_logger = logging.getLogger(__name__)


@gadget
def network(
    stream: Iterable[Item],
    header: ismrmrdHeader,
    *,
    weights: str | None = None,
    network: str | None = None,
    options: str = "",
    device: str = "auto",
    batch: int = 1,
    precision: Precision = "float32",
    fallback: Fallback = "cgsense",
) -> Iterator[Item]:
    """Give frames their estimate, in their own units; everything else passes.

    Either `weights`, a weights file or the name of one that ships; what its preparation asks for and earlier gadgets
    have not done is done here. Or `network`, the name of a network without weights, with `options` such as
    "iterations=20, regularisation=0.01". `device`: auto, cpu, cuda, cuda:1. `batch`: slices (of volumes: readout
    positions) in one forward pass. If the network fails (out of memory, values that are not finite) the frame is
    reconstructed by `fallback`, and its images say so; "none": the failure ends the chain.
    Raises InputError before the first frame for weights, network, options or device that cannot be had, and at a
    frame that contradicts the preparation.
    """
    if batch < 1:
        raise InputError(f"network: batch must be at least 1, got {batch}")
    model = _model(weights, network, options, _device(device))
    for item in stream:
        yield _reconstructed(item, model, batch, precision, fallback) if isinstance(item, Frame) else item


@dataclass(frozen=True)
class _Model:
    """A network ready to run."""

    name: str
    module: nn.Module
    preparation: Preparation | None
    """None for a network without weights: it takes what there is."""
    device: torch.device
    units: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()


def _reconstructed(frame: Frame, model: _Model, batch: int, precision: Precision, fallback: Fallback) -> Frame:
    try:
        estimate = _estimate(frame.raw, model, batch, precision)
    except InputError:
        raise
    except Exception as error:  # whatever a network fails by, the scan is not to be lost
        if fallback == "none":
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        note = f"FALLBACK to {fallback}: the network {model.name} failed ({reason})"
        _logger.warning("network: %s", note)
        simple = _model(None, fallback, "", _device("cpu"))
        estimate = _estimate(frame.raw, simple, 1, "float32")
        history = (*frame.history, fallback)
        return replace(frame, estimate=estimate, history=history, fallback=True, notes=(*frame.notes, note))
    history = (*frame.history, model.name)
    notes = _notes(frame, model)
    return replace(frame, estimate=estimate, history=history, notes=notes, units=model.units, labels=model.labels)


def _notes(frame: Frame, model: _Model) -> tuple[str, ...]:
    wants_noise = model.preparation is not None and model.preparation.whiten == "covariance"
    if wants_noise and not frame.raw.whitened and frame.raw.noise is None:
        return (*frame.notes, f"{model.name} was trained on prewhitened data, but the scan has no noise measurement")
    return frame.notes


def _estimate(raw: Raw, model: _Model, batch: int, precision: Precision) -> Estimate:
    """In the units of `raw`. Raises ArithmeticError for values that are not finite."""
    import torch

    from mrnets.prepare import prepare, restore

    with torch.inference_mode():
        prepared = prepare(raw, model.preparation or _as_it_comes(raw), device=model.device)
        parts = []
        for start in range(0, raw.kspace.shape[0], batch):
            with torch.autocast(model.device.type, getattr(torch, precision), enabled=precision != "float32"):
                parts.append(model.module(_slices(prepared.scan, start, start + batch)))
        estimate = restore(_joined(parts), prepared)
    for array in (estimate.image, estimate.logits, *estimate.maps.values()):
        if array is not None and not bool(torch.isfinite(array).all()):
            raise ArithmeticError("its output is not finite")
    return estimate


def _as_it_comes(raw: Raw) -> Preparation:
    """What a network without weights asks for: no more than the chain and the scan give it."""
    from mrnets.prepare import Preparation

    if raw.sens is None and raw.calibration is None:
        return Preparation(sens="none", normalisation="none")
    methods: dict[str | None, Sensitivities] = {"rss": "rss", "unitary": "unitary"}
    return Preparation(sens=methods.get(raw.sens_method, "espirit"), normalisation="none")


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


_models: dict[tuple[Any, ...], _Model] = {}
"""Networks of this process, so that a resident server loads each but once. Read and written under `_loading`."""
_loading = threading.Lock()


def _model(weights: str | None, name: str | None, options: str, device: torch.device) -> _Model:
    """The network, loaded or made at most once for each process. Raises InputError."""
    if (weights is None) == (name is None):
        raise InputError("network: give either weights (a file, or a name that ships) or network (one without weights)")
    if weights is not None and options:
        raise InputError("network: options go with network; a weights file has its own")
    key = (weights, _stamp(weights), name, options, str(device))
    with _loading:
        if key not in _models:
            _models[key] = _loaded(weights, device) if weights is not None else _made(str(name), options, device)
        return _models[key]


def _stamp(weights: str | None) -> tuple[int, int] | None:
    """What changes when a weights file is replaced; None for those that ship."""
    path = Path(weights or "")
    if weights is None or not path.is_file():
        return None
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


def _loaded(weights: str, device: torch.device) -> _Model:
    from mrnets import store
    from mrnets.prepare import Preparation

    trained = store.load(weights, device)
    return _Model(
        name=Path(weights).stem,
        module=trained.network,
        preparation=Preparation.from_json(trained.preparation),
        device=device,
        units={str(name): str(unit) for name, unit in trained.metadata["units"].items()},
        labels=tuple(str(label) for label in trained.metadata["labels"]),
    )


def _made(name: str, options: str, device: torch.device) -> _Model:
    from mrnets import store

    module = store.create(name, **_parsed(options)).to(device).eval()
    if next(module.parameters(), None) is not None:
        raise InputError(f"network: {name} has to be trained: give weights; network is for those without")
    return _Model(name, module, None, device)


def _parsed(options: str) -> dict[str, Any]:
    """ "iterations=20, regularisation=0.01" as {"iterations": 20, "regularisation": 0.01}."""
    parsed: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in options.split(","))):
        name, equals, text = (piece.strip() for piece in part.partition("="))
        if not (name and equals and text):
            raise InputError(f"network: options must be like iterations=20, regularisation=0.01; got {part!r}")
        parsed[name] = _number(text)
    return parsed


def _number(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _device(name: str) -> torch.device:
    """Raises InputError for a device that cannot be had."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"network: no such device: {name!r}; use auto, cpu, cuda, cuda:1 and so on") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"network: device is {name}, but torch finds {torch.cuda.device_count()} CUDA devices")
    return device
