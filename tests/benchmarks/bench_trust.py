"""How often the self-check of `mrnets.trust` finds wrong images, and how often it doubts good ones.

    python -m tests.benchmarks.bench_trust --batches 24 --size 8

Scans are simulated: heads and phantoms, matrices of 64 to 96, SNR 10 to 1000, all masks, 2- to 8-fold. An image is
bad where its error against the truth is more than 1 dB above that of l1-wavelet. It is good where it is not above.
The last columns are mean errors in dB above that of l1-wavelet. The first is of the network's image. The second is of
its mean with l1-wavelet's, in the share that the self-check finds. With `--first` it begins at a later batch: several
processes share the work, and their counts add up. `--partial-fourier 1 --snr 1000 30000` draws scans with one side of
k-space and nearly no noise.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import torch

from mrnets import store
from mrnets.contract import Estimate, Scan, Trust
from mrnets.ending import ended
from mrnets.preparation import Preparation
from mrnets.trust import classical, doubt, examined, mixed
from training.simulation import Simulated, Simulation, draw, pooled
from training.simulation.gather import gathered

Network = Callable[[Scan], Estimate]

OPTIONS = Simulation(matrix=(64, 96), coils=(4, 12), snr=(10.0, 1000.0), acceleration=(2.0, 8.0), grid=(96, 160))
BITS = (30, 29, 28, 27, 26, 25)
"""Bits of the exponent of a weight, from the highest."""


def trained(name: str, *, consistency: bool = True) -> Network:
    """A network that ships, with the consistency of its weights, or 0.035 where they name none."""
    weights = store.load(name)
    level = Preparation.from_json(weights.preparation).consistency or Preparation().consistency
    return ended(weights.network, Preparation(consistency=level if consistency else None), "each")


def flipped(name: str, rng: np.random.Generator) -> Network:
    """The same with one bit flipped in a weight of a convolution."""
    weights = store.load(name)
    largest = [p for p in weights.network.parameters() if p.numel() > 1000]
    with torch.no_grad():
        values = largest[rng.integers(len(largest))].flatten()
        values.view(torch.int32)[int(rng.integers(values.numel()))] ^= 1 << int(rng.choice(BITS))
    return ended(weights.network, Preparation.from_json(weights.preparation), "each")


def changed(network: Network, change: Callable[[torch.Tensor], torch.Tensor]) -> Network:
    """`network` with another image, followed by consistency."""

    def run(scan: Scan) -> Estimate:
        image = network(scan).image
        assert image is not None
        return Estimate(image=change(image))

    return ended(run, Preparation(), "each")


def once_changed(network: Network, change: Callable[[torch.Tensor], torch.Tensor]) -> Network:
    """Likewise, for the first scan that it gets only."""
    calls = iter((changed(network, change),))
    return lambda scan: next(calls, network)(scan)


def another(image: torch.Tensor) -> torch.Tensor:
    """The image of the next slice."""
    return image.roll(1, 0)


def remembered(network: Network) -> Network:
    """`network`, run once for each mask. The scans that it gets must differ in that alone."""
    made: dict[bytes, Estimate] = {}

    def run(scan: Scan) -> Estimate:
        assert scan.mask is not None
        key = scan.mask.numpy().tobytes()
        if key not in made:
            made[key] = network(scan)
        return made[key]

    return run


def networks(rng: np.random.Generator, simple: Network) -> Iterator[tuple[str, Network]]:
    """Names and networks, good and wrong. Some give another image than `simple`."""
    yield "l1varnet_general", trained("l1varnet_general")
    yield "varnet_brain", trained("varnet_brain")
    yield "varnet_brain without consistency", trained("varnet_brain", consistency=False)
    yield "zeros", changed(simple, torch.zeros_like)
    yield "x 1e30", changed(simple, lambda image: 1e30 * image)
    yield "another slice", changed(simple, another)
    yield "another slice, once", once_changed(simple, another)
    yield "a bit flipped", flipped("l1varnet_general", rng)


def errors(image: torch.Tensor, made: Simulated) -> torch.Tensor:
    """(batch,): the relative error in dB."""
    difference = (image - made.target).abs().square().sum((1, 2, 3)) / made.target.abs().square().sum((1, 2, 3))
    return 10 * difference.clamp(min=1e-30).log10().nan_to_num(math.inf)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=2, help="of the README's tables: 24")
    parser.add_argument("--first", type=int, default=0, help="number of the first batch")
    parser.add_argument("--size", type=int, default=8, help="slices of a batch")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--snr", type=float, nargs=2, default=OPTIONS.snr)
    parser.add_argument("--partial-fourier", type=float, default=OPTIONS.partial_fourier, help="share of the scans")
    parser.add_argument("--rows", action="store_true", help="print every slice")
    args = parser.parse_args()
    torch.set_num_threads(1)
    options = dataclasses.replace(OPTIONS, snr=tuple(args.snr), partial_fourier=args.partial_fourier)
    pool, rng = pooled(gathered(None), "cpu", options), np.random.default_rng(0)
    counts: dict[str, Counter[str]] = {}
    above: dict[str, list[tuple[float, float]]] = {}
    for _ in range(args.first):
        flipped("l1varnet_general", rng)  # the same bits, wherever it begins
    for number in range(args.first, args.batches):
        made = draw(pool, options, seed=args.seed, number=number, size=args.size)
        for name, worse, mean, trust in checked(made, rng):
            above.setdefault(name, []).append((worse, mean))
            kind = "bad" if worse > 1 else "good" if worse <= 0 else "between"
            counts.setdefault(name, Counter())[f"{kind}, {'found' if doubt(trust) else 'kept'}"] += 1
            if args.rows:
                print(number, name, f"{worse:.2f}", dataclasses.astuple(trust), flush=True)
    columns = [f"{kind}, {what}" for kind in ("bad", "between", "good") for what in ("found", "kept")]
    print(f"{'':34s}" + "".join(f"{column:>16s}" for column in (*columns, "network, dB", "mixed, dB")))
    for name, count in counts.items():
        means = "".join(f"{value:16.2f}" for value in np.mean(above[name], axis=0))
        print(f"{name:34s}" + "".join(f"{count[column]:16d}" for column in columns) + means)


def checked(made: Simulated, rng: np.random.Generator) -> Iterator[tuple[str, float, float, Trust]]:
    """Name, errors in dB above that of l1-wavelet alone and mixed, and measures of each slice and network."""
    simple = remembered(classical)
    with torch.inference_mode():
        reference = simple(made.scan)
        assert reference.image is not None
        least = errors(reference.image, made)
        for name, network in networks(rng, simple):
            estimate = network(made.scan)
            assert estimate.image is not None
            worse = errors(estimate.image, made) - least
            trusts = examined(network, made.scan, estimate, reference, simple)
            mean = mixed(estimate, reference, [trust.share for trust in trusts]).image
            assert mean is not None
            for much, less, trust in zip(worse, errors(mean, made) - least, trusts, strict=True):
                yield name, float(much), float(less), trust


if __name__ == "__main__":
    main()
