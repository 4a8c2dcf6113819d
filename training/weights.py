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

from mrnets import store
from mrnets.files import make_folder
from mrnets.physics.maps import MAPS
from training.data import Source
from training.options import Options

__all__ = ["command", "write_weights"]


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
    print(f"wrote {path}; it runs on a scan by\n{command(options)}", flush=True)


def command(options: Options) -> str:
    """Return the command that reconstructs a scan with the weights of a run.

    Networks on images come after one that makes them: that of `network.first`, or the one that segment.xml has.
    """
    bound = store.bind(options.network.name, **options.network.options)
    second = store.describe(options.network.name).takes_with(bound) != "kspace"
    settings = [f"network{'.2' * second}.weights={options.weights}"]
    if options.network.first is not None:
        settings.append(f"network.1.weights={options.network.first}")
    if options.preparation.whiten == "none":
        settings.append("noise.whiten=false")
    words = ["python", "-m", "gadgets", "replay", "SCAN.h5", "-c", "segment" if second else "network"]
    return shlex.join(words + [word for setting in settings for word in ("--set", setting)])


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
        "command": "python -m training fit, with the options below",
        "options": dataclasses.asdict(own),
        "scores": {name: round(value, 4) for name, value in scores.items() if math.isfinite(value)},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
