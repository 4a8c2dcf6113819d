"""Several networks trained alike, on the same scans in the same order, and scored side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mrnets import store
from mrnets.errors import Faults, unknown
from training.evaluate import evaluate
from training.loop import fit
from training.options import Options

__all__ = ["compare"]


def compare(names: Sequence[str], options: Options) -> list[Path]:
    """Fit networks with the settings of `options`, evaluate them together, and return their weights files.

    names: "all" stands for every network of the recipe's task that has weights. The options of each are those of the
    recipe's network that it has, too, and those of `options.compare`. Each run has a folder and a weights file of its
    own below `options.folder`. A run that is done is not repeated, and one with other settings is refused.
    Weights without the folder of their run are taken as they are.
    """
    known = [name for name in store.names() if store.describe(name).learns]
    if list(names) == ["all"]:
        task = store.describe(options.network.name).task
        names = [n for n in known if store.describe(n).task == task]
    faults = Faults()
    for name in names:
        with faults.gathered():
            if name not in known:
                raise unknown("network", name, known)
    faults.tell()
    paths = [_fitted(name, options) for name in names]
    evaluate([str(path) for path in paths], options, part="validation", folder=options.folder)
    return paths


def _fitted(name: str, options: Options) -> Path:
    path, folder = (Path(options.folder) / part for part in (f"{name}.safetensors", name))
    if path.exists() and not folder.exists():
        return path
    print(f"{name}:", flush=True)
    recipe = store.carried(options.network.name, options.network.options, name)
    given = store.carried(name, options.compare.get(name, {}), name)
    own = dataclasses.replace(options.network, name=name, options={**recipe, **given})
    fit(dataclasses.replace(options, network=own, weights=str(path), folder=str(folder)))
    return path
