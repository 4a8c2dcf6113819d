"""Networks ready to run: loaded from a weights file or made by name, once for each process."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrnets.errors import InputError
from mrnets.values import parsed

if TYPE_CHECKING:
    import torch
    from torch import nn

    from mrnets.preparation import Preparation
    from mrnets.traits import Takes

__all__ = ["Model", "device_of", "model_of"]


@dataclass(frozen=True)
class Model:
    """A network ready to run."""

    name: str
    module: nn.Module
    preparation: Preparation | None
    """None for a network without weights: it takes what there is."""
    device: torch.device
    takes: Takes = "kspace"
    contrasts: int | None = None
    """Of the images that it takes; None: any number."""
    units: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()

    @property
    def slices(self) -> int:
        """Neighbouring slices that it takes together."""
        return 1 if self.preparation is None or self.takes != "image" else self.preparation.slices


_models: dict[tuple[Any, ...], Model] = {}
"""Networks of this process, so that a resident server loads each but once. Read and written under `_loading`."""
_loading = threading.Lock()


def model_of(weights: str | None, name: str | None, options: str, device: torch.device) -> Model:
    """The network, loaded or made at most once for each process. Raises InputError."""
    if (weights is None) == (name is None):
        raise InputError("give either weights (a file, or a name that ships) or network (one without weights)")
    if weights is not None and options:
        raise InputError("options go with network; a weights file has its own")
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


def _loaded(weights: str, device: torch.device) -> Model:
    from mrnets import store
    from mrnets.preparation import Preparation

    trained = store.load(weights, device)
    labels = tuple(str(label) for label in trained.metadata["labels"])
    classes = trained.options.get("classes", len(labels))
    if labels and len(labels) != classes:
        raise InputError(f"{weights} names {len(labels)} classes, and its network has {classes}")
    return Model(
        name=Path(weights).stem,
        module=trained.network,
        preparation=Preparation.from_json(trained.preparation),
        device=device,
        takes=store.describe(trained.name).takes_with(trained.options),
        contrasts=trained.options.get("contrasts"),
        units={str(name): str(unit) for name, unit in trained.metadata["units"].items()},
        labels=labels,
    )


def _made(name: str, options: str, device: torch.device) -> Model:
    from mrnets import store

    module = store.create(name, **_options(options)).to(device).eval()
    if store.describe(name).learns:
        raise InputError(f"{name} has to be trained: give weights; network is for those without")
    return Model(name, module, None, device)


def _options(text: str) -> dict[str, Any]:
    """ "iterations=20, regularisation=0.01" as {"iterations": 20, "regularisation": 0.01}."""
    options: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise InputError(f"options must be like iterations=20, regularisation=0.01; got {part!r}")
        options[name] = parsed(value, bool | int | float | str)
    return options


def device_of(name: str) -> torch.device:
    """Raises InputError for a device that cannot be had."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"no such device: {name!r}; use auto, cpu, cuda, cuda:1 and so on") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device is {name}, but torch finds {torch.cuda.device_count()} CUDA devices")
    return device
