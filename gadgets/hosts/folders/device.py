"""One GPU for each process: those that work on one machine take different ones, as long as there are enough."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import tempfile
from pathlib import Path

__all__ = ["take_device", "taken"]

VISIBLE = "CUDA_VISIBLE_DEVICES"
_held: list[int] = []
"""Descriptors of locked files. The locks last as long as the process."""


def take_device() -> None:
    """Let this process see one GPU alone: one that no other process has taken, or else a shared one.

    It is taken once, before CUDA starts in the process. Without GPUs nothing happens."""
    devices = [] if _held else _devices()
    if len(devices) > 1:
        os.environ[VISIBLE] = taken(devices, Path(tempfile.gettempdir()))


def _devices() -> list[str]:
    """Return the GPUs that this process may use."""
    given = os.environ.get(VISIBLE)
    if given is not None:
        return [name for name in given.split(",") if name]
    if not any(Path("/dev").glob("nvidia[0-9]*")) or importlib.util.find_spec("torch") is None:
        return []
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def taken(devices: list[str], folder: Path) -> str:
    """Return the first of the devices whose lock in `folder` is free, and hold it. Where none is, share one."""
    for name in devices:
        path = folder / f"gadgetron-networks-{os.getuid()}-gpu-{name.replace('/', '-')}.lock"
        try:
            number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            continue
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(number)
            continue
        _held.append(number)
        return name
    return devices[os.getpid() % len(devices)]
