"""The log of a run: log.csv and steps.csv always, TensorBoard and Weights & Biases where asked for, and progress."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mrnets.errors import InputError, unknown
from mrnets.extras import install
from mrnets.files import write_text

__all__ = ["EVERY", "Log", "progress"]

EVERY = 20
"""Steps from one line of progress to the next."""
EXTRAS = {"tensorboard": "tensorboard", "wandb": "wandb"}
"""The extra that brings each."""

_COLUMNS = ("step", "loss", "learning rate", "gradient norm", "event")
"""The columns of steps.csv."""

Picture = NDArray[np.uint8]

_logger = logging.getLogger(__name__)


class _Writer(Protocol):
    """Another place for the results of validations."""

    def row(self, step: int, values: Mapping[str, float]) -> None: ...

    def show(self, step: int, pictures: Sequence[Picture]) -> None: ...

    def close(self) -> None: ...


class Log:
    """The log of a run of `steps` steps in `folder`, without what was logged after the first `step` of them.

    log.csv has the validations, steps.csv loss, learning rate and gradient norm, and where the run went on.
    kinds: "tensorboard" (events in folder/tensorboard), "wandb" (its own settings hold, such as WANDB_MODE=offline).
    Raises InputError for a kind that is not installed or does not start, and where a table cannot be read or written.
    """

    def __init__(self, folder: Path, kinds: Sequence[str], step: int, steps: int) -> None:
        self._path, self._steps = folder / "log.csv", folder / "steps.csv"
        self._rows = [row for row in _read(self._path) if int(row["step"]) <= step]
        before = [row for row in _read(self._steps) if int(row["step"]) <= step]
        self._writers = [_writer(kind, folder, step) for kind in kinds]
        self._finite = True
        if step:
            before.append({"step": step, "event": "going on"})
            _say(f"going on from step {step} of {steps}", stays=True)
        if before or self._steps.exists():
            _write(self._steps, before, _COLUMNS)

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Log a step of the training: the values of `_COLUMNS`. Raises InputError where steps.csv cannot be written.

        Warns of the first gradient of several that is not finite: such steps are left out."""
        finite = math.isfinite(values["gradient norm"])
        if self._finite and not finite:
            _logger.warning(
                "the gradient of step %d is not finite; such steps leave the weights as they were, and %s tells how "
                "many there are; a lower optimiser.learning_rate or precision=float32 may help",
                step,
                self._steps,
            )
        self._finite = finite
        row = {"step": step, **{name: f"{value:.6g}" for name, value in values.items()}}
        _append(self._steps, row, _COLUMNS)
        for writer in self._writers:
            writer.row(step, {f"train/{name}": value for name, value in values.items()})

    def row(self, values: Mapping[str, float]) -> None:
        """Log a validation: "step" and the values that were measured then. Columns may be new ones."""
        self._rows.append(dict(values))
        _write(self._path, self._rows)
        step, rest = int(values["step"]), {name: value for name, value in values.items() if name != "step"}
        for writer in self._writers:
            writer.row(step, rest)
        _say("  ".join(f"{name} {value:.4g}" for name, value in values.items()), stays=True)

    def show(self, step: int, pictures: Sequence[Picture]) -> None:
        """Log pictures (y, x, 3) uint8, of any sizes."""
        for writer in self._writers:
            writer.show(step, pictures)

    def progress(self, step: int, steps: int, loss: float, seconds: float, waiting: float) -> None:
        """Tell how far the run is, every `EVERY` steps.

        seconds: of a step, on average. waiting: the share of them in which the network waited for data.
        """
        if step % EVERY and step != steps:
            return
        left = seconds * (steps - step) / 60
        _say(
            f"step {step}/{steps}  loss {loss:.4f}  {seconds:.2f} s/step  {left:.0f} min left  "
            f"{100 * waiting:.0f} % waiting for data",
            stays=step == steps,
        )

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


class _TensorBoard:
    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def row(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()  # whoever looks sees it, also when the run is killed

    def show(self, step: int, pictures: Sequence[Picture]) -> None:
        for n, picture in enumerate(pictures):
            self._events.add_image(f"validation/{n}", picture, step, dataformats="HWC")
        self._events.flush()

    def close(self) -> None:
        self._events.close()


class _WeightsAndBiases:
    def __init__(self, folder: Path, step: int) -> None:
        import wandb

        options = folder / "options.json"
        self._picture = wandb.Image
        try:
            self._run = wandb.init(
                project="gadgetron-networks",
                name=folder.resolve().name,
                id=_identity(folder / "wandb.txt", step),
                resume="allow",
                dir=str(folder),
                config=json.loads(options.read_text(encoding="utf-8")) if options.exists() else None,
            )
        except wandb.errors.Error as error:
            text = " ".join(str(error).split())
            message = f"Weights & Biases does not start ({text}); WANDB_MODE=offline does without its server"
            raise InputError(message) from None

    def row(self, step: int, values: Mapping[str, float]) -> None:
        """Log a validation. W&B ignores steps that it has, which a run repeats after a checkpoint with the same
        values."""
        self._run.log(dict(values), step=step)

    def show(self, step: int, pictures: Sequence[Picture]) -> None:
        shown = {f"validation/{n}": self._picture(picture) for n, picture in enumerate(pictures)}
        self._run.log(shown, step=step)

    def close(self) -> None:
        self._run.finish()


def _writer(kind: str, folder: Path, step: int) -> _Writer:
    made: dict[str, Any] = {"tensorboard": _TensorBoard, "wandb": _WeightsAndBiases}
    if kind not in made:
        raise unknown("value of option log", kind, made)
    try:
        return made[kind](folder, step)
    except ModuleNotFoundError as error:
        raise InputError(
            f"option log: {kind} needs {error.name}, which is not installed: {install(EXTRAS[kind])}"
        ) from None


def _identity(path: Path, step: int) -> str:
    """The identity of the run, kept in a file. A new run gets a new one."""
    if step and path.exists():
        return path.read_text(encoding="utf-8").strip()
    write_text(path, identity := os.urandom(4).hex())
    return identity


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file, strict=True))
        if all(None not in row and row["step"].isdecimal() for row in rows):
            return rows
        reason = "its rows do not all have a step"
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = str(error)
    except KeyError:
        reason = "it has no column step"
    raise InputError(f"{path} is not the log of a run ({reason}); to go on, move it away")


def _write(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Write a table at once. columns: those that come first, also without a value."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, {name: None for row in ({}.fromkeys(columns), *rows) for name in row})
    table.writeheader()
    table.writerows(rows)
    write_text(path, text.getvalue())


def _append(path: Path, row: Mapping[str, Any], columns: Sequence[str]) -> None:
    """Add a row to a table, which need not be written anew for it. Raises InputError."""
    try:
        if not path.exists():
            _write(path, [], columns)
        with open(path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, columns).writerow(row)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def progress(done: int, total: int, what: str) -> None:
    """Tell on stderr how far a long command is: in a terminal each time, else every tenth of the way."""
    if sys.stderr.isatty():
        print(f"{done}/{total} {what}", end="\n" if done == total else "\r", file=sys.stderr, flush=True)
    elif done * 10 // total > (done - 1) * 10 // total:
        print(f"{done}/{total} {what}", file=sys.stderr, flush=True)


def _say(text: str, *, stays: bool) -> None:
    """Print a line. In a terminal the next one replaces it unless it `stays`."""
    terminal = sys.stdout.isatty()
    print(f"{text:<78}" if terminal else text, end="\r" if terminal and not stays else "\n", flush=True)
