"""The operator's rules for a server, and the chains of clients under them.

A chain that a client sends names weights that ship or that lie in the operator's folder, and no path. It may ask for
less memory than the operator allows, and not for more. The operator's own chains may name any path, too. A client
names gadgets and networks of other packages, where the operator allows these, as they are registered. It names no
modules.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from gadgets.chain import Chain, Stage, require_registered
from gadgets.gadget import lookup
from gadgets.hosts.library import folder, shipped
from gadgets.hosts.spool import Spool
from gadgets.limits import USUAL, Limits, usual_memory
from gadgets.messages import ConfigFile, ConfigText
from gadgets.models import options_of
from mrnets import store
from mrnets.errors import InputError
from mrnets.mrd.noise_store import Store

__all__ = ["Rules", "chain_of", "set_by_client"]


MAX_OPTION = 1000
"""The largest number in a client's options of a network. Iterations are counted in tens."""
_OF_ALL = ("threads",)
"""Properties of networks that concern all scans of the process."""


@dataclass(frozen=True)
class Rules:
    """The permissions that the operator gives to clients."""

    chains: Path = field(default_factory=folder)
    """The folder of the chains that clients can name."""
    default: str | None = None
    """The chain for clients that name one that is not there."""
    weights: Path | None = None
    """A folder of weights that clients and chains can name, beside those that ship."""
    memory: float = field(default_factory=usual_memory)
    """GiB that one scan may take."""
    limits: Limits = USUAL
    noise: Store | None = None
    """Where noise of other scans is kept and found. None: nowhere."""
    spool: Spool | None = None
    """Where scans are kept as they come. None: nowhere."""
    defer: str | None = None
    """The chain for a quick series of scans whose chains have trained weights. None: those run at once."""


def chain_of(configuration: ConfigFile | ConfigText, rules: Rules) -> Chain:
    """Return the chain that a client names or sends, under the rules. Raises InputError."""
    if isinstance(configuration, ConfigFile):
        chain = Chain.parse(*shipped(configuration.name, rules.chains))
        stages = tuple(_with_memory(_with_own_weights(stage, rules), rules) for stage in chain.stages)
        return Chain.of(stages, chain.source, chain.options)
    chain = Chain.parse(configuration.text, "configuration", registered=True)
    stages = tuple(_with_known_weights(_with_less_memory(stage, rules), rules) for stage in chain.stages)
    for stage in stages:
        _require_small_options(stage)
        _require_same(Stage(stage.name, {}), stage)
    return Chain.of(stages, chain.source, chain.options)


def set_by_client(chain: Chain, name: str, value: str, rules: Rules) -> Chain:
    """Return the chain with a property set as a client asks, under the rules. Raises InputError as `Chain.set` does."""
    changed = chain.set(name, value)
    stages = (_granted(old, new, rules) for old, new in zip(chain.stages, changed.stages, strict=True))
    return Chain.of(tuple(stages), chain.source, chain.options)


def _granted(old: Stage, new: Stage, rules: Rules) -> Stage:
    """Return `new`, which a client made of `old`, with what it may have."""
    _require_same(old, new)
    if new.properties.get("name") != old.properties.get("name"):
        require_registered(new)
    if new.properties.get("options") != old.properties.get("options"):
        _require_small_options(new)
    if new.properties.get("weights") != old.properties.get("weights"):
        return _with_known_weights(new, rules)
    if new.properties.get("memory") != old.properties.get("memory"):
        before = _with_less_memory(old, rules).properties["memory"]
        return _with_less_memory(new, replace(rules, memory=float(before)))
    return new


def _with_memory(stage: Stage, rules: Rules) -> Stage:
    """Return `stage` with the operator's limit, unless it has one."""
    if stage.name != "sort" or "memory" in stage.properties:
        return stage
    return replace(stage, properties={**stage.properties, "memory": repr(rules.memory)})


def _with_less_memory(stage: Stage, rules: Rules) -> Stage:
    """Return `stage` with the operator's limit, or with a lower one that it asks for."""
    stage = _with_memory(stage, rules)
    if stage.name != "sort":
        return stage
    asked = lookup("sort").properties["memory"].parse(stage.properties["memory"].strip())
    granted = rules.memory if asked is None else min(asked, rules.memory)
    return replace(stage, properties={**stage.properties, "memory": repr(granted)})


def _with_own_weights(stage: Stage, rules: Rules) -> Stage:
    """Return `stage` with its weights located, if they are in the operator's folder."""
    name = stage.properties.get("weights", "").strip()
    path = next((path for path in _files(rules.weights) if path.stem == name), None)
    return stage if path is None else replace(stage, properties={**stage.properties, "weights": str(path)})


def _with_known_weights(stage: Stage, rules: Rules) -> Stage:
    """Return `stage` with its weights located. Raises InputError that lists the weights that can be named.

    The error is the same for whatever else a name may stand for, so that no client can find out what there is."""
    name = stage.properties.get("weights")
    if name is None:
        return stage
    known = {path.stem: str(path) for path in _files(rules.weights)}
    known = {**{name: name for name in store.shipped()}, **known}
    path = known.get(name.strip().removesuffix(".safetensors"))
    if path is None:
        raise InputError(f'There are no weights "{name[:80]}"; there are: {", ".join(sorted(known)) or "none"}.')
    return replace(stage, properties={**stage.properties, "weights": path})


def _require_small_options(stage: Stage) -> None:
    """Raise InputError for options with which a network would hardly come to an end."""
    for name, value in options_of(stage.properties.get("options", "")).items():
        if isinstance(value, int | float) and value > MAX_OPTION:
            raise InputError(f"A client may set {name} of {stage.name} to {MAX_OPTION} at most; got {value:g}.")


def _require_same(old: Stage, new: Stage) -> None:
    """Raise InputError where a client changes what concerns the scans of others, too."""
    for name in _OF_ALL:
        if new.properties.get(name) != old.properties.get(name):
            raise InputError(f"A client may not set {new.name}.{name}: it concerns all scans of the server.")


def _files(folder: Path | None) -> list[Path]:
    return [] if folder is None else [path for path in folder.glob("*.safetensors") if path.is_file()]
