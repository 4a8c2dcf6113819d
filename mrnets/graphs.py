"""Networks as CUDA graphs: the launches of one run are recorded once, and a single one replays them.

A graph reads its input and writes its result where they lay when it was recorded. So it has copies of both, and belongs
to one form of scans: which arrays there are, of which shape and type. While it is recorded the host may ask the device
nothing and send it nothing. See PyTorch's notes on CUDA semantics, section "CUDA Graphs".
"""

from __future__ import annotations

import dataclasses
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mrnets.contract import Estimate, Scan

__all__ = ["Forward", "Graphs", "Questions", "Recorded", "agree", "asks", "form_of", "recorded", "shows"]

Forward: TypeAlias = Callable[[Scan], Estimate]
Made = TypeVar("Made")

MOST, MOST_SEEN = 8, 256
"""Forms of scans whose graphs are kept, and those that are known: the ones used longest ago go first."""
SHARE = 0.25
"""Part of the device's memory that graphs may take together."""
TOLERANCE = 1e-4
"""Distance of a replay from the plain run, relative to the norm of that, from which on a graph is not used."""
WARM_UPS = 2
"""Runs before the recording, on its stream: libraries make their plans and take their memory then."""

_recording = threading.Lock()
_failed = threading.Event()
"""Set after a recording that failed while it ran: no more are tried."""

_ASKING = frozenset(("_local_scalar_dense", "item", "is_nonzero", "equal"))
_SIZING = frozenset(("nonzero", "masked_select", "_unique2", "unique_dim", "_linalg_check_errors"))
_INDEXING = frozenset(("index", "index_put", "index_put_", "_index_put_impl_"))
_COPYING = frozenset(("_to_copy", "copy_"))
_FROM_HOST = frozenset(("lift_fresh",))
"""The end of `torch.tensor`, which is all of it that can be seen."""

_logger = logging.getLogger(__name__)


