"""A client's order: a chain, and parameters that it sends as JSON after the header.

python-ismrmrd-server's client and OpenRecon send {"parameters": {...}} in a text. `config` or `customconfig` names the
chain. The others are properties of its gadgets, as "gadget.property" or as {"gadget": {"property": ...}}.
OpenRecon allows only letters and digits in names, so that "networkCheck" means network.check, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gadgets.chain import Chain
from gadgets.gadget import lookup
from gadgets.hosts.library import is_shipped
from gadgets.hosts.rules import Rules, chain_of, set_by_client
from gadgets.messages import ConfigFile, ConfigText

__all__ = ["Order", "order_of", "parameters_in", "with_parameters"]

MAX_JSON = 1 << 20
MAX_PARAMETERS = 256
_NAMES = ("customconfig", "config")
"""Parameters that name the chain. The first that is not empty counts."""


@dataclass(frozen=True)
class Order:
    """The chain and the parameters that a client asked for."""

    chain: Chain
    warnings: tuple[str, ...] = ()
    """Deviations from the order, for the log and for the comment of each image."""


def order_of(configuration: ConfigFile | ConfigText, rules: Rules) -> Order:
    """Return what a client's configuration asks for. Raises InputError as `chain_of` does.

    A chain that is not there is replaced by the operator's default chain, if there is one."""
    if isinstance(configuration, ConfigFile) and rules.default and not is_shipped(configuration.name, rules.chains):
        chain = chain_of(ConfigFile(rules.default), rules)
        return Order(chain, (f'there is no chain "{configuration.name[:80]}"; {chain.source} was taken',))
    return Order(chain_of(configuration, rules))


def parameters_in(text: str) -> dict[str, str] | None:
    """Return the parameters in a client's text by their names, or None if it holds none."""
    if len(text) > MAX_JSON:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    parameters = found.get("parameters") if isinstance(found, dict) else None
    return dict(_flat(parameters)) if isinstance(parameters, dict) else None


def with_parameters(order: Order, parameters: Mapping[str, str], rules: Rules) -> Order:
    """Return the order with a client's parameters. Those that mean nothing to the chain are left out, with a warning.

    Raises InputError for a value that a property cannot have, and for what the rules do not allow."""
    named = next((parameters[name] for name in _NAMES if parameters.get(name)), None)
    order = order if named is None else order_of(ConfigFile(named), rules)
    chain, warnings = order.chain, list(order.warnings)
    settings = [(name, value) for name, value in parameters.items() if name not in _NAMES]
    for name, value in settings[:MAX_PARAMETERS]:
        setting = _setting(chain, name)
        if setting is not None:
            chain = set_by_client(chain, setting, value, rules)
        else:
            warnings.append(f'the parameter "{name[:80]}" means nothing to {chain.source}; it was left out')
    if len(settings) > MAX_PARAMETERS:
        warnings.append(f"{len(settings) - MAX_PARAMETERS} of {len(settings)} parameters were left out")
    return Order(chain, tuple(warnings))


def _flat(parameters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in parameters.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", _text(one)) for inner, one in value.items())
        else:
            yield name, _text(value)


def _text(value: Any) -> str:
    """A value as a chain's XML has it."""
    text = value if isinstance(value, str) else "none" if value is None else json.dumps(value)
    return text.lower() if text in ("True", "False") else text


def _setting(chain: Chain, name: str) -> str | None:
    """Return the gadget.property that a parameter means in the chain, or None."""
    if _is_property(chain, name):
        return name
    there = [f"{stage.name}.{key}" for stage in chain.stages for key in lookup(stage.name).properties]
    return {_bare(setting): setting for setting in there}.get(name.lower())


def _bare(setting: str) -> str:
    return setting.replace(".", "").replace("_", "").lower()


def _is_property(chain: Chain, name: str) -> bool:
    """Whether `name` is gadget.property, or gadget.2.property, of a gadget in the chain."""
    gadget, *number, key = name.split(".") if name.count(".") in (1, 2) else ("", "")
    there = any(stage.name == gadget for stage in chain.stages)
    return there and key in lookup(gadget).properties and all(n.isdecimal() for n in number)
