"""Benchmark of a CUDA device: physics and networks there, with and without graphs, and on the CPU.

    python tests/benchmarks/bench_device.py [--only physics networks] [--slices 64] [--size 256] [--processor]

Every time on the device has its end in it (synchronised), none the way of the data there and back. Limits beside it: a
copy in the device's memory for whitening, which reads and writes k-space once; for networks the time of
their kernels. `--processor` shows NumPy's physics, too.
`--device cpu --size 128 --slices 2` goes through the same code without a device. Its figures mean nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from bench_compress import scan as ellipse
from bench_sensitivities import scan as head
from timing import race

from mrnets import store
from mrnets.blocks.fused import with_kernels
from mrnets.contract import Estimate, Scan
from mrnets.ending import ended
from mrnets.graphs import Graphs
from mrnets.measure import example
from mrnets.physics.coils import mix
from mrnets.physics.compress import compress, gdcc_matrices
from mrnets.physics.espirit import espirit
from mrnets.physics.fourier import resize
from mrnets.physics.whiten import covariance, whitener
from mrnets.preparation import Preparation
from training.batches import to_device

try:
    import cupy
except ImportError:
    cupy = None

Work = Callable[[], object]
PARTS = ("physics", "networks")
BATCH, COILS = 16, 12
WEIGHTS = ("l1varnet_general", "varnet_brain")
"""Weights that ship, whose networks are timed."""


@dataclass(frozen=True)
class Place:
    """Where and on what is measured."""

    device: str
    size: int
    slices: int
    processor: bool
    """Whether NumPy on the processor is timed, too."""

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")

    def waited(self, work: Work) -> Work:
        """`work` and the wait until the device has done it; CuPy's kernels are on another stream of the same device."""

        def run() -> None:
            work()
            if self.cuda:
                torch.cuda.synchronize()

        return run

    def contest(self, title: str, work: Callable[..., object], *arrays: np.ndarray, **more: Work) -> None:
        """`work` of `arrays` in NumPy, and in CuPy and torch with the arrays on the device."""
        there = [torch.from_numpy(x).to(self.device) for x in arrays]
        contestants: dict[str, Work | None] = {
            f"torch, {self.device}": self.waited(lambda: work(*there)),
            "CuPy": None,
        }
        if cupy is not None and self.cuda:
            copies = [cupy.asarray(x) for x in arrays]
            contestants["CuPy"] = self.waited(lambda: work(*copies))
        if self.processor:
            more["NumPy, CPU"] = lambda: work(*arrays)
        race(title, {**contestants, **more}, repeats=2)


def physics(place: Place) -> None:
    """Whitening, coil compression and maps."""
    rng, n = np.random.default_rng(0), place.size
    shape, middle = (n, n), slice(n // 2 - 12, n // 2 + 12)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0]

    kspace, noise = normal(place.slices, 32, n, n), normal(32, 16384)
    there = torch.from_numpy(kspace).to(place.device)
    copy = {"a copy in the device's memory": place.waited(lambda: there.clone())}
    title = f"whitening, {place.slices} x 32 coils x {n} x {n}"
    place.contest(title, lambda k, n: mix(whitener(covariance(n)), k), kspace, noise, **copy)
    for coils, virtual in ((12, 4), (32, 8)):
        lines = ellipse(coils, shape)
        place.contest(
            f"gdcc, {coils} to {virtual} coils, {n} x {n}",
            lambda k, b, virtual=virtual: compress(k, gdcc_matrices(b, virtual, size=k.shape[-1])),
            lines,
            np.ascontiguousarray(lines[:, middle]),
        )
        block = resize(head(coils, shape)[1], [24, 24], (-2, -1)).copy()
        place.contest(f"ESPIRiT, {coils} coils, {n} x {n}", lambda b: espirit(b, shape), block)
        many = np.repeat(block[None], place.slices, axis=0)
        title = f"ESPIRiT, {place.slices} slices of {coils} coils, {n} x {n}"
        place.contest(title, lambda b: espirit(b, shape), many)


def forwards() -> Iterator[tuple[str, torch.nn.Module, Preparation]]:
    """Networks that are timed, and their preparations."""
    yield "l1wavelet", store.create("l1wavelet"), Preparation(consistency=None)
    for name in WEIGHTS:
        trained = store.load(store.located(name))
        yield name, trained.network, Preparation.from_json(trained.preparation)


def repeated(scan: Scan, slices: int) -> Scan:
    """A batch of one slice."""
    arrays = {name: getattr(scan, name).repeat_interleave(slices, 0) for name in ("kspace", "mask", "sens", "noise")}
    return Scan(**arrays)


def in_kernels(work: Work) -> str:
    """Kernels of `work` on the device, and the time that they take."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        work()
    kernels = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return f"{len(kernels)} kernels, {sum(e.device_time for e in kernels) / 1e6:.4f} s on the device"


@torch.inference_mode()
@with_kernels()
def networks(place: Place) -> None:
    """One slice and a batch: plainly, as a graph, and on the CPU; seconds of all slices."""
    for name, network, preparation in forwards():
        network = network.eval().to(place.device)
        forward = ended(network, preparation, "each")
        one = to_device(repeated(example("l1wavelet", coils=COILS, size=place.size), 1), place.device)
        for slices in (1, min(BATCH, place.slices)):
            scan = repeated(one, slices)
            plain = place.waited(lambda forward=forward, scan=scan: forward(scan))
            contestants: dict[str, Work | None] = {place.device: plain, "the same as a graph": None}
            if place.cuda:
                graphs = Graphs()

                def replayed(
                    graphs: Graphs = graphs, scan: Scan = scan, forward: Callable[[Scan], Estimate] = forward
                ) -> None:
                    graphs.run(forward, scan, "")

                replayed()  # the second run records, the third is the first replay
                replayed()
                contestants["the same as a graph"] = place.waited(replayed)
            race(f"{name}, {slices} x {COILS} coils, {place.size} x {place.size}", contestants, repeats=2)
            if place.cuda:
                print(" ", in_kernels(plain))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--slices", type=int, default=64)
    parser.add_argument("--processor", action="store_true", help="NumPy's physics, too")
    args = parser.parse_args()
    place = Place(args.device, args.size, args.slices, args.processor)
    if place.cuda and not torch.cuda.is_available():
        print("not measured: torch finds no CUDA device")
        return
    print(torch.cuda.get_device_name() if place.cuda else "no device", "beside", torch.get_num_threads(), "CPU threads")
    for name, part in (("physics", physics), ("networks", networks)):
        if name in args.only:
            part(place)


if __name__ == "__main__":
    main()