def asks(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the host waits for its device in this operation of torch, as for a value, or sends it something."""
    name = func.overloadpacket.__name__
    if name in _INDEXING:
        there = [index for index in args[1] if index is not None]
        return any(index.dtype == torch.bool or index.device != args[0].device for index in there)
    if name in _FROM_HOST:
        return bool(args[0].device.type != "cpu")
    return name in _ASKING or name in _SIZING or _moves(name, args, kwargs)


def _moves(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an operation brings values from one device to another."""
    copies = name in _COPYING  # in any other operation a single number is no transfer
    places = {x.device.type for x in args if isinstance(x, Tensor) and (x.ndim or copies)}
    wanted = kwargs.get("device")
    if wanted is not None and places:
        places.add(torch.device(wanted).type)
    return len(places) > 1


class Questions(TorchDispatchMode):
    """Names of the operations in which this thread waits for its device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if asks(func, args, kwargs or {}):
            self.found[func.overloadpacket.__name__] = None
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Recorded(Generic[Made]):
    """A run that was recorded."""

    replay: Callable[[], None]
    made: Made
    """The result, which each replay writes anew."""
    bytes: int
    """Memory that it holds."""


def recorded(work: Callable[[], Made], device: torch.device, pool: Any = None) -> Recorded[Made]:
    """Return `work` as a CUDA graph. Raises RuntimeError where it cannot be recorded.

    pool: memory that graphs share which never run at the same time (`torch.cuda.graph_pool_handle`). A replay of one
    may overwrite the results of the others. None: memory of its own.
    """
    # Only one thread of a process may record: torch waits for the whole device before, which ends what others record.
    with _recording, torch.cuda.device(device):
        if _failed.is_set():
            raise RuntimeError("an earlier recording of this process failed")
        current, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(current)
        try:
            # torch leaves the stream of a recording only where that ends well.
            with torch.cuda.stream(aside):
                for _ in range(WARM_UPS):
                    work()
                return _captured(work, aside, pool or torch.cuda.graph_pool_handle())
        finally:
            current.wait_stream(aside)


def _captured(work: Callable[[], Made], stream: torch.cuda.Stream, pool: Any) -> Recorded[Made]:
    """Return the graph of `work` on the current stream, after its warm-ups there."""
    graph = torch.cuda.CUDAGraph()
    try:
        # Other threads of a server may take memory meanwhile, which only this one must not.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            before = torch.cuda.memory_reserved()  # torch has given back what the warm-ups left
            made = work()
    except BaseException:
        # torch keeps the memory of each recording that fails. Before 2.13 it also thinks that it still runs, and never
        # uses memory again that was used on two streams: see pull request 180395 of pytorch.
        _failed.set()
        with suppress(Exception):
            torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
        raise
    return Recorded(graph.replay, made, max(torch.cuda.memory_reserved() - before, 0))


class Graphs:
    """The graphs of a network: one for each form of scans that has come twice.

    The first scan of a form is run plainly. A graph is used only if it gave what the plain run gives, for a scan and
    for another one of the same form. Where it did not, or could not be recorded, scans are run plainly. The log says
    so once. Threads take turns.
    """

    def __init__(
        self,
        recorder: Callable[[Callable[[], Estimate], torch.device], Recorded[Estimate]] = recorded,
        *,
        most: int = MOST,
        memory: int | None = None,
    ) -> None:
        """recorder: `recorded`, or a stand-in. memory: bytes that all graphs may hold; None: `SHARE` of the device."""
        self._recorder, self._most, self._memory = recorder, most, memory
        self._graphs: OrderedDict[Hashable, tuple[Scan, Recorded[Estimate]]] = OrderedDict()
        self._seen: OrderedDict[Hashable, bool] = OrderedDict()
        """Forms that have come, and whether a graph may be made of them."""
        self._lock = threading.Lock()

    def run(self, forward: Forward, scan: Scan, name: Hashable) -> Estimate:
        """Return `forward(scan)`, without `steps`. The same name means the same computation."""
        form = (name, form_of(scan))
        with self._lock, torch.inference_mode():
            if form not in self._graphs and self._seen.get(form):
                self._make(forward, scan, form)
            known = self._graphs.get(form)
            if known is not None:
                self._graphs.move_to_end(form)
                return _replayed(*known, scan)
            self._seen.setdefault(form, True)
            while len(self._seen) > MOST_SEEN:
                self._seen.popitem(last=False)
        with torch.inference_mode():
            return forward(scan)

    def clear(self) -> bool:
        """Give the memory of all graphs back. Returns whether there were any."""
        with self._lock:
            some = bool(self._graphs)
            self._graphs.clear()
        return some

    def _make(self, forward: Forward, scan: Scan, form: Hashable) -> None:
        """Keep a graph of this form, if it can be had and gives the right images."""
        self._seen[form] = False  # until it is known to be good
        forward(scan)  # what is found out once, as whether kernels are right (`mrnets.proved`), asks the host
        with Questions() as questions:
            plain = forward(scan)
        if not shows(plain):
            self._seen[form] = True
            return
        if questions.found:
            _logger.info("no CUDA graph: the network asks the host (%s)", ", ".join(questions.found))
            return
        own = _changed(scan, lambda name, x: x.clone())
        device = next(_tensors(scan)).device
        try:
            made = self._recorder(lambda: forward(own), device)
            other = _changed(scan, _other)
            good = agree(_replayed(own, made, scan), plain) and agree(_replayed(own, made, other), forward(other))
        except Exception as error:  # noqa: BLE001 whatever it fails by, the plain run is there
            _logger.warning("no CUDA graph: %s", " ".join(str(error).split())[:200] or type(error).__name__)
            return
        if not good:
            _logger.warning("no CUDA graph: its images differ from those of the plain run")
            return
        limit = self._limit(device)
        if made.bytes > limit:
            _logger.warning("no CUDA graph: it takes %d MiB, and %d are allowed", made.bytes >> 20, limit >> 20)
            return
        self._seen[form] = True
        self._graphs[form] = own, made
        while len(self._graphs) > self._most or sum(one.bytes for _, one in self._graphs.values()) > limit:
            self._graphs.popitem(last=False)

    def _limit(self, device: torch.device) -> int:
        if self._memory is not None:
            return self._memory
        return int(SHARE * torch.cuda.get_device_properties(device).total_memory)


def form_of(scan: Scan) -> Hashable:
    """Return the properties that all scans of one graph share: which arrays there are, of which shape and type."""
    arrays = ((f.name, getattr(scan, f.name)) for f in dataclasses.fields(scan))
    return tuple((name, tuple(x.shape), x.dtype, str(x.device)) for name, x in arrays if x is not None)


def _changed(scan: Scan, change: Callable[[str, Tensor], Tensor]) -> Scan:
    arrays = {f.name: getattr(scan, f.name) for f in dataclasses.fields(scan)}
    return Scan(**{name: None if x is None else change(name, x) for name, x in arrays.items()})


def _other(name: str, x: Tensor) -> Tensor:
    """An array of another scan: upside down, and with half the signal and noise."""
    turned = x.flip(-2) if x.ndim > 2 else x
    return turned if name in ("mask", "sens", "echo_times") else turned * 0.5


def _replayed(own: Scan, graph: Recorded[Estimate], scan: Scan) -> Estimate:
    for mine, given in zip(_tensors(own), _tensors(scan), strict=True):
        mine.copy_(given, non_blocking=True)
    graph.replay()
    made = graph.made
    image, unweighted, logits = (None if x is None else x.clone() for x in _images(made))
    maps = {name: x.clone() for name, x in made.maps.items()}
    return Estimate(image=image, unweighted=unweighted, logits=logits, maps=maps)


def _tensors(scan: Scan) -> Iterator[Tensor]:
    yield from (x for f in dataclasses.fields(scan) if (x := getattr(scan, f.name)) is not None)


def _images(estimate: Estimate) -> tuple[Any, Any, Any]:
    return estimate.image, estimate.unweighted, estimate.logits


def shows(estimate: Estimate) -> bool:
    """Return whether another way can be compared by an estimate: it is finite, and not zero everywhere."""
    arrays = (estimate.image, estimate.logits, *estimate.maps.values())
    return 0 < sum(float(torch.linalg.vector_norm(x)) for x in arrays if x is not None) < math.inf


def agree(one: Estimate, other: Estimate, tolerance: float = TOLERANCE) -> bool:
    """Return whether all arrays of two estimates agree to within `tolerance`, relative to the norm of the second."""
    pairs = [(one.maps[name], x) for name, x in other.maps.items()]
    pairs += [(x, y) for x, y in zip(_images(one), _images(other), strict=True) if x is not None]
    norm = torch.linalg.vector_norm
    return all(bool(norm(x - y) <= tolerance * norm(y)) for x, y in pairs)
