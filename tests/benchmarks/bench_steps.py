"""Training steps on a CUDA device, with a batch that is there: milliseconds, kernels, memory, losses in half precision.

    python tests/benchmarks/bench_steps.py [--only varnet precision peers] [--size 256]

A step is `training.step.learn`: forward pass, loss, backward pass, clipping, AdamW and average, of one slice of 8 coils
of 256x218. Steps follow each other without a pause. The time of their kernels is that of CUPTI. ATOMMIC's networks
stand beside ours where ATOMMIC is installed: their two passes alone, with the same k-space, maps and mask.
`--device cpu --size 64` goes through the same code without a device. Its figures mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench_training import options_of, write_files
from rows import measured, unmeasured

from gadgets.kernels import traced
from mrnets import store
from mrnets.ending import ended
from training.batches import Batches, examples
from training.data import Example
from training.graphs import GradientGraphs
from training.run import Run, built
from training.step import Feed, Learning, learn, settle
from training.tasks import opened

COILS, LOSSES, WARM = 8, 10, 6
"""Coils; steps whose losses are compared; first steps of a run, in which graphs are made."""
AIM, FASTER = 60, 2
"""Milliseconds of a step of varnet 8x18, and ATOMMIC's two passes over that step, at least."""
PEERS = ("rvn", "cirim", "unet", "modl")


@dataclass(frozen=True)
class Place:
    """Where steps are made, and the files that their batch comes from."""

    folder: str
    device: torch.device

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"


@dataclass(frozen=True)
class Begun:
    """A run before its first step."""

    run: Run
    step: Callable[[], object]
    settled: Callable[[], None]
    """Waits for the last loss."""
    example: Example
    held: int
    """Bytes that the process had on the device before."""


def begun(place: Place, *, graphs: bool, **settings: Any) -> Begun:
    """Return a run from the usual start, all of whose steps have the same batch."""
    gc.collect()  # the graphs of runs before it
    held = torch.cuda.memory_allocated() if place.cuda else 0
    usual = {"folder": place.folder, "maps": "espirit", "workers": 0, "centre": 0.16, "precision": "float32"}
    options = options_of({**usual, **settings})
    torch.manual_seed(options.seed)
    source = opened(options, "train")
    (example,) = examples(Batches(source, options, "train", 1), range(1), 0, place.device)
    run = built(options, place.device)
    forward = ended(run.network, options.preparation, store.describe(options.network.name).echoes)
    recorder = GradientGraphs(run.network) if graphs and place.cuda else None
    how = Learning(options, 10**6, source.labels, 0, run.network, forward, recorder)
    feed = Feed(itertools.repeat(example), place.device)
    return Begun(run, partial(learn, run, feed, how), partial(settle, run, options), example, held)


def seconds(place: Place, step: Callable[[], object]) -> float:
    """Seconds of a step, of some in a row."""
    warm, count = (WARM, 10) if place.cuda else (0, 1)
    for n in range(warm + count):
        if n == warm:
            _wait(place)
            start = time.perf_counter()
        step()
    _wait(place)
    return (time.perf_counter() - start) / count


def _wait(place: Place) -> None:
    if place.cuda:
        torch.cuda.synchronize()


def told(place: Place, what: str, one: Begun, *, most: float | None = None) -> float:
    """Print the row of a step, and return its seconds."""
    if place.cuda:
        torch.cuda.reset_peak_memory_stats()
    taken = seconds(place, one.step)
    more = f"{torch.cuda.max_memory_allocated() - one.held >> 20} MiB at most" if place.cuda else ""
    measured(what, 1e3 * taken, "ms", most=most, cuda=place.cuda, more=more)
    return taken


