"""The weights file at the end of a run."""

from __future__ import annotations

import dataclasses
import math
import platform
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mrnets import contrasts, store
from mrnets.files import make_folder
from mrnets.physics.maps import MAPS
from mrnets.seen import KEY, Seen
from training.data import Source
from training.options import Options
from training.own import packages, versions
from training.settings import Simulated
from training.simulation import Simulation
from training.tasks import reader_of

__all__ = ["command", "seen_in", "write_weights"]


def write_weights(options: Options, network: nn.Module, scores: Mapping[str, float], source: Source) -> None:
    """Write the weights, how to prepare their input, and where they come from. Raises InputError.

    scores: of the last validation.
    """
    path = Path(options.weights)
    make_folder(path.parent)
    task = store.describe(options.network.name).task
    store.save(
        path,
        network,
        name=options.network.name,
        options=options.network.options,
        preparation=options.preparation.to_json(),
        units={name: known.unit for name, known in MAPS.items()} if task == "quantitative" else None,
        labels=source.labels if task in ("segmentation", "joint") else None,
        provenance=_provenance(options, scores, source),
    )
    what = "images" if _contrasts(options) else "a scan"
    print(f"wrote {path}; it runs on {what} by\n{command(options)}", flush=True)


def command(options: Options) -> str:
    """Return the command that reconstructs a scan with the weights of a run, or segments images of several contrasts.

    Other networks on images come after one that makes them: that of `network.first`, or the one that segment.xml has.
    """
    if names := _contrasts(options):
        files = [f"{name}.nii.gz" for name in names]
        words = ["python", "-m", "gadgets", "segment", *files, "-c", options.reader.name, "--weights", options.weights]
        return shlex.join(words)
    bound = store.bind(options.network.name, **options.network.options)
    second = store.describe(options.network.name).takes_with(bound) != "kspace"
    settings = [f"network{'.2' * second}.weights={options.weights}"]
    if options.network.first is not None:
        settings.append(f"network.1.weights={options.network.first}")
    if options.preparation.whiten == "none":
        settings.append("noise.whiten=false")
    words = ["python", "-m", "gadgets", "replay", "SCAN.h5", "-c", "segment" if second else "network"]
    words += [word for package in packages(options) for word in ("--allow", package)]
    return shlex.join(words + [word for setting in settings for word in ("--set", setting)])


def _contrasts(options: Options) -> tuple[str, ...]:
    """Return the names of the contrasts that a reader of images gives, in order; empty: it gives one, or scans."""
    found: tuple[str, ...] = getattr(reader_of(options), "contrasts", ())
    return found


def _provenance(options: Options, scores: Mapping[str, float], source: Source) -> dict[str, Any]:
    """Facts for people, without the places of files on this machine."""
    start, first = (
        None if path is None else Path(path).name for path in (options.network.start, options.network.first)
    )
    network = dataclasses.replace(options.network, start=start, first=first)
    own = dataclasses.replace(options, data=None, folder="", weights=Path(options.weights).name, network=network)
    return {
        "data": list(source.subjects),
        "licence": options.licence,
        KEY: seen_in(options).to_json(),
        contrasts.KEY: list(_contrasts(options)),
        "command": "python -m training fit, with the options below",
        "options": dataclasses.asdict(own),
        "scores": {name: round(value, 4) for name, value in scores.items() if math.isfinite(value)},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            **versions(options),
        },
    }


def seen_in(options: Options) -> Seen:
    """Return what the network of a run sees: as the recipe states it, and else the ranges that the options draw from.

    Raises InputError for a reader that does not exist.
    """
    found: dict[str, Any] = {}
    if (drawn := _simulation(options)) is not None:
        matrix = (min(drawn.matrix), max(drawn.matrix))
        found = {name: getattr(drawn, name) for name in ("masks", "acceleration", "snr", "coils")} | {"matrix": matrix}
    elif _draws_masks(options):
        accelerations = options.masks.accelerations
        found = {"masks": options.masks.names, "acceleration": (min(accelerations), max(accelerations))}
    if "masks" in found:
        found["masks"] = tuple(dict.fromkeys(found["masks"]))
    return dataclasses.replace(
        options.seen, **{name: value for name, value in found.items() if not getattr(options.seen, name)}
    )


def _draws_masks(options: Options) -> bool:
    """Whether masks make the sampling of the scans: images have none, and accelerated scans keep their own."""
    images = store.describe(options.network.name).task == "segmentation"
    return options.masks.source == "drawn" and not images and not options.self_supervised.share


def _simulation(options: Options) -> Simulated | Simulation | None:
    """The settings of simulated scans; None where scans or images are read."""
    name = options.reader.name
    if name == "simulated" or (name == "labelled" and options.reader.options.get("scans")):
        return options.simulated
    return getattr(reader_of(options), "simulation", None)
