"""The training loop, from top to bottom. Killed at any moment and started again it ends with the same weights."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pickle
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mrnets import store
from mrnets.errors import InputError
from mrnets.physics.maps import MAPS
from training import panel
from training.batches import Batches, First, examples, first_stage
from training.data import Example, Source
from training.log import Log
from training.losses import loss
from training.metrics import scores
from training.options import Loss, Network, Options
from training.tasks import fitted, opened
from training.team import Team, join

__all__ = ["built", "fit", "validate"]

HIGHER = ("ssim", "psnr", "dice", "f1", "iou", "lesion")
"""Metrics whose names start so are better when higher."""


@dataclass
class Run:
    """All that changes while a network learns, and that a checkpoint holds."""

    network: nn.Module
    average: AveragedModel
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    best: float = math.inf
    """Of the metric of early stopping, lower is better."""
    since: int = 0
    """Validations without a better one."""
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last validation."""


def fit(options: Options, *, stop_at: int | None = None) -> Path:
    """Train, and write the weights file; its path. `stop_at`: leave after that step, as if killed (for tests).

    Started by `torchrun`, every process takes its share of each step. Raises InputError for whatever is wrong with
    options and data; for a loss that is not finite (the checkpoint before it is kept); for a disk that is full.
    """
    team = join(options.device)
    try:
        return _fit(options, team, stop_at)
    finally:
        team.leave()


def _fit(options: Options, team: Team, stop_at: int | None) -> Path:
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options, source = fitted(options)
    steps, settings = _steps(options, source, team), options.optimiser
    if team.leads:
        (folder / "options.json").write_text(json.dumps(dataclasses.asdict(options), indent=1), encoding="utf-8")

    run = built(options, team.device)
    _resume(folder, options, run)
    first = first_stage(options, team.device)
    checked = list(_validation(options, team.device, first)) if team.leads else []
    log = Log(folder, options.log, run.step) if team.leads else None
    shared = team.share(run.network, some_frozen=bool(options.stages))
    # for each shape anew: complex numbers of unknown size are beyond torch's compiler
    forward = torch.compile(shared, dynamic=False) if options.compile else shared
    batches = Batches(source, options, "train", options.batch, team.rank, team.world)
    order = range(run.step * settings.accumulate, steps * settings.accumulate)
    feed = examples(batches, order, options.workers, team.device, first)
    began, start = time.monotonic(), run.step
    batch = next(feed, None)
    waited = time.monotonic() - began
    result: dict[str, float] | None = None

    while run.step < steps and run.step != stop_at:
        terms = _staged(run, options)
        for group in run.optimiser.param_groups:
            group["lr"] = settings.learning_rate * _schedule(run.step, steps, options)
        run.optimiser.zero_grad(set_to_none=True)
        run.network.train()
        total = 0.0
        for part in range(settings.accumulate):
            assert batch is not None
            _seed(options.seed, run.step * settings.accumulate + part, team.rank)
            with _alone(shared, last=part == settings.accumulate - 1):
                value = _backward(run, forward, batch, terms, source.labels, options)
            asked, names = time.monotonic(), batch.names
            batch = next(feed, None)  # a device still computes the gradient meanwhile
            waited += time.monotonic() - asked
            total += _finite(value, names, run.step, options)
        _update(run, settings.clip)
        run.step += 1
        run.losses.append(total)

        if log is not None:
            now = time.monotonic() - began
            log.progress(run.step, steps, float(np.mean(run.losses[-100:])), now / (run.step - start), waited / now)
        stop = False
        if run.step % options.validation.every == 0 or run.step == steps:
            if log is not None:
                result = _validated(run, checked, options, source, log)
                stop = bool(options.early.patience) and run.since >= options.early.patience
            run.losses = []
            stop = team.agreed(stop)
        if team.leads and (run.step % options.save_every == 0 or run.step == steps or stop):
            _save(folder, options, run)
        if stop:
            break

    if log is not None:
        log.close()
        if run.step != stop_at:
            _write_weights(options, run, checked, result, source)
    team.wait()
    return Path(options.weights)


def built(options: Options, device: torch.device) -> Run:
    """The network of `options` as it starts, and what makes it learn."""
    network = store.create(options.network.name, **options.network.options).to(device)
    for name, parameter in network.named_parameters():
        if name.endswith(options.network.zero):
            nn.init.zeros_(parameter)
    if options.network.start is not None:
        network.load_state_dict(_started(options).state_dict())
    settings = options.optimiser
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    optimiser = kind(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "float16")
    return Run(network, average, optimiser, scaler)


