"""Checkpoints: the state of a run in a file with a checksum, read without pickle's code.

A file is what `torch.save` writes, and behind it a line with the SHA-256 of that.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch

from mrnets import store
from mrnets.errors import InputError
from mrnets.files import Draft, whole
from training import optimisers
from training.options import Options
from training.run import Run

__all__ = ["content", "difference", "kept", "read", "restore", "save", "write"]

NAME = "checkpoint.pt"
_START = b"\nmrnets checkpoint, sha256 "
_LINE = len(_START) + 64
_FREE = {
    "weights",
    "folder",
    "data",
    "licence",
    "seen",
    "validation",
    "steps",
    "epochs",
    "save_every",
    "workers",
    "threads",
}
_FREE |= {"log", "log_every", "device", "compile", "graphs", "kernels", "early", "compare"}
"""Options that may change within a run."""


def save(folder: Path, options: Options, run: Run) -> None:
    """Write the whole state of a run. Raises InputError; then the checkpoint before it is kept."""
    state = {
        "step": run.step,
        "network": run.network.state_dict(),
        "average": run.average.state_dict(),
        "optimiser": run.optimiser.state_dict(),
        "scaler": run.scaler.state_dict(),
        "early": [run.best, run.since, options.early.metric],
        "losses": run.losses,
        "options": json.dumps(kept(options)),
    }
    write(folder / NAME, state)


def content(folder: Path) -> bytes:
    """Return the checkpoint of a folder, whose checksum is right; nothing without one. Raises InputError."""
    path = folder / NAME
    return _checked(path) if path.exists() else b""


def restore(data: bytes, folder: Path, options: Options, run: Run) -> None:
    """Bring a run to the state of the checkpoint of a folder, as `content` gives it; not without one.

    Raises InputError where the checkpoint was made with options that may not change within a run.
    """
    path = folder / NAME
    if not data:
        return
    state = _loaded(data, path, "cpu")
    try:
        before = _kept(json.loads(state["options"]))
        if changed := difference(before, kept(options)):
            raise InputError(f"{path} was made with another {changed}; to start anew, choose another folder")
        run.network.load_state_dict(state["network"])
        run.average.load_state_dict(state["average"])
        optimisers.restore(run.optimiser, state["optimiser"])
        if state["scaler"]:  # earlier versions had one for float16 only
            run.scaler.load_state_dict(state["scaler"])
        run.step, run.losses, (best, since, *metric) = state["step"], state["losses"], state["early"]
        if not metric or metric == [options.early.metric]:  # values of another metric tell nothing
            run.best, run.since = best, since
    except (KeyError, TypeError, RuntimeError):
        raise _foreign(path) from None


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values as a file with a checksum. Raises InputError; then the file before it is kept."""
    with whole(path, f"the {path.name} before it is kept" if path.exists() else "") as file:
        hashed = _Hashed(file)
        torch.save(dict(state), cast("IO[bytes]", hashed))
        file.write(_START + hashed.digest.hexdigest().encode())


def read(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return the state that `write` wrote, its tensors on `device`.

    Raises InputError where the file cannot be read, was cut short or changed, or is of another program.
    """
    return _loaded(_checked(path), path, device)


def _checked(path: Path) -> bytes:
    """The bytes that `torch.save` wrote. Raises InputError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    data, line = content[:-_LINE], content[-_LINE:]
    if line != _START + hashlib.sha256(data).hexdigest().encode():
        raise InputError(f"{path} is damaged: its checksum is absent or wrong; to start anew, remove it")
    return data


def _loaded(data: bytes, path: Path, device: torch.device | str) -> dict[str, Any]:
    try:
        state = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    except Exception:  # noqa: BLE001 torch advises to load the file with pickle, which nobody should
        raise _foreign(path) from None
    if not isinstance(state, dict):
        raise _foreign(path)
    return state


def _foreign(path: Path) -> InputError:
    return InputError(f"{path} is not a checkpoint of this version of the program; to start anew, remove it")


class _Hashed:
    """A file to write, which takes the checksum of what goes through."""

    def __init__(self, file: Draft) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def kept(options: Options) -> dict[str, Any]:
    """Return the options that may not change within a run, as JSON has them. The network's are complete."""
    return _kept(dataclasses.asdict(options))


def _kept(options: Mapping[str, Any]) -> dict[str, Any]:
    network = options["network"]
    bound = {**network, "options": store.bind(network["name"], **network["options"])}
    every: dict[str, Any] = json.loads(json.dumps({**options, "network": bound}))
    return {name: value for name, value in every.items() if name not in _FREE}


def difference(before: Any, now: Any) -> str:
    """Return the first option that differs, as "loss.ssim (0.9, now 0.5)"; empty where none does."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return "" if before == now else f" ({json.dumps(before)}, now {json.dumps(now)})"
    for name in {**before, **now}:
        if inner := difference(before.get(name), now.get(name)):
            return f"{name}{inner}" if inner.startswith(" ") else f"{name}.{inner}"
    return ""
