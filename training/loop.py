"""The training loop, from top to bottom. Killed at any moment and started again it ends with the same weights."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mrnets import store
from mrnets.contract import Scan
from mrnets.errors import InputError
from training import panel
from training.losses import loss
from training.metrics import nmse, psnr, ssim
from training.options import Network, Options
from training.readers.anatomy import Volume, load_folder
from training.readers.simulated import Example, example

__all__ = ["Examples", "fit", "split", "validate"]

METRICS = {"ssim": ssim, "psnr": psnr, "nmse": nmse}


class Examples(torch.utils.data.Dataset[Example]):
    """Batch n of a run; `stream` keeps training and validation apart."""

    def __init__(self, volumes: Sequence[Volume], options: Options, *, stream: int, batch: int) -> None:
        self.volumes, self.options, self.stream, self.batch = list(volumes), options, stream, batch

    def __getitem__(self, n: int) -> Example:
        rng = np.random.default_rng([self.options.seed, self.stream, n])
        return example(self.volumes, self.options.simulated, self.options.preparation, self.batch, rng)


def fit(options: Options, *, stop_at: int | None = None) -> Path:
    """Train, and write the weights file; its path. `stop_at`: leave after that step, as if killed (for tests)."""
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    training, validation = split(load_folder(options.data), options)
    (folder / "options.json").write_text(json.dumps(dataclasses.asdict(options), indent=1), encoding="utf-8")

    network = store.create(options.network.name, **options.network.options).to(device)
    for name, parameter in network.named_parameters():
        if name.endswith(options.network.zero):
            nn.init.zeros_(parameter)
    if options.network.start is not None:
        network.load_state_dict(_started(options).state_dict())
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(options.optimiser.ema))
    settings = options.optimiser
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    start = _resume(folder, options, network, average, optimiser)
    checked = list(_loaded(Examples(validation, options, stream=1, batch=1), range(options.validation.examples), 0))
    losses: list[float] = []
    began = time.monotonic()

    for step, batch in zip(
        range(start, options.steps),
        _loaded(
            Examples(training, options, stream=0, batch=options.batch), range(start, options.steps), options.workers
        ),
        strict=True,
    ):
        if step == stop_at:
            return folder
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, options)
        batch = _to(batch, device)
        network.train()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=options.precision == "bfloat16"):
            estimate = network(batch.scan)
        value = loss(estimate.image, batch.target, options.loss)
        if not bool(torch.isfinite(value)):
            raise InputError(
                f"the loss of step {step} is {value.item()}: batch {step} of seed {options.seed} "
                f"(target {tuple(batch.target.shape)}); the checkpoint before it is kept in {folder}"
            )
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        if bool(torch.isfinite(norm)):
            optimiser.step()
            average.update_parameters(network)
        losses.append(value.item())

        done = step + 1
        if done % 20 == 0:
            rate = (time.monotonic() - began) / (done - start)
            left = rate * (options.steps - done) / 60
            mean = np.mean(losses[-100:])
            text = f"step {done}/{options.steps}  loss {mean:.4f}  {rate:.2f} s/step  {left:.0f} min left"
            print(text, end="\r" if sys.stdout.isatty() else "\n", flush=True)
        if done % options.validation.every == 0 or done == options.steps:
            scores = validate(average.module, checked, folder / f"step{done:06d}.png")
            row = {"step": done, "loss": float(np.mean(losses[-options.validation.every :])), **scores}
            _log(folder / "log.csv", row)
            print("  ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
        if done % options.save_every == 0 or done == options.steps:
            _save(folder, done, options, network, average, optimiser)

    return _write_weights(options, average.module, validate(average.module, checked, None), training)


def split(volumes: Sequence[Volume], options: Options) -> tuple[list[Volume], list[Volume]]:
    """Volumes for training, and those for validation; a single volume serves for both."""
    names = options.simulated.validation_volumes
    held = [v for v in volumes if any(name in v.name for name in names)]
    rest = [v for v in volumes if v not in held] if len(held) < len(volumes) else list(volumes)
    return rest, held or rest


@torch.no_grad()
def validate(network: nn.Module, examples: Sequence[Example], picture: Path | None) -> dict[str, float]:
    """Mean of every metric over the examples, of the network and ("zf_...") of the zero-filled image."""
    from mrnets.nets.zerofilled import ZeroFilled

    network.eval()
    device = next(iter(network.parameters()), torch.zeros(1)).device
    scores: dict[str, list[float]] = {}
    rows = []
    for one in examples:
        one = _to(one, device)
        target = one.target.abs()
        images = {"": network(one.scan).image.abs(), "zf_": ZeroFilled()(one.scan).image.abs()}
        for prefix, image in images.items():
            for name, metric in METRICS.items():
                scores.setdefault(prefix + name, []).append(float(metric(image, target).mean()))
        rows.append(tuple(x[0, 0].cpu() for x in (images["zf_"], images[""], target)))
    if picture is not None:
        panel.write(picture, rows[:8])
    return {name: float(np.mean(values)) for name, values in scores.items()}


def _loaded(examples: Examples, order: range, workers: int) -> Iterator[Example]:
    """The batches `order` of `examples`, prepared in the background."""
    loader = torch.utils.data.DataLoader(
        examples,
        batch_size=None,
        sampler=order,
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        collate_fn=_as_it_is,  # type: ignore[arg-type]
    )
    return iter(loader)


def _as_it_is(batch: Example) -> Example:
    return batch


def _to(batch: Example, device: torch.device) -> Example:
    values = {f.name: getattr(batch.scan, f.name) for f in dataclasses.fields(Scan)}
    scan = Scan(**{name: None if x is None else x.to(device) for name, x in values.items()})
    return Example(scan, batch.target.to(device), batch.scale.to(device))


def _schedule(step: int, options: Options) -> float:
    """Linear warm-up, then half a cosine to zero."""
    warm_up = options.optimiser.warm_up
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(options.steps - warm_up, 1)))


def _save(
    folder: Path, step: int, options: Options, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    """The whole state of the run; written beside the last one and renamed, so that a full disk costs no checkpoint."""
    state = {
        "step": step,
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "random": torch.get_rng_state(),
        "trains": _trains(options),
    }
    partial = folder / ".checkpoint.partial"
    torch.save(state, partial)
    os.replace(partial, folder / "checkpoint.pt")


def _started(options: Options) -> nn.Module:
    path = str(options.network.start)
    trained = store.load(path)
    ours = store.bind(options.network.name, **options.network.options)
    if (trained.name, trained.options) != (options.network.name, ours):
        raise InputError(f"cannot start from {path}: it holds {trained.name} with options {trained.options}")
    return trained.network


def _resume(
    folder: Path, options: Options, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> int:
    """The step to go on from; 0 where there is no checkpoint."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["trains"] != _trains(options):
        raise InputError(
            f"{path} was made with other options (network, preparation, simulated, seed or batch); "
            f"they are in {folder / 'options.json'}; to start anew, choose another folder"
        )
    network.load_state_dict(state["network"])
    average.load_state_dict(state["average"])
    optimiser.load_state_dict(state["optimiser"])
    torch.set_rng_state(state["random"])
    return int(state["step"])


