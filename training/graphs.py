"""Gradients as CUDA graphs: the launches of forward pass, loss and backward pass are recorded once, and replayed.

A graph reads its batch, and writes loss and gradients, where they lay when it was recorded. So it belongs to one form
of batches: which arrays there are, of which shape and type. See `mrnets.graphs`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from mrnets.graphs import Questions, Recorded, recorded
from mrnets.physics.fourier import resize
from mrnets.tensors import lacks_memory
from training.batches import mapped
from training.data import Example

__all__ = ["Gradient", "GradientGraphs"]

Gradient: TypeAlias = Callable[[Example], Tensor]
"""Adds the gradient of a batch to that of the parameters, and returns its loss."""

Made: TypeAlias = tuple[Tensor, list[tuple[nn.Parameter, Tensor]]]
"""The loss of a batch, and the gradient of each parameter that has one."""

MOST, MOST_SEEN = 8, 1000
"""Forms of batches that have graphs, the first ones that come twice, and those that are known."""
TRIES = 4
"""Batches of a form whose gradient may be infinite, as the first ones of float16, before it stays without a graph."""
SHARE = 0.5
"""Part of the device's memory that graphs may take together."""
TOLERANCE, NOISE = 1e-3, 4.0
"""Largest distance of a replayed gradient from the plain one with which a graph is used. The first is relative to the
norm of the plain one, the second to the distance of two plain ones; the larger one counts. A device adds in another
order each time."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Graph:
    example: Example
    """The batch in the memory that the graph reads."""
    recorded: Recorded[Made]


class GradientGraphs:
    """The graphs of a network that learns: one for each of the first forms of batches that come twice.

    The first batch of a form is computed plainly. A graph is used only if it gave the loss and the gradient of the
    plain computation. It is tried with a batch, and with that batch upside down. Where it did not, or could not be
    recorded, batches are computed plainly, and the log says why.
    """

    def __init__(
        self,
        network: nn.Module,
        recorder: Callable[[Callable[[], Made], torch.device], Recorded[Made]] | None = None,
        *,
        most: int = MOST,
        memory: int | None = None,
    ) -> None:
        """recorder: a stand-in for `recorded`. memory: bytes that graphs may hold; None: `SHARE` of the device."""
        self._network, self._most, self._memory = network, most, memory
        self._recorder = recorder or functools.partial(recorded, pool=torch.cuda.graph_pool_handle())
        self._graphs: dict[str, _Graph] = {}
        self._tries: dict[str, int] = {}
        """Forms that have come, and how many more of their batches may be tried."""
        self._name: object = None
        self._told: set[str] = set()

    def run(self, gradient: Gradient, example: Example, name: object, seed: Callable[[], None]) -> Tensor:
        """Do as `gradient` does after `seed`, which sets torch's random numbers.

        The same name means the same computation: what another one recorded is forgotten.
        """
        if name != self._name:
            self._graphs, self._tries, self._name = {}, {}, name
        form = _form(_even(example))
        if form not in self._graphs and self._due(form):
            self._make(gradient, example, form, seed)
        graph = self._graphs.get(form)
        if graph is None:
            return self._plainly(gradient, example, seed)
        seed()
        return _replayed(graph, example, self._network)

    def _plainly(self, gradient: Gradient, example: Example, seed: Callable[[], None]) -> Tensor:
        """As `gradient` does. Where memory does not suffice, that of the graphs is given back."""
        seed()
        if not self._graphs:
            return gradient(example)
        gradients = [(p, None if p.grad is None else p.grad.clone()) for p in self._network.parameters()]
        buffers = [(b, b.clone()) for b in self._network.buffers()]
        try:
            return gradient(example)
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            self._graphs.clear()
            for form in self._tries:
                self._without(form, "memory does not suffice for them and the other forms")
        _put_back(gradients, buffers)
        seed()
        return gradient(example)

    def _due(self, form: str) -> bool:
        """Whether batches of this form came before and may have a graph."""
        if form not in self._tries:
            if len(self._tries) < MOST_SEEN:
                self._tries[form] = TRIES
            return False
        return self._tries[form] > 0

    def _make(self, gradient: Gradient, example: Example, form: str, seed: Callable[[], None]) -> None:
        """Keep a graph of this form, if it can be had and gives the right gradient."""
        self._tries[form] -= 1
        if len(self._graphs) >= self._most:
            self._without(form, f"{self._most} other forms have one")
            return
        with _fastest():
            self._try(gradient, example, form, seed)

    def _try(self, gradient: Gradient, example: Example, form: str, seed: Callable[[], None]) -> None:
        own, device = mapped(_even(example), lambda x: x.clone()), example.weight.device
        work = functools.partial(self._computed, gradient, own)
        try:
            with Questions() as questions, self._undone():
                work()
            if questions.found:
                self._without(form, f"the step asks the host ({', '.join(questions.found)})")
                return
            with self._undone():
                graph = _Graph(own, self._recorder(work, device))
            distances = [self._distance(graph, gradient, x, seed) for x in (example, mapped(example, _turned))]
            apart, noise = (max(each) for each in zip(*distances, strict=True))
        except Exception as error:  # noqa: BLE001 whatever it fails by, the plain step is there
            self._without(form, " ".join(str(error).split())[:200] or type(error).__name__)
            return
        held, limit = sum(one.recorded.bytes for one in (*self._graphs.values(), graph)), self._limit(device)
        if held > limit:
            self._without(form, f"graphs would take {held >> 20} MiB, and {limit >> 20} are allowed")
        elif apart > max(TOLERANCE, NOISE * noise):
            self._without(
                form, f"its gradient is {apart:.1g} from that of the plain step, and two of these {noise:.1g}"
            )
        elif math.isfinite(apart):
            self._graphs[form] = graph
        elif not self._tries[form]:
            self._without(form, "its gradient is infinite")

    def _without(self, form: str, reason: str) -> None:
        self._tries[form] = 0
        if reason not in self._told:
            self._told.add(reason)
            _logger.warning("no CUDA graph for a form of batches: %s", reason)

    def _computed(self, gradient: Gradient, example: Example) -> Made:
        for parameter in self._network.parameters():
            parameter.grad = None
        value = gradient(example)
        return value, [(p, p.grad) for p in self._network.parameters() if p.grad is not None]

    def _distance(
        self, graph: _Graph, gradient: Gradient, example: Example, seed: Callable[[], None]
    ) -> tuple[float, float]:
        """The distances of a replay and of a second plain computation from a first one; infinite where these are."""
        with self._undone():
            _copy(example, graph.example)
            seed()
            graph.recorded.replay()
            mine = _outcome(graph.recorded.made)
        plain = []
        for _ in range(2):
            with self._undone():
                seed()
                plain.append(_outcome(self._computed(gradient, example)))
        return _apart(mine, plain[0]), _apart(plain[1], plain[0])

    @contextlib.contextmanager
    def _undone(self) -> Iterator[None]:
        """Leave gradients and buffers of the network as they were."""
        gradients = [(p, p.grad) for p in self._network.parameters()]
        buffers = [(b, b.clone()) for b in self._network.buffers()]
        try:
            yield
        finally:
            _put_back(gradients, buffers)

    def _limit(self, device: torch.device) -> int:
        if self._memory is not None:
            return self._memory
        return int(SHARE * torch.cuda.get_device_properties(device).total_memory)


def _put_back(
    gradients: Sequence[tuple[nn.Parameter, Tensor | None]], buffers: Sequence[tuple[Tensor, Tensor]]
) -> None:
    for parameter, before in gradients:
        parameter.grad = before
    for buffer, value in buffers:
        buffer.copy_(value)


def _even(example: Example) -> Example:
    """`example` with calibration lines zero-filled to the whole of k-space, as networks do that take them.

    Their number differs from mask to mask. It makes no form of its own then.
    """
    kspace, calibration = example.scan.kspace, example.scan.calibration
    if kspace is None or calibration is None:
        return example
    filled = resize(calibration, tuple(kspace.shape[-2:]))
    return dataclasses.replace(example, scan=dataclasses.replace(example.scan, calibration=filled))


def _form(example: Example) -> str:
    """The properties that all batches of one graph share."""
    nameless = dataclasses.replace(example, names=(), places=())
    return repr(mapped(nameless, lambda x: (tuple(x.shape), str(x.dtype), str(x.device))))


def _turned(x: Tensor) -> Tensor:
    return x.flip(-2) if x.ndim > 2 else x


def _replayed(graph: _Graph, example: Example, network: nn.Module) -> Tensor:
    value, gradients = graph.recorded.made
    # Gradients of an earlier part of the step. A replay may overwrite all of them: graphs share their memory.
    before = {p: p.grad.clone() for p in network.parameters() if p.grad is not None}
    _copy(example, graph.example)
    graph.recorded.replay()
    for parameter, held in before.items():
        parameter.grad = held
    for parameter, gradient in gradients:
        parameter.grad = before[parameter] + gradient if parameter in before else gradient
    return value.clone()


def _copy(example: Example, own: Example) -> None:
    for mine, given in zip(_tensors(own), _tensors(_even(example)), strict=True):
        mine.copy_(given, non_blocking=True)


def _tensors(example: Example) -> list[Tensor]:
    found: list[Tensor] = []
    mapped(example, found.append)
    return found


def _outcome(made: Made) -> list[Tensor]:
    value, gradients = made
    return [value.clone(), *(gradient.clone() for _, gradient in gradients)]


def _apart(mine: Sequence[Tensor], plain: Sequence[Tensor]) -> float:
    """The larger of the distances of loss and gradient, relative to the plain ones."""
    norm = torch.linalg.vector_norm

    def size(values: Sequence[Tensor]) -> Tensor:
        return norm(torch.stack([norm(value) for value in values]))

    differences = [x - y for x, y in zip(mine, plain, strict=True)]
    parts = [(differences[:1], plain[:1]), (differences[1:], plain[1:])]
    distance = float(torch.stack([size(change) / size(whole) for change, whole in parts]).amax())
    return distance if math.isfinite(distance) else math.inf


@contextlib.contextmanager
def _fastest() -> Iterator[None]:
    """Let cuDNN try its algorithms. It then keeps the fastest one of each convolution; its own choice is far off."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
