"""Faults inside: gadgets that raise, networks that give nonsense, disks. Each is a context in which a case runs."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from unittest import mock

import numpy as np
import torch

from gadgets import chain, estimate
from gadgets.gadget import Gadget, lookup
from mrnets.contract import Estimate
from tests.faults import hosts
from tests.faults.sound import NAMES, TRAINED

Inside = Callable[[np.random.Generator], AbstractContextManager[None]]

EXCEPTIONS = (
    ValueError("a value"),
    ZeroDivisionError("division"),
    KeyError("a key"),
    MemoryError("no memory"),
    RuntimeError("of a library\nin two lines"),
    OSError("of a disk"),
    np.linalg.LinAlgError("singular"),
    AssertionError(),
    RecursionError("too deep"),
    StopIteration(),
)


@contextmanager
def broken_gadget(rng: np.random.Generator) -> Iterator[None]:
    """A gadget of the chain raises after some items."""
    name, after = rng.choice(NAMES), int(rng.integers(4))
    error = EXCEPTIONS[rng.integers(len(EXCEPTIONS))]

    def breaking(given: str) -> Gadget:
        sound = lookup(given)
        if given != name:
            return sound

        def function(stream, header, **options):
            for n, item in enumerate(sound.function(stream, header, **options)):
                if n == after:
                    raise error
                yield item
            raise error

        return replace(sound, function=function)

    with mock.patch.object(chain, "lookup", breaking):
        yield


def _image(make: Callable[[torch.Tensor, np.random.Generator], torch.Tensor]) -> Callable[..., Estimate]:
    return lambda made, rng: Estimate(image=make(made.image, rng))


NONSENSE: dict[str, Callable[[Estimate, np.random.Generator], object]] = {
    "NaN": _image(lambda x, _: x * float("nan")),
    "one NaN": _image(lambda x, _: torch.where(torch.arange(x.shape[-1]) == 3, torch.nan, x)),
    "infinite": _image(lambda x, _: x / 0),
    "smaller": _image(lambda x, _: x[..., :-1]),
    "one slice too many": _image(lambda x, _: torch.cat([x, x])),
    "without axes": _image(lambda x, _: x.sum()),
    "real": _image(lambda x, _: x.abs()),
    "nothing": lambda made, rng: Estimate(),
    "None": lambda made, rng: None,
    "a tensor": lambda made, rng: made.image,
    "zero": _image(lambda x, _: 0 * x),
    "noise": _image(lambda x, rng: x.abs().mean() * torch.as_tensor(rng.standard_normal(x.shape), dtype=x.dtype)),
    "flipped": _image(lambda x, _: x.flip(-1)),
    "strong": _image(lambda x, _: 10 * x),
}


def nonsense(name: str) -> Inside:
    """The network gives this kind of nonsense."""

    @contextmanager
    def context(rng: np.random.Generator) -> Iterator[None]:
        sound = estimate._run

        def run(how, scan):
            made = sound(how, scan)
            return NONSENSE[name](made, rng) if how.model.name == TRAINED else made

        with mock.patch.object(estimate, "_run", run):
            yield

    return context


NETWORKS: dict[str, Inside] = {f"network gives {name}": nonsense(name) for name in NONSENSE}


@contextmanager
def full_disk(rng: np.random.Generator) -> Iterator[None]:
    """The disk takes no more than some bytes of the image file."""
    sound, room = hosts.replay, int(rng.integers(100_000))

    def replay(*args):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            sound(*args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with mock.patch.object(hosts, "replay", replay):
        yield
