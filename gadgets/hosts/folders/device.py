"""One GPU for each process: those that work on one machine take different ones, as long as there are enough."""

from __future__ import annotations

import atexit
import importlib.util
import os
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from mrnets.errors import InputError
from mrnets.files import reserved

__all__ = ["take_device", "taken"]

VISIBLE = "CUDA_VISIBLE_DEVICES"
_held = ExitStack()
"""Locks of devices, which last as long as the process."""
atexit.register(_held.close)


def take_device() -> None:
    """Let this process see one GPU alone: one that no other process has taken, or else a shared one.

    It is taken before CUDA starts in the process, and then it is the only one that can be taken. Without GPUs nothing
    happens."""
    devices = _devices()
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
    """Return the first of the devices that no other process holds, and hold it. Where there is none, share one."""
    for name in devices:
        with suppress(InputError):
            path = folder / f"gadgetron-networks-{os.getuid()}-gpu-{name.replace('/', '-')}"
            _held.enter_context(reserved(path))
            return name
    return devices[os.getpid() % len(devices)]
