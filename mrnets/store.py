"""Networks by name, and one file that holds a trained one; see `mrnets.weightsfile`.

The header says all that is needed to run the network again: {version, network, options, preparation, units, labels,
provenance, checksum}. "atommic.NAME" is the network NAME as ATOMMIC computes it; see `mrnets.atommic.forms`. A network
of another package has the name that this package has registered, or is "package.module:Class"; see `mrnets.plugins`.
Its weights file has the second form, and "package": {name, version}.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrnets import plugins
from mrnets.atommic import PREFIX, named, own
from mrnets.errors import InputError, unknown
from mrnets.traits import Traits, declared
from mrnets.values import described, fits
from mrnets.weightsfile import check_tensors, located, read_header, shipped, write

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "Trained",
    "bind",
    "carried",
    "create",
    "describe",
    "fixed_options",
    "header",
    "load",
    "located",
    "names",
    "save",
    "shipped",
]

_NETS = Path(__file__).parent / "nets"


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
    notes: tuple[str, ...] = ()
    """Sentences that whoever looks at the images must know."""


def names() -> list[str]:
    """The names of this package's networks: the files of `mrnets/nets`. Does not import torch."""
    return sorted(path.stem for path in _NETS.glob("*.py") if not path.stem.startswith("_"))


def describe(name: str) -> Traits:
    """The traits that the network `name` declares. Imports no torch, and no other package that is not allowed.

    Raises InputError for an unknown name, and as `plugins.load` does."""
    return _described(name) if (foreign := _foreign(name)) is None else _traits(foreign)


@lru_cache
def _described(name: str) -> Traits:
    published = name.removeprefix(PREFIX)
    if published not in names():
        raise unknown("network", name, [*names(), *plugins.registered("network")])
    if name == published:
        return declared(_NETS / f"{name}.py")
    traits = declared(own(published) or _NETS / f"{published}.py")
    return replace(traits, title=f"{traits.title}, as ATOMMIC computes it")


def bind(name: str, **options: Any) -> dict[str, Any]:
    """All options of the network `name`, the given ones and the defaults of the others.

    A network that learns and uses sensitivities has those of `mrnets.blocks.sensitivity.with_sensitivities` too.
    Options may have their `Traits.names_of_options`. Those of `fixed_options` are left out where the value is the same.
    Lists, as JSON has them, become tuples where the option is one.
    Raises InputError for an unknown network or option, naming the nearest right one. Likewise for an option that is
    given twice with different values, for a value of another type, and for another value of what is fixed.
    """
    known = {key: pair for maker in _makers(name) for key, pair in _options(maker).items()}
    names_of, fixed = describe(name).names_of_options, fixed_options(name)
    given: dict[str, Any] = {}
    for alias, listed in options.items():
        key, value = names_of.get(alias, alias), _as_ours(listed)
        if key in fixed:
            _check_fixed(name, key, value, fixed[key])
            continue
        if key not in known:
            raise unknown(f"option of network {name}", key, known)
        if key in given and given[key] != value:
            raise InputError(f"option {key} of network {name} is given twice, as {given[key]!r} and as {value!r}")
        hint = known[key][0]
        if not fits(value, hint):
            raise InputError(f"option {alias} of network {name} must be {described(hint)}, not {value!r}")
        given[key] = value
    return {key: given.get(key, default) for key, (_, default) in known.items()}


def fixed_options(name: str) -> dict[str, Any]:
    """The options of ATOMMIC's paper that are no choice in the network `name`, and their values there."""
    traits = describe(name)
    slices = {"consecutive_slices": traits.slices, "dimensionality": 2 if traits.slices == 1 else 3}
    return {**slices, **traits.fixed} if traits.learns else {}


def carried(name: str, options: Mapping[str, Any], other: str) -> dict[str, Any]:
    """The `options` of the network `name` that the network `other` has, too. Raises InputError as `bind` does."""
    bound, names_of = bind(name, **options), describe(name).names_of_options
    return {key: bound[key] for key in (names_of.get(k, k) for k in options) if key in bound and key in bind(other)}


def create(name: str, **options: Any) -> nn.Module:
    """A new network with `options`; the others keep their published values. Raises InputError as `bind` does."""
    bound = bind(name, **options)
    first, *more = _makers(name)
    network = first(**{key: bound[key] for key in _options(first)})
    for maker in more:
        network = maker(network, **{key: bound[key] for key in _options(maker)})
    return network


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
    provenance: any JSON, for people. Raises InputError where the file could not be loaded again. Reasons are options
    that do not fit the network, weights that are not finite, and values that are not JSON.
    """
    bound, foreign = bind(name, **options), _foreign(name)
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in network.state_dict().items()}
    _check_weights(tensors, _expected(name, bound), "cannot save")
    metadata: dict[str, Any] = {
        "network": foreign or name,
        "options": bound,
        "preparation": dict(preparation),
        "units": dict(units or {}),
        "labels": list(labels or ()),
        "provenance": dict(provenance or {}),
    }
    if foreign is not None:
        metadata["package"] = dataclasses.asdict(plugins.provider(foreign))
    write(Path(path), tensors, metadata)


def header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The header of a weights file: the fields of the module's docstring, and "tensors": name to shape.

    `path` as for `load`. Options have their names of today. Reads only the header, and imports neither torch nor
    safetensors. Raises InputError as `mrnets.weightsfile.read_header` does.
    """
    metadata = read_header(located(path))
    name, options = metadata["network"], metadata["options"]
    if metadata["version"] == 1 and name in names():
        name, options = named(name, options)
        aliases = describe(name).aliases
        options = {aliases.get(key, key): value for key, value in options.items()}
    return {**metadata, "network": name, "options": options}


