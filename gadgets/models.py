"""Networks ready to run: loaded from a weights file or made by name, at most once in each process."""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrnets import contrasts
from mrnets.contrasts import in_order
from mrnets.errors import InputError, counted, naming
from mrnets.seen import KEY, Seen
from mrnets.values import parsed

if TYPE_CHECKING:
    import torch
    from torch import nn

    from mrnets.graphs import Graphs
    from mrnets.preparation import Preparation
    from mrnets.proved import Proved
    from mrnets.traits import Echoes, Takes

__all__ = ["Cache", "Model", "contrasts_of", "device_of", "model_of", "options_of"]

MAX_MODELS = 8
"""Networks that stay in memory. The largest has 700 MB of weights."""
MAX_BYTES = 256 << 20
"""Memory of the parameters and buffers of a network without weights. Ours take less than a thousandth of it."""


@dataclass(frozen=True)
class Model:
    """A network ready to run."""

    name: str
    module: nn.Module
    preparation: Preparation | None
    """None for a network without weights: it takes what there is."""
    device: torch.device
    takes: Takes = "kspace"
    echoes: Echoes = "each"
    """Whether it takes the echoes of a scan one by one; see `mrnets.traits`."""
    reconstructs: bool = False
    """A trained reconstruction network that takes nothing but k-space: its images can be checked (`mrnets.trust`)."""
    contrasts: int | None = None
    """Contrasts of the images that it takes; None: any number."""
    names: tuple[str, ...] = ()
    """The contrasts by name, in order (`mrnets.contrasts`); empty: the weights file does not say."""
    units: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    seen: Seen = field(default_factory=Seen)
    """The data that it was trained on."""
    notes: tuple[str, ...] = ()
    """Sentences for the comment of every image that it makes."""
    graphs: Graphs | None = None
    """Graphs of its runs, for all scans of this process; None: its device has none."""
    proved: Proved | None = None
    """The forms of scans for which Triton's kernels give the right image; None: its device has none."""

    @property
    def slices(self) -> int:
        """Neighbouring slices that it takes together."""
        return 1 if self.preparation is None or self.takes != "image" else self.preparation.slices


class Cache:
    """Models by key, each made once; when there are more than `most`, those used longest ago go.

    A model is made without a lock held, so that a file that is slow to read delays only who waits for that file."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._models: OrderedDict[Hashable, Future[Model]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Model]) -> Model:
        """Return the model of `key`, made by `make` unless it is there. Raises what `make` raises, to all who wait."""
        with self._lock:
            made = self._models.get(key)
            mine = made is None
            if made is None:
                made = self._models[key] = Future()
            self._models.move_to_end(key)
            while len(self._models) > self._most:
                self._models.popitem(last=False)
        if mine:
            try:
                made.set_result(make())
            except BaseException as error:
                made.set_exception(error)
                with self._lock:
                    if self._models.get(key) is made:
                        del self._models[key]
                raise
        return made.result()


_models = Cache(MAX_MODELS)


def model_of(weights: str | None, name: str | None, options: str, device: torch.device) -> Model:
    """Return the network, loaded or made at most once for each process. Raises InputError."""
    if (weights is None) == (name is None):
        raise InputError("give either weights (a file, or a name that ships) or name (of a network without weights)")
    if weights is None:
        return _models.get((name, options, str(device)), lambda: _made(str(name), options, device))
    if options:
        raise InputError("options go with name; a weights file has its own")
    path = _located(weights)
    return _models.get((*_identity(path), str(device)), lambda: _loaded(path, device))


def _located(weights: str) -> Path:
    from mrnets import store

    return store.located(weights)


def _identity(path: Path) -> tuple[int, ...]:
    """Return what is the same however a file's name is spelt, and changes when the file is replaced.

    Raises InputError for what is no regular file: to open a device or a pipe could wait for ever."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a file that weights can be read from")
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _loaded(path: Path, device: torch.device) -> Model:
    from mrnets import store
    from mrnets.atommic.notes import notes
    from mrnets.preparation import Preparation

    trained = store.load(path, device)
    labels = tuple(str(label) for label in trained.metadata["labels"])
    classes = trained.options.get("classes", len(labels))
    if labels and len(labels) != classes:
        raise InputError(f"{path} names {counted(len(labels), 'class')}, and its network has {classes}")
    traits = store.describe(trained.name)
    provenance = trained.metadata["provenance"]
    with naming(path):
        seen = Seen.from_json(provenance.get(KEY, {}))
        names = in_order([str(name) for name in provenance.get(contrasts.KEY, ())])
    return Model(
        name=path.stem,
        module=trained.network,
        preparation=Preparation.from_json(trained.preparation),
        device=device,
        takes=traits.takes_with(trained.options),
        echoes=traits.echoes,
        reconstructs=traits.task == "reconstruction" and traits.takes_with(trained.options) == "kspace",
        contrasts=trained.options.get("contrasts"),
        names=names,
        units={str(name): str(unit) for name, unit in trained.metadata["units"].items()},
        labels=labels,
        seen=seen,
        notes=(*trained.notes, *notes(trained.name, trained.options)),
        graphs=_graphs(device),
        proved=_proved(device),
    )