@torch.no_grad()
def validate(network: nn.Module, checked: Sequence[Example], terms: Loss, labels: tuple[str, ...]) -> dict[str, float]:
    """Mean of the loss and of every metric over the examples; a metric that is undefined for a slice leaves it out."""
    network.eval()
    values: dict[str, list[float]] = {}
    for one in checked:
        estimate = network(one.scan)
        row = {"loss": loss(estimate, one, terms, labels).reshape(1), **scores(estimate, one, labels)}
        for name, value in row.items():
            values.setdefault(name, []).extend(value.tolist())
    means = {name: [v for v in each if math.isfinite(v)] for name, each in values.items()}
    return {name: float(np.mean(each)) if each else math.nan for name, each in means.items()}


def _steps(options: Options, source: Source, team: Team) -> int:
    if options.epochs is None:
        return options.steps
    seen = options.batch * options.optimiser.accumulate * team.world
    return max(round(options.epochs * len(source) / seen), 1)


def _validation(options: Options, device: torch.device, first: First | None) -> Iterable[Example]:
    source = opened(options, "validation")
    count = options.validation.examples or len(source)
    return examples(Batches(source, options, "validation", 1), range(count), 0, device, first)


def _staged(run: Run, options: Options) -> Loss:
    """The terms of the loss at this step; only the parameters of its stage learn."""
    for stage in options.stages:
        if run.step < stage.until:
            terms, trains = stage.loss, stage.trains
            break
    else:
        terms, trains = options.loss, ()
    for name, parameter in run.network.named_parameters():
        parameter.requires_grad_(name.startswith(trains) if trains else True)
    return terms


def _seed(seed: int, batch: int, rank: int) -> None:
    """Dropout draws the same in a run that was killed and in one that was not."""
    torch.manual_seed(int(np.random.SeedSequence([seed, batch, rank]).generate_state(1, np.uint64)[0] >> 1))


def _alone(network: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[None]:
    """Gradients stay in this process, until the last part of a step."""
    if isinstance(network, nn.parallel.DistributedDataParallel) and not last:
        return network.no_sync()
    return contextlib.nullcontext()


def _backward(
    run: Run, forward: Callable[..., Any], batch: Example, terms: Loss, labels: tuple[str, ...], options: Options
) -> torch.Tensor:
    """Add the gradient of a part of a step; its share of the loss, which a device may not have computed yet."""
    half = torch.float16 if options.precision == "float16" else torch.bfloat16
    with torch.autocast(batch.weight.device.type, half, enabled=options.precision != "float32"):
        estimate = forward(batch.scan)
    value = loss(estimate, batch, terms, labels) / options.optimiser.accumulate
    run.scaler.scale(value).backward()
    return value.detach()


def _finite(value: torch.Tensor, names: Sequence[str], step: int, options: Options) -> float:
    """The loss as a number. Raises InputError where it is not finite."""
    number = value.item()
    if not math.isfinite(number):
        raise InputError(
            f"the loss of step {step} is {number}, of {', '.join(names)}; "
            f"the last checkpoint before it stays in {options.folder}"
        )
    return number


def _update(run: Run, clip: float) -> None:
    """One step of the optimiser, left out where the gradient is not finite."""
    run.scaler.unscale_(run.optimiser)
    norm = nn.utils.clip_grad_norm_(run.network.parameters(), clip)
    if run.scaler.is_enabled() or bool(torch.isfinite(norm)):
        run.scaler.step(run.optimiser)
        run.average.update_parameters(run.network)
    run.scaler.update()


def _schedule(step: int, steps: int, options: Options) -> float:
    """Share of the learning rate: linear warm-up, then as the optimiser's `schedule` says."""
    warm_up, kind = options.optimiser.warm_up, options.optimiser.schedule
    if 0 < warm_up < 1:
        warm_up = max(round(warm_up * steps), 1)
    if step < warm_up:
        return (step + 1) / warm_up
    if kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(steps - warm_up, 1)))
    return math.sqrt(max(warm_up, 1) / (step + 1)) if kind == "inverse_sqrt" else 1.0