def _trains(options: Options) -> str:
    """A digest of the options that may not change within a run; length, threads and folders may."""
    fixed = (options.network, options.preparation, options.simulated, options.seed, options.batch)
    text = json.dumps([dataclasses.asdict(x) if dataclasses.is_dataclass(x) else x for x in fixed])
    return hashlib.sha256(text.encode()).hexdigest()


def _named(network: Network) -> Network:
    """`network` without the place on this machine where its start lies."""
    return dataclasses.replace(network, start=None if network.start is None else Path(network.start).name)


def _log(path: Path, row: dict[str, Any]) -> None:
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)


def _write_weights(options: Options, network: nn.Module, scores: dict[str, float], training: Sequence[Volume]) -> Path:
    """The weights file: averaged weights, how to prepare their input, and where they come from."""
    path = Path(options.weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    provenance = {
        "data": sorted(v.name for v in training),
        "licence": options.licence,
        "command": "python -m training fit, with the options below",
        "options": dataclasses.asdict(
            dataclasses.replace(options, data=None, folder="", weights=path.name, network=_named(options.network))
        ),
        "scores": {name: round(value, 4) for name, value in scores.items()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    store.save(
        path,
        network,
        name=options.network.name,
        options=options.network.options,
        preparation=options.preparation.to_json(),
        provenance=provenance,
    )
    print(f"wrote {path}")
    return path
