"""Seconds and memory of the gadgets of a chain, measured while it runs.

Gadgets run one in another. At each moment one of them runs itself, and what passes is counted for that one. Work of a
GPU counts for the gadget that ran when the host sent it there.
"""

from __future__ import annotations

import re
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gadgets.kernels import Piece
from mrnets.mrd.lines import Item

__all__ = ["OUTSIDE", "Profile", "Step"]

OUTSIDE = "the rest"
"""The name of the step outside the gadgets: the host reads the scan and writes the images."""
_PEAK = re.compile(rb"VmHWM:\s*(\d+) kB")


@dataclass
class Step:
    """Time and memory of one gadget."""

    seconds: float = 0.0
    busy: float = 0.0
    """Seconds of all processors that the process took while the gadget ran."""
    memory: int = 0
    """Most memory of the whole process while the gadget ran, in bytes; 0 where the system does not tell it."""
    device: float = 0.0
    """Seconds in which a GPU computed or copied what the gadget sent it. Work in two streams at a time counts twice."""
    device_memory: int = 0
    """Most memory of torch on the GPU while the gadget ran, in bytes."""

    @property
    def waiting(self) -> float:
        """Seconds, at least, in which the process computed nothing: it waited for a disk, a peer, a GPU or a turn."""
        return max(self.seconds - self.busy, 0.0)


@dataclass
class Profile:
    """Time and memory of each gadget of a chain. `timed` is the `watch` of `gadgets.chain.Chain.run`.

    It does not wait for a GPU. A gadget that asks one waits for what others sent there, as without the profile."""

    clock: Callable[[], float] = time.perf_counter
    processors: Callable[[], float] = time.process_time
    now: Callable[[], int] = time.time_ns
    work: Callable[[], Iterable[Piece]] | None = None
    """Returns what a GPU did; see `gadgets.kernels.traced`. It is asked once. None: nobody counts it."""
    steps: dict[str, Step] = field(default_factory=lambda: {OUTSIDE: Step()})

    def __post_init__(self) -> None:
        self._running = OUTSIDE
        self._marks, self._names = [self.now()], [OUTSIDE]  # which gadget ran from when on
        _forget_peak()
        self._since, self._busy = self.clock(), self.processors()

    def timed(self, name: str, items: Iterator[Item]) -> Iterator[Item]:
        """Yield `items`, which the gadget `name` makes, and count what making them takes."""
        self.steps.setdefault(name, Step())
        while True:
            before = self._switch(name)
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self._switch(before)
            yield item

    def rows(self) -> Iterator[tuple[str, Step]]:
        """Return the name of each gadget, in the order of the chain, and what it took until now.

        What a GPU does after the first call counts no more."""
        self._switch(self._running)
        work, self.work = self.work, None
        for piece in work() if work else ():
            ran = max(bisect_right(self._marks, piece.sent) - 1, 0)
            self.steps[self._names[ran]].device += piece.seconds
        return reversed(self.steps.items())  # the last gadget asks the others for items

    def table(self) -> Iterator[str]:
        """Yield the lines of a table: a head, one line for each gadget in the order of the chain.

        A last line says where no GPU computed, and where nobody knows."""
        rows = list(self.rows())
        yield f"{'gadget':<20} {'seconds':>8} {'waiting':>8} {'GPU time':>8} {'memory':>9} {'GPU memory':>10}"
        for name, step in rows:
            device = f"{step.device:>8.3f}" if step.device else f"{'-':>8}"
            times = f"{name:<20} {step.seconds:>8.2f} {step.waiting:>8.2f} {device}"
            yield f"{times} {_shown(step.memory)} {_shown(step.device_memory):>10}"
        if not any(step.device for _, step in rows):
            yield "The GPU time was not measured." if self.on_gpu else "No gadget computed on a GPU."

    @property
    def on_gpu(self) -> bool:
        """Whether a gadget has used memory of a GPU."""
        return any(step.device_memory for step in self.steps.values())

    def _switch(self, name: str) -> str:
        """Count what passed for the gadget that ran. `name` runs from now on. Return the name of the one that ran."""
        step, before = self.steps[self._running], self._running
        step.device_memory = max(step.device_memory, _peak_on_gpu())
        now, busy = self.clock(), self.processors()
        step.seconds += now - self._since
        step.busy += busy - self._busy
        step.memory = max(step.memory, _peak())
        _forget_peak()
        if self.work is not None:
            self._marks.append(self.now())
            self._names.append(name)
        self._running, self._since, self._busy = name, now, busy
        return before


def _shown(size: int) -> str:
    return f"{size / 2**20:>6.0f} MB" if size else f"{'-':>9}"


def _peak() -> int:
    """Return the most resident memory since `_forget_peak`, in bytes; 0 where the system does not tell it."""
    try:
        found = _PEAK.search(Path("/proc/self/status").read_bytes())
    except OSError:
        return 0
    return int(found[1]) << 10 if found else 0


def _forget_peak() -> None:
    """Let the count of the peak begin again. Source: Linux, proc(5), clear_refs."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_on_gpu() -> int:
    """Return the most memory of torch's tensors on the GPU since the last call, in bytes; of several GPUs, the most."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    devices = range(torch.cuda.device_count())
    peak = max((int(torch.cuda.max_memory_allocated(device)) for device in devices), default=0)
    for device in devices:
        torch.cuda.reset_peak_memory_stats(device)
    return peak
