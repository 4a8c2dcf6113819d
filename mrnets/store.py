"""Networks by name, and one file that holds a trained one: tensors and a JSON header, no pickle.

The header says all that is needed to run the network again: {version, network, options, preparation, units, labels,
provenance}. It is read here without torch, and nothing in it is trusted: sizes are bounded and every value is checked.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import struct
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrnets import traits
from mrnets.errors import InputError, unknown
from mrnets.values import described, fits

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Trained", "bind", "create", "describe", "header", "load", "located", "names", "save", "shipped"]

VERSION = 1
_NETS = Path(__file__).parent / "nets"
_WEIGHTS = Path(__file__).parent / "weights"
_LONGEST_HEADER = 16 * 1024**2
"""Bytes. The largest network has some thousand tensors of about 150 bytes of header each."""
_FIELDS: dict[str, type] = {
    "version": int,
    "network": str,
    "options": dict,
    "preparation": dict,
    "units": dict,
    "labels": list,
    "provenance": dict,
}


@dataclass(frozen=True)
class Trained:
    """A trained network, as a weights file holds it."""

    name: str
    options: dict[str, Any]
    network: nn.Module
    """In eval mode."""
    preparation: dict[str, Any]
    """For `mrnets.prepare.Preparation.from_json`."""
    metadata: dict[str, Any]
    """The whole header; see `header`."""


def names() -> list[str]:
    """The names of all networks: the files of `mrnets/nets`. Does not import torch."""
    return sorted(path.stem for path in _NETS.glob("*.py") if not path.stem.startswith("_"))


def shipped() -> list[str]:
    """The names of the weights that come with the package."""
    return sorted(path.stem for path in _WEIGHTS.glob("*.safetensors"))


@lru_cache
def describe(name: str) -> traits.Traits:
    """What the network `name` declares of itself. Does not import torch. Raises InputError for an unknown name."""
    if name not in names():
        raise unknown("network", name, names())
    return traits.declared(_NETS / f"{name}.py")


def bind(name: str, **options: Any) -> dict[str, Any]:
    """All options of the network `name`, the given ones and the defaults of the others.

    A network that learns and uses sensitivities has those of `mrnets.blocks.sensitivity.with_sensitivities` too.
    Raises InputError for an unknown network or option (naming the nearest right one) and for a value of another type.
    Lists, as JSON has them, become tuples where the option is one.
    """
    from mrnets.blocks.sensitivity import with_sensitivities

    declared = _options(_constructor(name).__init__) | (_options(with_sensitivities) if _calibrates(name) else {})
    bound = {key: default for key, (_, default) in declared.items()}
    for key, value in options.items():
        if key not in bound:
            raise unknown(f"option of network {name}", key, bound)
        value = tuple(value) if isinstance(value, list) else value
        hint = declared[key][0]
        if not fits(value, hint):
            raise InputError(f"option {key} of network {name} must be {described(hint)}, not {value!r}")
        bound[key] = value
    return bound


def create(name: str, **options: Any) -> nn.Module:
    """A new network with `options`; the others keep their published values. Raises InputError as `bind` does."""
    from mrnets.blocks.sensitivity import with_sensitivities

    constructor, bound = _constructor(name), bind(name, **options)
    network = constructor(**{key: bound.pop(key) for key in _options(constructor.__init__)})
    return with_sensitivities(network, **bound) if bound else network


def save(
    path: str | os.PathLike[str],
    network: nn.Module,
    *,
    name: str,
    options: Mapping[str, Any],
    preparation: Mapping[str, Any],
    units: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write `network`, which is `create(name, **options)` trained, to one file; at once, or not at all.

    preparation: `Preparation.to_json()`. units: of the maps, by their names. labels: of the classes, in their order.
    provenance: any JSON, for people. Raises InputError where the file could not be loaded again: options that do not
    fit the network, weights that are not finite, values that are not JSON.
    """
    from safetensors.torch import save as to_bytes

    bound = bind(name, **options)
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in network.state_dict().items()}
    _check_weights(tensors, _expected(name, bound), "cannot save")
    metadata = {
        "version": VERSION,
        "network": name,
        "options": bound,
        "preparation": dict(preparation),
        "units": dict(units or {}),
        "labels": list(labels or ()),
        "provenance": dict(provenance or {}),
    }
    try:
        text = json.dumps(metadata, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"cannot save {path}: its header is not JSON ({error})") from None
    _write_at_once(Path(path), to_bytes(tensors, metadata={"mrnets": text}))