def over_kernels(place: Place, what: str, one: Begun, taken: float) -> None:
    """Print the seconds of a step over those of its kernels. It comes last: the profiler may slow a process down."""
    for _ in range(WARM if place.cuda else 0):
        one.step()
    _wait(place)
    with traced() as end:
        one.step()
        _wait(place)
        pieces = end() if end else None
    if not pieces:
        unmeasured(f"{what}, over the time of its kernels", "torch's profiler saw no work of a device")
        return
    busy = sum(piece.seconds for piece in pieces)
    more = f"{len(pieces)} kernels and copies, {1e3 * busy:.1f} ms"
    measured(f"{what}, over the time of its kernels", taken / busy, "x", cuda=place.cuda, more=more)


def peer(place: Place, name: str, example: Example, ours: float, least: float | None = None) -> None:
    """Print ATOMMIC's forward and backward pass over our whole step."""
    what = f"{name}: ATOMMIC's two passes over our step with graphs"
    from peers import MAKERS

    arrays = (getattr(example.scan, key)[:, 0] for key in ("kspace", "sens", "mask"))
    try:
        with torch.device(place.device):
            work = MAKERS[name]["ATOMMIC"](*arrays)
            taken = seconds(place, lambda: work().abs().sum().backward())
    except ImportError as error:
        unmeasured(what, error)
        return
    measured(what, taken / ours, "x", least=least, cuda=place.cuda, more=f"{1e3 * taken:.1f} ms")


def varnet(place: Place) -> None:
    """Varnet as published: with maps of its own network, as ATOMMIC has it, and with maps that are given."""
    label = "step of varnet 8x18"
    own = f"{label} with maps of its own network"
    first = told(place, f"{own}, graphs", begun(place, graphs=True, maps="network"), most=AIM)
    given = begun(place, graphs=True)
    taken = told(place, f"{label}, graphs", given)
    peer(place, "varnet", given.example, taken, FASTER)
    told(place, f"{own}, bfloat16, graphs", begun(place, graphs=True, maps="network", precision="bfloat16"), most=AIM)
    told(place, f"{own}, plainly", begun(place, graphs=False, maps="network"))
    told(place, f"{own}, kernels=true, graphs", begun(place, graphs=True, maps="network", kernels=True))
    over_kernels(place, f"{own}, graphs", begun(place, graphs=True, maps="network"), first)


def peers(place: Place) -> None:
    """The other networks, with maps that are given."""
    for name in PEERS:
        one = begun(place, graphs=True, network=name)
        peer(place, name, one.example, told(place, f"step of {name}, graphs", one))
        del one
        told(place, f"step of {name}, plainly", begun(place, graphs=False, network=name))


def precision(place: Place) -> None:
    """Losses of steps from the same start, against those in float32, of which there are two runs."""
    exact = losses(place, "float32")
    for name in ("float32", "bfloat16", "float16"):
        found = losses(place, name)
        apart = [abs(x - y) / abs(y) for x, y in zip(found, exact, strict=True)]
        what = f"losses of varnet 8x18 in {'float32 again' if name == 'float32' else name} against float32, graphs"
        more = f"largest of {len(apart)} steps; the last: {apart[-1]:.1e}; loss {exact[0]:.4f} to {exact[-1]:.4f}"
        measured(what, max(apart), "of the loss", cuda=place.cuda, more=more)


def losses(place: Place, name: str) -> list[float]:
    """The losses of some steps in one precision."""
    one = begun(place, graphs=True, precision=name)
    for _ in range(LOSSES if place.cuda else 2):
        one.step()
    one.settled()
    return one.run.losses


PARTS: dict[str, Callable[[Place], None]] = {"varnet": varnet, "precision": precision, "peers": peers}


def main() -> None:
    """Print the rows of each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--size", type=int, default=256, help="along the readout")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        unmeasured("training steps", "torch finds no CUDA device")
        return
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), COILS, (args.size, 218 * args.size // 256), files=2, slices=2)
        for name in args.only:
            PARTS[name](Place(folder, torch.device(args.device)))


if __name__ == "__main__":
    main()
