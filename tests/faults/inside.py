"""Faults inside: exceptions in gadgets, and networks that give nonsense. Each is a context in which a case runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from unittest import mock

import numpy as np
import torch

from gadgets import chain, estimate
from gadgets.gadget import Gadget, lookup
from mrnets.contract import Estimate
from tests.faults.sound import NAMES

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
    """The network gives this kind of nonsense, always or once."""

    @contextmanager
    def context(rng: np.random.Generator) -> Iterator[None]:
        sound, always, calls = estimate._run, rng.random() < 0.5, []

        def run(how, scan):
            made = sound(how, scan)
            calls.append(how)
            if how.model.name != "cgsense" or not (always or len(calls) == 1):
                return made
            return NONSENSE[name](made, rng)

        with mock.patch.object(estimate, "_run", run):
            yield

    return context


INSIDE: dict[str, Inside] = {
    "broken gadget": broken_gadget,
    **{f"network gives {name}": nonsense(name) for name in NONSENSE},
}
