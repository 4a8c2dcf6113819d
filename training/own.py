"""Networks, readers and losses of other packages in a recipe. Whoever names one there allows its module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mrnets import plugins
from mrnets.plugins import Kind

if TYPE_CHECKING:
    from training.options import Options

__all__ = ["packages", "permit", "versions"]


def permit(values: Mapping[str, Any]) -> None:
    """Allow the modules that a recipe names, as it is read, and the packages of its option `allow`.

    Raises InputError for names that cannot be."""
    allowed = values.get("allow")
    plugins.allow(*(name for name in (allowed if isinstance(allowed, list) else ()) if isinstance(name, str)))
    for kind, name in _named(values):
        if (reference := plugins.find(kind, name)) is not None:
            plugins.allow(reference.partition(":")[0])


def packages(options: Options) -> list[str]:
    """Return the packages, other than this project, that the network of a run is of; for the option --allow."""
    reference = plugins.find("network", options.network.name)
    return [] if reference is None else [reference.partition(":")[0].partition(".")[0]]


def versions(options: Options) -> dict[str, str]:
    """Return the other packages that a run took a network, a reader or a loss from, with their versions."""
    names: list[tuple[Kind, str]] = [("network", options.network.name), ("reader", options.reader.name)]
    losses = (options.loss, *(stage.loss for stage in options.stages))
    names += [("loss", name) for loss in losses for name in loss.own]
    found = (plugins.find(kind, name) for kind, name in names)
    providers = (plugins.provider(reference) for reference in found if reference is not None)
    return {one.name: one.version for one in providers}


def _named(values: Mapping[str, Any]) -> Iterator[tuple[Kind, str]]:
    """Yield the networks, readers and losses that the keys and values of a recipe name. Others are skipped."""
    parts: tuple[tuple[Kind, str], ...] = (("network", "network"), ("reader", "reader"))
    for kind, key in parts:
        match values.get(key):
            case {"name": str(name)}:
                yield kind, name
    yield from (("network", name) for name in _keys(values.get("compare")))
    stages = values.get("stages")
    for part in (values, *(stages if isinstance(stages, list) else ())):
        match part:
            case {"loss": {"own": own}}:
                yield from (("loss", name) for name in _keys(own))


def _keys(values: Any) -> list[str]:
    return [key for key in values if isinstance(key, str)] if isinstance(values, dict) else []
