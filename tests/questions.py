"""A stand-in for a device: it records what a host would ask one, send to it and launch on it, and in which function.

It counts on the processor, whose tensors it takes for those of a device.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import array_api_compat.torch
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mrnets.graphs import asks

__all__ = ["Seen", "seen"]

ROOT = Path(__file__).parents[1]
OURS = tuple(str(ROOT / name) for name in ("mrnets", "gadgets", "training"))
FETCHING = ("cpu", "tolist")
SENDING = ("as_tensor", "from_numpy", "tensor")


class Seen(TorchDispatchMode):
    """Counts questions, transfers and launches since `clear`. A place is "module.function" of this project."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        fetched = name == "to" and (kwargs or {}).get("non_blocking") and place() != "tensors.sent"
        if fetched or asks(func, args, kwargs or {}):
            self.asked[place()] += 1
        elif not _a_view(func):
            self.launches[place()] += 1
        return func(*args, **(kwargs or {}))


def _a_view(func: Any) -> bool:
    """Whether an operation computes nothing: its result has the memory of its argument, unchanged."""
    returned = func._schema.returns
    return any(r.alias_info is not None and not r.alias_info.is_write for r in returned)


def place() -> str:
    """The function of this project that is running."""
    frame = sys._getframe(1)
    while frame is not None and not _ours(frame.f_code.co_filename):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None:
        return "tests"
    return f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"


def _ours(file: str) -> bool:
    """Whether a file is of this project, and not the one whose functions do such things for all others."""
    return file.startswith(OURS) and not file.endswith("arrays.py")


@contextmanager
def seen() -> Iterator[Seen]:
    """Record what this thread does with torch."""
    found = Seen()
    with ExitStack() as stack:
        for name in FETCHING:
            _watched(stack, torch.Tensor, name, found.asked)
        for name in SENDING:
            _watched(stack, torch, name, found.sent)
        _watched(stack, array_api_compat.torch, "asarray", found.sent)
        stack.enter_context(found)
        yield found


def _watched(stack: ExitStack, owner: Any, name: str, counts: Counter[str]) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    def watched(*args: Any, **options: Any) -> Any:
        if owner is torch.Tensor or not isinstance(args[0], torch.Tensor):
            counts[place()] += 1
        return original(*args, **options)

    stack.enter_context(mock.patch.object(owner, name, watched))