def load(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Trained:
    """A trained network from a file, or by bare name one of those that ship (`shipped`); in eval mode on `device`.

    Raises InputError with one sentence for whatever is wrong with the file; see `header` and `bind`. So it does for a
    network of another package that is not allowed.
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
        raise InputError(f"{path} cannot be loaded: {error}{_made_with(metadata)}") from None
    except SafetensorError as error:
        raise InputError(f"{path} is damaged: {error}") from None
    _check_weights(tensors, expected, f"{path} cannot be loaded")
    check_tensors(path)
    # Where a tensor starts in the file depends on the header. Copies start as tensors of torch do. Some processors'
    # matrix products round otherwise where memory starts elsewhere.
    expected.load_state_dict({key: tensor.clone() for key, tensor in tensors.items()}, assign=True)
    network = _moved(expected, device).eval()
    return Trained(name, options, network, metadata["preparation"], metadata, _of_another_version(path, metadata))


def _foreign(name: str) -> str | None:
    """The reference of a network of another package; None: it is one of this package, or of none."""
    return None if name.removeprefix(PREFIX) in names() else plugins.find("network", name)


def _class(reference: str) -> type[nn.Module]:
    """The class of a network of another package. Raises InputError for what is no network."""
    from torch import nn

    found = plugins.load("network", reference)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise InputError(f"the network {reference} is no class of torch.nn.Module")
    return found


def _traits(reference: str) -> Traits:
    traits = getattr(sys.modules[_class(reference).__module__], "TRAITS", None)
    if not isinstance(traits, Traits):
        raise InputError(f"the network {reference} has no TRAITS = Traits(...) in its module, which say what it takes")
    return traits


def _made_with(metadata: Mapping[str, Any]) -> str:
    """The package that a network was made with, as the end of a sentence; empty for one of this package."""
    package = metadata.get("package")
    return f" (the file was made with {package['name']} {package['version']})" if package else ""


def _of_another_version(path: Path, metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """The note on weights that were made with another version of the package that their network is of."""
    made = metadata.get("package")
    if made is None:
        return ()
    here = plugins.provider(metadata["network"])
    if (here.name, here.version) == (made["name"], made["version"]):
        return ()
    return (f"{path.stem} was made with {made['name']} {made['version']}, and {here} runs it",)


def _as_ours(value: Any) -> Any:
    """A list as a tuple, without zeros at its end: the paper has one for the layer that has no recurrent unit."""
    if not isinstance(value, list | tuple):
        return value
    end = len(value)
    while end and type(value[end - 1]) is int and value[end - 1] == 0:
        end -= 1
    return tuple(value[:end])


def _check_fixed(name: str, key: str, value: Any, own: Any) -> None:
    if value != _as_ours(own):
        way = "; preparation.slices sets it" if key == "consecutive_slices" else ""
        raise InputError(f"option {key} of network {name} is {own!r} here, not {value!r}{way}")


def _constructor(name: str, folder: str) -> type[nn.Module]:
    module = importlib.import_module(f"{folder}.{name}")
    (only,) = (member for member in map(vars(module).get, module.__all__) if isinstance(member, type))
    return typing.cast("type[nn.Module]", only)


def _makers(name: str) -> list[Callable[..., nn.Module]]:
    """The functions that make the network `name`, each of the result of the one before.

    The first is its class. What ATOMMIC does around it and a sensitivity network may follow. Each declares its options
    as keyword-only parameters.
    """
    from mrnets.atommic.forms import around
    from mrnets.blocks.sensitivity import with_sensitivities

    traits, published = describe(name), name.removeprefix(PREFIX)
    foreign = _foreign(name)
    if foreign is None and name != published:
        folder = "mrnets.atommic.nets" if own(published) else "mrnets.nets"
        return [_constructor(published, folder), *around(name, traits)]
    constructor = _constructor(name, "mrnets.nets") if foreign is None else _class(foreign)
    return [constructor, with_sensitivities] if traits.can_estimate_maps else [constructor]


def _options(maker: Callable[..., nn.Module]) -> dict[str, tuple[Any, Any]]:
    """The keyword-only parameters of `maker`: name to type and default."""
    function = typing.cast(Any, maker).__init__ if isinstance(maker, type) else maker
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
