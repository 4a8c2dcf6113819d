"""Seconds that a GPU computes: every kernel and copy, as CUPTI counts them. The host waits for it once, at the end.

Events of CUDA around a gadget would count the pauses between its kernels, too. Those are most of the time where the
host is slower than the device.
Source: PyTorch, torch.autograd.profiler (Kineto); NVIDIA, CUPTI, activity API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

__all__ = ["Piece", "pieces", "traced"]


@dataclass(frozen=True)
class Piece:
    """One kernel or copy of a GPU."""

    sent: int
    """When the host gave it to the GPU, in nanoseconds as `time.time_ns` counts them."""
    seconds: float


@contextmanager
def traced() -> Iterator[Callable[[], list[Piece]] | None]:
    """Count what GPUs do in the block. Give the function that ends it, and returns what they did.

    Give None where there is no GPU, no torch, or a torch before 2.4, which counts otherwise."""
    profile = _profiler()
    if profile is None:
        yield None
        return
    with ExitStack() as stack:
        counting = stack.enter_context(profile(use_device="cuda", use_cpu=False, use_kineto=True))

        def ended() -> list[Piece]:
            stack.close()
            return pieces(counting.kineto_results.events())

        yield ended


def _profiler() -> Any:
    """Return torch's profiler, or None where it cannot count what a GPU does."""
    try:
        import torch
        from torch.autograd.profiler import profile
    except ImportError:
        return None
    event = getattr(torch.autograd, "_KinetoEvent", None)
    tells = hasattr(event, "start_ns") and hasattr(event, "is_user_annotation")
    return profile if torch.cuda.is_available() and tells else None


def pieces(events: Iterable[Any]) -> list[Piece]:
    """Return the work of GPUs among Kineto's events.

    A call of the host and what it sent have the same correlation number. A CUDA graph is one call and many kernels.
    Work whose call is not known was sent when it began, at the latest. A name that a program gives to a part of its
    work stands among the events, too, with the time of all kernels of that part."""
    work, calls = [], {}
    for event in events:
        if event.is_user_annotation():
            continue
        if event.device_type().name == "CUDA":
            work.append(event)
        else:
            calls[event.correlation_id()] = event.start_ns()
    return [Piece(calls.get(e.correlation_id(), e.start_ns()), e.duration_ns() / 1e9) for e in work]
