"""Benchmark of a CUDA device: physics and networks there and on the CPU, and the overhead of a chain.

    python tests/benchmarks/bench_device.py

Every time on the device has its end in it (synchronised), none the way of the data there and back. Limits beside it: a
copy in the device's memory for whitening, which reads and writes k-space once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import bench_chain
import numpy as np
import torch
from bench_compress import scan as ellipse
from bench_sensitivities import scan as head
from timing import race

from gadgets.hosts.replay import replay
from gadgets.simulate import Settings, make_scan
from mrnets import store
from mrnets.contract import Scan
from mrnets.mrd.files import write_scan
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


def cuda(work: Work) -> Work:
    """`work` and the wait until the device has done it; CuPy's kernels are on another stream of the same device."""

    def waited() -> None:
        work()
        torch.cuda.synchronize()

    return waited


def contest(title: str, work: Callable[..., object], *arrays: np.ndarray, **more: Work) -> None:
    """`work` of `arrays` in NumPy, and in CuPy and torch with the arrays on the device."""
    there = [torch.from_numpy(x).cuda() for x in arrays]
    contestants: dict[str, Work | None] = {"torch, CUDA": cuda(lambda: work(*there)), "CuPy": None}
    if cupy is not None:
        copies = [cupy.asarray(x) for x in arrays]
        contestants["CuPy"] = cuda(lambda: work(*copies))
    race(title, {**contestants, **more, "NumPy, CPU": lambda: work(*arrays)}, repeats=2)


def physics() -> None:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0]

    kspace, noise = normal(16, 32, 256, 256), normal(32, 16384)
    there = torch.from_numpy(kspace).cuda()
    copy = {"a copy in the device's memory": cuda(lambda: there.clone())}
    contest("whitening, 16 x 32 coils x 256 x 256", lambda k, n: mix(whitener(covariance(n)), k), kspace, noise, **copy)
    for coils, virtual in ((12, 4), (32, 8)):
        lines = ellipse(coils, (256, 256))
        block = np.ascontiguousarray(lines[:, 116:140])
        contest(
            f"gdcc, {coils} to {virtual} coils, 256 x 256",
            lambda k, b, virtual=virtual: compress(k, gdcc_matrices(b, virtual, size=256)),
            lines,
            block,
        )
        block = resize(head(coils, (256, 256))[1], [24, 24], (-2, -1)).copy()
        contest(f"ESPIRiT, {coils} coils, 256 x 256", lambda b: espirit(b, (256, 256)), block)
        many = np.repeat(block[None], 16, axis=0)
        contest(f"ESPIRiT, 16 slices of {coils} coils, 256 x 256", lambda b: espirit(b, (256, 256)), many)


@torch.inference_mode()
def networks() -> None:
    coils, size = 12, 256
    generator = torch.Generator().manual_seed(0)
    shape = (1, 1, coils, size, size)
    kspace, sens = (torch.randn(shape, dtype=torch.complex64, generator=generator) for _ in range(2))
    mask = torch.rand((1, 1, 1, size, size), generator=generator) < 0.25
    here = Scan(kspace=kspace * mask, mask=mask, sens=sens / sens.abs().square().sum(2, keepdim=True).sqrt())
    there = to_device(here, "cuda")
    for name, options in bench_chain.NETWORKS.items():
        near, far = store.create("varnet", **options).eval(), store.create("varnet", **options).eval().cuda()
        contestants = {"CUDA": cuda(lambda: far(there)), "CPU": lambda: near(here)}  # noqa: B023
        race(f"{name}, {coils} coils, {size} x {size}", contestants, repeats=2)


def chain(slices: int = 8, coils: int = 12) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, weights = Path(folder) / "scan.h5", Path(folder) / "weights.safetensors"
        header, lines, _ = make_scan(Settings(slices=slices, coils=coils))
        write_scan(path, header, lines)
        for name, options in bench_chain.NETWORKS.items():
            network = store.create("varnet", **options)
            store.save(weights, network, name="varnet", options=options, preparation=Preparation().to_json())
            settings = [f"network.weights={weights}", "network.device=cuda"]
            scans = [to_device(one, "cuda") for one in bench_chain.prepared(path, settings)]
            network = network.eval().cuda()
            contestants = {
                "the network alone": cuda(lambda: [bench_chain.bare(network, one) for one in scans]),  # noqa: B023
                "the whole replay": lambda: replay(path, Path(folder) / "images.h5", "varnet", settings=settings),  # noqa: B023
            }
            race(f"chain, {slices} slices of {coils} coils, 256 x 256, {name}", contestants, repeats=2)


def main() -> None:
    if not torch.cuda.is_available():
        raise SystemExit("bench_device: torch finds no CUDA device")
    print(torch.cuda.get_device_name(), "beside", torch.get_num_threads(), "CPU threads")
    physics()
    networks()
    chain()


if __name__ == "__main__":
    main()
