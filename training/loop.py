"""The training loop, from top to bottom. Killed at any moment and started again it ends with the same weights."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import torch

from mrnets import store
from mrnets.ending import ended
from mrnets.errors import InputError
from mrnets.files import make_folder, reserved, write_text
from training import checkpoint
from training.batches import Batches, examples, watched
from training.data import Source
from training.graphs import GradientGraphs
from training.log import EVERY, Log
from training.options import Options
from training.run import Run, built
from training.step import Feed, Learning, learn, settle
from training.targets import first_stage
from training.tasks import fitted
from training.team import Team, join
from training.validation import BEST, checked, validate, validated
from training.weights import write_weights

__all__ = ["fit"]

AVERAGED = 100
"""Steps whose mean loss is told."""


def fit(options: Options, *, stop_at: int | None = None) -> Path:
    """Train, write the weights file, and return its path. `stop_at`: leave after that step, as if killed (for tests).

    Started by `torchrun`, every process takes its share of each step. Raises InputError for whatever is wrong with
    options and data, for a full disk, where another run uses the folder, and where a process that reads examples ends.
    It is raised, too, for a loss that is not finite; then the checkpoint before it is kept. Where an example cannot be
    read, a checkpoint keeps the steps before it.
    """
    team = join(options.device)
    try:
        with contextlib.ExitStack() as held, watched():
            with team.together():
                folder = make_folder(options.folder)
                if team.leads:
                    held.enter_context(reserved(folder / "run"))
            return _fit(options, folder, team, stop_at)
    finally:
        team.leave()


def _fit(options: Options, folder: Path, team: Team, stop_at: int | None) -> Path:
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    with team.together():
        options, source = fitted(options)
    steps, early = _steps(options, source, team), options.early
    if team.leads:
        write_text(folder / "options.json", json.dumps(dataclasses.asdict(options), indent=1))

    run = built(options, team.device)
    _resume(run, options, folder, team, len(source))
    first = first_stage(options, team.device)
    validation = checked(options, team.device, first) if team.leads else []
    log = Log(folder, options.log, run.step, steps) if team.leads else None
    how = _learning(run, options, source, team, steps)
    batches = Batches(source, options, "train", options.batch, team.rank, team.world)
    order = range(run.step * options.optimiser.accumulate, steps * options.optimiser.accumulate)
    feed = Feed(examples(batches, order, options.workers, team.device, first), team.device)
    start, result = run.step, None
    stop = bool(early.patience) and run.since >= early.patience  # where it was killed before it wrote the weights

    while run.step < steps and run.step != stop_at and not stop:
        gradient = _learned(run, feed, how, folder if team.leads and run.step > start else None)
        if _asked(run.step, steps, options):
            settle(run, options)
        if log is not None and run.step % options.log_every == 0:
            rate = run.optimiser.param_groups[0]["lr"]
            log.step(run.step, {"loss": run.losses[-1], "learning rate": rate, "gradient norm": float(gradient)})
        if log is not None and run.losses:
            loss, seconds = float(np.mean(run.losses[-AVERAGED:])), feed.seconds
            log.progress(run.step, steps, loss, seconds / (run.step - start), feed.waited / seconds)
        if run.step % options.validation.every == 0 or run.step == steps:
            if log is not None:
                result = validated(run, validation, options, source.labels, log)
            run.losses = []
            stop = team.agreed(bool(early.patience) and run.since >= early.patience)
        if team.leads and (run.step % options.save_every == 0 or run.step == steps or stop):
            checkpoint.save(folder, options, run)

    if log is not None:
        log.close()
        if run.step != stop_at:
            if early.patience and run.best < math.inf:
                run.average.load_state_dict(checkpoint.read(folder / BEST, team.device))
                result = None
            network = run.average.module
            scores = result or validate(network, validation, options, source.labels)
            write_weights(options, network, scores, source)
    team.wait()
    return Path(options.weights)


def _learned(run: Run, feed: Feed, how: Learning, folder: Path | None) -> torch.Tensor:
    """Make one step as `learn` does.

    Where a batch cannot be read, a checkpoint in `folder` keeps the steps before it: they can be hours."""
    try:
        return learn(run, feed, how)
    except InputError as error:
        if folder is not None and error is feed.fault:
            settle(run, how.options)
            checkpoint.save(folder, how.options, run)
        raise


def _resume(run: Run, options: Options, folder: Path, team: Team, slices: int) -> None:
    """Bring all processes to the state of the first one's checkpoint, also where they share no folder.

    Raises InputError in all of them where the checkpoint cannot be used, or where one has other options or data.
    """
    content = b""
    with team.together():
        if team.leads:
            content = checkpoint.content(folder)
    mine = [json.dumps(checkpoint.kept(options)), str(slices)]
    theirs = json.loads(team.spread(json.dumps(mine).encode()))
    with team.together():
        if changed := checkpoint.difference(*map(json.loads, (theirs[0], mine[0]))):
            raise InputError(f"it has another {changed} than the first process")
        if theirs[1] != mine[1]:
            raise InputError(f"its data have {mine[1]} slices for training, and those of the first process {theirs[1]}")
    content = team.spread(content)
    with team.together():
        checkpoint.restore(content, folder, options, run)


def _learning(run: Run, options: Options, source: Source, team: Team, steps: int) -> Learning:
    shared = team.share(run.network, some_frozen=bool(options.stages))
    # Anew for each shape: torch's compiler cannot handle complex numbers of unknown size.
    forward = torch.compile(shared, dynamic=False) if options.compile else shared
    return Learning(
        options,
        steps,
        source.labels,
        team.rank,
        shared,
        ended(forward, options.preparation, store.describe(options.network.name).echoes),
        GradientGraphs(run.network) if _recordable(options, team) else None,
    )


def _recordable(options: Options, team: Team) -> bool:
    """Whether gradients may be recorded as CUDA graphs."""
    return options.graphs and team.device.type == "cuda" and team.world == 1 and not options.compile


def _asked(step: int, steps: int, options: Options) -> bool:
    """Whether the loss of this step is wanted at once: for the log, a validation or a checkpoint."""
    every = (options.log_every, EVERY, options.validation.every, options.save_every)
    return step == steps or any(step % each == 0 for each in every)


def _steps(options: Options, source: Source, team: Team) -> int:
    if options.epochs is None:
        return options.steps
    seen = options.batch * options.optimiser.accumulate * team.world
    return max(round(options.epochs * len(source) / seen), 1)