def header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a weights file says of itself: the fields of the module's docstring, and "tensors": name to shape.

    `path` as for `load`. Reads only the header, and imports neither torch nor safetensors. Raises InputError with one
    sentence where the file is absent, truncated, pickled, of another program or of another version.
    """
    path = located(path)
    table = _table(path)
    entry = table.pop("__metadata__", None)
    if not isinstance(entry, dict) or not isinstance(entry.get("mrnets"), str):
        raise InputError(f"{path} is a safetensors file, but not a weights file of this program (no header of ours)")
    metadata = _parsed(entry["mrnets"], path)
    version = metadata.get("version")
    if type(version) is not int or version != VERSION:
        raise InputError(f"{path} has version {version!r}, and this program reads version {VERSION}")
    for field, kind in _FIELDS.items():
        if not isinstance(metadata.get(field), kind):
            raise InputError(f"the header of {path} is damaged: {field} is not {kind.__name__}")
    return {**metadata, "tensors": {name: tuple(tensor["shape"]) for name, tensor in table.items()}}


def load(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Trained:
    """A trained network from a file, or by bare name one of those that ship (`shipped`); in eval mode on `device`.

    Raises InputError with one sentence for whatever is wrong with the file; see `header` and `bind`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = located(path)
    metadata = header(path)
    name = metadata["network"]
    try:
        options = bind(name, **metadata["options"])
        expected = _expected(name, options)
        tensors = load_file(path)
    except InputError as error:
        raise InputError(f"{path} cannot be loaded: {error}") from None
    except SafetensorError as error:
        raise InputError(f"{path} is damaged: {error}") from None
    _check_weights(tensors, expected, f"{path} cannot be loaded")
    expected.load_state_dict(tensors, assign=True)
    return Trained(name, options, _moved(expected, device).eval(), metadata["preparation"], metadata)


def _constructor(name: str) -> type[nn.Module]:
    if name not in names():
        raise unknown("network", str(name), names())
    module = importlib.import_module(f"mrnets.nets.{name}")
    (only,) = (member for member in map(vars(module).get, module.__all__) if isinstance(member, type))
    return typing.cast("type[nn.Module]", only)


def _calibrates(name: str) -> bool:
    """Whether the network `name` can have a sensitivity network of its own."""
    declared = describe(name)
    return declared.learns and declared.sens != "unused"


def _options(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """The keyword-only parameters of `function`: name to type and default."""
    hints = typing.get_type_hints(function)
    return {
        key: (hints[key], parameter.default)
        for key, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def _expected(name: str, options: Mapping[str, Any]) -> nn.Module:
    """The network without memory for its weights, so that a header cannot ask for more memory than its file holds."""
    import torch

    with torch.device("meta"):
        return create(name, **options)


def _check_weights(tensors: Mapping[str, torch.Tensor], network: nn.Module, failure: str) -> None:
    import torch

    expected = network.state_dict()
    if missing := sorted(expected.keys() - tensors.keys()):
        raise InputError(f"{failure}: it lacks the tensor {missing[0]!r}")
    if extra := sorted(tensors.keys() - expected.keys()):
        raise InputError(f"{failure}: it has a tensor {extra[0]!r} that the network does not have")
    for key, tensor in tensors.items():
        want = expected[key]
        if tensor.shape != want.shape or tensor.dtype != want.dtype:
            raise InputError(
                f"{failure}: tensor {key!r} is {tensor.dtype} {tuple(tensor.shape)}, "
                f"and the network's is {want.dtype} {tuple(want.shape)}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{failure}: tensor {key!r} has values that are not finite")


def _moved(network: nn.Module, device: str | torch.device) -> nn.Module:
    try:
        return network.to(device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise InputError(f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from None


def _write_at_once(path: Path, data: bytes) -> None:
    """Write beside `path` and rename, so that a reader never sees half a file, nor a crash leaves one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def located(path: str | os.PathLike[str]) -> Path:
    """The file itself; a bare name without folder and suffix means the weights that ship under it."""
    given = Path(path)
    if given.suffix == ".safetensors" or given.name != str(given):
        return given
    if given.name not in shipped():
        raise InputError(
            f"no weights {str(given)!r}: give the path of a .safetensors file, or one of those that ship: "
            + (", ".join(shipped()) or "none")
        )
    return _WEIGHTS / f"{given.name}.safetensors"


def _table(path: Path) -> dict[str, Any]:
    """The JSON table of a safetensors file, its tensors checked against the file's size."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start, text = file.read(8), file.read(1)  # a length, of any bytes, and the first of the header: "{"
            if text != b"{" and (start[:2] == b"PK" or start[:1] == b"\x80"):
                raise InputError(f"{path} is a pickled file; weights are read from .safetensors files only")
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
                raise InputError(f"{path} is not a weights file, or is truncated")
            text += file.read(length - 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    table = _parsed(text, path)
    ends = [_end(tensor, key, path) for key, tensor in table.items() if key != "__metadata__"]
    if max(ends, default=0) != size - 8 - length:
        raise InputError(f"{path} is truncated or damaged: its tensors do not fill it exactly")
    return table


def _parsed(text: str | bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise InputError(f"the header of {path} is damaged: it is not JSON") from None
    if not isinstance(value, dict):
        raise InputError(f"the header of {path} is damaged: it is not a JSON object")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _end(tensor: object, key: str, path: Path) -> int:
    match tensor:
        case {"dtype": str(), "shape": [*shape], "data_offsets": [int(begin), int(end)]} if 0 <= begin <= end and all(
            isinstance(n, int) and n >= 0 for n in shape
        ):
            return end
    raise InputError(f"the header of {path} is damaged: the entry of tensor {key!r}")