def _validated(run: Run, checked: Sequence[Example], options: Options, source: Source, log: Log) -> dict[str, float]:
    """Scores of the averaged weights, logged; and whether they are the best so far, where it matters."""
    folder = Path(options.folder)
    result = validate(run.average.module, checked, options.loss, source.labels)
    trained = float(np.mean(run.losses))
    log.row({"step": run.step, "train loss": trained, **{name: round(v, 6) for name, v in result.items()}})
    with torch.no_grad():
        pictures = [panel.picture(run.average.module(one.scan), one, source.labels) for one in checked[:8]]
    panel.write(folder / f"step{run.step:06d}.png", pictures)
    log.pictures(run.step, pictures)
    if options.early.patience:
        metric = options.early.metric
        if metric not in result:
            raise InputError(f"option early.metric: no {metric!r} among {', '.join(result)}")
        value = -result[metric] if metric.startswith(HIGHER) else result[metric]
        run.since += 1
        if value < run.best:
            run.best, run.since = value, 0
            _write(run.average.state_dict(), folder / "best.pt")
    return result


def _save(folder: Path, options: Options, run: Run) -> None:
    """The whole state of the run."""
    state = {
        "step": run.step,
        "network": run.network.state_dict(),
        "average": run.average.state_dict(),
        "optimiser": run.optimiser.state_dict(),
        "scaler": run.scaler.state_dict(),
        "early": [run.best, run.since],
        "losses": run.losses,
        "trains": _trains(options),
    }
    _write(state, folder / "checkpoint.pt")


def _write(state: Any, path: Path) -> None:
    """Written beside the last one, then renamed: a full disk costs no checkpoint."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch says RuntimeError when a write fails
        partial.unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        kept = "; the one before it is kept" if path.exists() else ""
        raise InputError(f"cannot write the checkpoint {path}: {reason}{kept}") from None


def _started(options: Options) -> nn.Module:
    path = str(options.network.start)
    trained = store.load(path)
    ours = store.bind(options.network.name, **options.network.options)
    if (trained.name, trained.options) != (options.network.name, ours):
        raise InputError(f"cannot start from {path}: it holds {trained.name} with options {trained.options}")
    return trained.network


def _resume(folder: Path, options: Options, run: Run) -> None:
    path = folder / "checkpoint.pt"
    if not path.exists():
        return
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({str(error).splitlines()[0]}); to start anew, remove it") from None
    if state.get("trains") != _trains(options):
        raise InputError(
            f"{path} was made with other options (network, data, preparation, optimiser, seed or batch); "
            f"to start anew, choose another folder"
        )
    run.network.load_state_dict(state["network"])
    run.average.load_state_dict(state["average"])
    run.optimiser.load_state_dict(state["optimiser"])
    run.scaler.load_state_dict(state["scaler"])
    run.step, (run.best, run.since), run.losses = state["step"], state["early"], state["losses"]


def _trains(options: Options) -> str:
    """A digest of the options that may not change within a run; its length, threads and folders may."""
    free = ("weights", "folder", "data", "licence", "validation", "steps", "epochs", "save_every", "workers", "threads")
    kept = {
        k: v
        for k, v in dataclasses.asdict(options).items()
        if k not in (*free, "log", "device", "compile", "early", "compare")
    }
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _named(network: Network) -> Network:
    """`network` without the places on this machine where other weights lie."""
    start, first = (None if path is None else Path(path).name for path in (network.start, network.first))
    return dataclasses.replace(network, start=start, first=first)


def _write_weights(
    options: Options, run: Run, checked: Sequence[Example], result: dict[str, float] | None, source: Source
) -> None:
    """The weights file: averaged weights, how to prepare their input, and where they come from. `result`: of the last
    validation; None: there was none since the run was resumed."""
    best = Path(options.folder) / "best.pt"
    if options.early.patience and best.exists():
        device = next(run.average.parameters()).device
        run.average.load_state_dict(torch.load(best, map_location=device, weights_only=True))
        result = None
    result = result or validate(run.average.module, checked, options.loss, source.labels)
    path = Path(options.weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    provenance = {
        "data": list(source.subjects),
        "licence": options.licence,
        "command": "python -m training fit, with the options below",
        "options": dataclasses.asdict(
            dataclasses.replace(options, data=None, folder="", weights=path.name, network=_named(options.network))
        ),
        "scores": {name: round(value, 4) for name, value in result.items() if math.isfinite(value)},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    task = store.describe(options.network.name).task
    store.save(
        path,
        run.average.module,
        name=options.network.name,
        options=options.network.options,
        preparation=options.preparation.to_json(),
        units={name: known.unit for name, known in MAPS.items()} if task == "quantitative" else None,
        labels=source.labels if task in ("segmentation", "joint") else None,
        provenance=provenance,
    )
    print(f"wrote {path}", flush=True)
