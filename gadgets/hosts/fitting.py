"""Which of the shipped chains fit a scan, by what their networks take. Nothing is computed, and torch is not needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gadgets.chain import Chain, Stage
from gadgets.hosts.library import folder, load
from mrnets import store
from mrnets.errors import InputError, counted

__all__ = ["Needs", "fitting", "names", "takes_images"]


@dataclass(frozen=True)
class Needs:
    """Requirements of networks on a scan."""

    echoes: int
    timed: bool
    """Whether the header tells the times of all echoes."""
    coils: int


def names() -> list[str]:
    """Return the names of the shipped chains."""
    return sorted(path.stem for path in folder().glob("*.xml"))


def fitting(scan: Needs) -> tuple[list[str], dict[str, str]]:
    """Return the shipped chains that fit a scan, and for each other one why it does not."""
    fits, others = [], {}
    for name in names():
        try:
            why = next(_obstacles(load(name), scan), "")
        except InputError as error:
            why = str(error).removeprefix(f"chain {name}.xml: ")
        if why:
            others[name] = why
        else:
            fits.append(name)
    return fits, others


def _obstacles(chain: Chain, scan: Needs) -> Iterator[str]:
    """Yield what stands between a chain and a scan."""
    if chain.has("retrieve"):
        yield "it asks a server for the images of a scan that was deferred"
    networks = [stage for stage in chain.stages if stage.name == "network"]
    if takes_images(chain):
        yield "it segments images, and makes none of a scan: see `python -m gadgets segment`"
        return
    for stage in networks:
        yield from _of_network(stage, scan)


def takes_images(chain: Chain) -> bool:
    """Return whether a chain takes images instead of raw data. Raises InputError for weights that cannot be read.

    A network whose weights are still to be given takes images where the chain names contrasts."""
    stage = next((stage for stage in chain.stages if stage.name == "network"), None)
    if stage is None or "contrasts" in stage.properties:
        return stage is not None
    header = store.header(stage.properties["weights"]) if "weights" in stage.properties else None
    return header is not None and store.describe(header["network"]).takes_with(header["options"]) == "image"


def _of_network(stage: Stage, scan: Needs) -> Iterator[str]:
    weights, name = stage.properties.get("weights"), stage.properties.get("name", "")
    header: dict[str, Any] = {"network": name, "options": {}, "preparation": {}}
    header = store.header(weights) if weights else header
    called, options = weights or name, header["options"]
    traits = store.describe(header["network"])
    echoes = f"the scan has {scan.echoes}"
    if traits.task == "quantitative" and scan.echoes < 2:
        yield f"{called} needs two or more echoes, and {echoes}"
    if traits.task == "quantitative" and not scan.timed:
        yield f"{called} needs the echo times, which the header does not tell"
    if traits.echoes == "one" and scan.echoes > 1:
        yield f"{called} takes one echo, and {echoes}"
    if options.get("contrasts") not in (None, scan.echoes) and traits.takes_with(options) != "kspace":
        yield f"{called} takes images of {counted(options['contrasts'], 'contrast')} (echoes), and {echoes}"
    coils = header["preparation"].get("coils")
    if coils and coils > scan.coils:
        yield f"{called} takes {counted(coils, 'coil')}, and the scan has {scan.coils}"