def _graphs(device: torch.device) -> Graphs | None:
    from mrnets.graphs import Graphs

    return Graphs() if device.type == "cuda" else None


def _proved(device: torch.device) -> Proved | None:
    from mrnets.proved import Proved

    return Proved() if device.type == "cuda" else None


def contrasts_of(model: Model, given: str) -> tuple[str, ...]:
    """Return the contrasts of the images that a network takes, by name and in order; empty: they are not known.

    given: by a chain. Raises InputError where that contradicts the weights file, or the number of contrasts."""
    wanted = in_order(given)
    if wanted and model.names and wanted != model.names:
        trained, given = ", ".join(model.names), ", ".join(wanted)
        raise InputError(f"{model.name} was trained on the contrasts {trained}, and the chain gives {given}")
    names = wanted or model.names
    if names and model.contrasts not in (None, len(names)):
        raise InputError(
            f"{model.name} takes {counted(model.contrasts, 'contrast')}; these are named: {', '.join(names)}"
        )
    return names


def _made(name: str, options: str, device: torch.device) -> Model:
    """Return a network without weights. Its size is found without memory for it first."""
    import torch

    from mrnets import store

    if store.describe(name).learns:
        raise InputError(f"{name} has to be trained: give weights; name is for networks without them")
    given = options_of(options)
    with torch.device("meta"):
        module = store.create(name, **given)
    size = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
    if size > MAX_BYTES:
        raise InputError(f"{name} with these options takes {size >> 20} MiB; at most {MAX_BYTES >> 20} MiB are taken")
    module = store.create(name, **given).to(device).eval()
    return Model(name, module, None, device, graphs=_graphs(device), proved=_proved(device))


def options_of(text: str) -> dict[str, Any]:
    """Return "iterations=20, regularisation=0.01" as {"iterations": 20, "regularisation": 0.01}. Raises InputError."""
    options: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise InputError(f"options must be like iterations=20, regularisation=0.01; got {part!r}")
        options[name] = parsed(value, bool | int | float | str)
    return options


def _found(devices: int) -> str:
    """Return what devices there are, and what may be given."""
    there = ", ".join(f"cuda:{n}" for n in range(devices))
    return f"only {there}; give one of these, cpu or auto" if devices else "no CUDA device; give cpu or auto"


def device_of(name: str) -> torch.device:
    """Return the device of that name; "auto": CUDA if there is one. Raises InputError for one that cannot be had."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):  # such as "meta", on which nothing is computed
            raise RuntimeError
    except RuntimeError:
        raise InputError(f"no such device: {name!r}; use auto, cpu, cuda, cuda:1 and so on") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device is {name}, but torch finds {_found(torch.cuda.device_count())}")
    return device
