"""A run before it is done: problems of its data set, its bound options, parameters and memory."""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from mrnets import store
from mrnets.ending import ended
from mrnets.errors import InputError
from training.batches import Batches, examples
from training.losses import loss
from training.options import Options
from training.split import PARTS, Part
from training.tasks import fitted, opened, reader_of

__all__ = ["changes", "described", "problems"]


def problems(options: Options) -> Iterator[str]:
    """Give a sentence for everything that is missing or malformed in the data set, or does not fit the recipe."""
    folder = Path(str(options.data))
    if not folder.is_dir():
        yield f"{folder}: no such folder"
        return
    try:
        yield from _problems(options, folder)
    except Exception as error:  # noqa: BLE001 whatever a data set makes a library raise, check ends with a sentence
        yield f"{folder}: cannot be checked further ({type(error).__name__}: {' '.join(str(error).split())})"


def _problems(options: Options, folder: Path) -> Iterator[str]:
    found = False
    _tell("the files and a few slices")
    for problem in reader_of(options).check(folder, options.reader.split):
        found = True
        yield problem
    for part in () if found else PARTS[:2]:
        _tell(f"a slice for {part}, masked and prepared")
        try:
            bound, source = fitted(options, part)
            next(examples(Batches(source, bound, part, 1), range(1), 0, "cpu"))
        except InputError as error:
            yield f"{part}: {error}"


def described(options: Options, recipe: Options | None = None) -> str:
    """Return what differs from the `recipe`, the bound options as YAML, the parameters, and the memory of one training
    step, which is run."""
    import yaml

    from training.run import built

    changed = [] if recipe is None else changes(recipe, options)
    options, source = fitted(options)
    device = torch.device(options.device)
    run = built(options, device)
    forward = ended(run.network, options.preparation, store.describe(options.network.name).echoes)
    before = _memory(device)
    batch = next(examples(Batches(source, options, "train", options.batch), range(1), 0, device))
    loss(forward(batch.scan), batch, options.loss, source.labels).backward()
    run.optimiser.step()
    used = _memory(device) - before
    parameters = sum(p.numel() for p in run.network.parameters())
    slices = {part: _count(options, part) for part in PARTS}
    return "\n".join(
        (
            *changed,
            *(["---"] if changed else []),
            yaml.safe_dump(_plain(dataclasses.asdict(options)), sort_keys=False).rstrip(),
            "---",
            f"parameters {parameters:,}",
            "slices     " + ", ".join(f"{part} {count}" for part, count in slices.items()),
            f"memory     {used / 2**20:,.0f} MiB more for one step of batch {options.batch} on {device}",
        )
    )


def changes(recipe: Options, options: Options) -> list[str]:
    """Return a line for each option that is not as in the recipe: "loss.ssim: 0.5 (recipe: 0.9)"."""
    before, now = (_flat(dataclasses.asdict(each)) for each in (recipe, options))
    return [
        f"{key}: {json.dumps(now.get(key))} (recipe: {json.dumps(before.get(key))})"
        for key in dict.fromkeys((*now, *before))
        if now.get(key) != before.get(key)
    ]


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested options by their whole names."""
    if not isinstance(values, dict) or not values:
        return {prefix: values}
    inner = (_flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in values.items())
    return {key: value for each in inner for key, value in each.items()}


def _tell(what: str) -> None:
    """Name on stderr what is looked at, since data sets can be large."""
    print(f"looking at {what}", file=sys.stderr, flush=True)


def _count(options: Options, part: Part) -> int:
    try:
        return len(opened(options, part))
    except InputError:
        return 0


def _memory(device: torch.device) -> int:
    """The most that this process has used so far, bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
