"""Settings of threads on a loaded host: the shipped varnet's size and ESPIRiT, beside programs that never wait.

    python tests/benchmarks/bench_threads.py [--load 4] [--rounds 1]

Each setting runs in a process of its own, in turns, while `--load` other processes compute. Ours is told that load.
Aim: ours (mrnets.threads) within 1.3 of the fastest setting.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mrnets.threads import LOADED, OPENMP, OTHERS, settle

LIMIT = 300
"""Seconds: a setting that takes longer is stopped."""
NOT_SET = dict.fromkeys((*OPENMP, *OTHERS), "")
SETTINGS: dict[str, dict[str, str]] = {
    "ours": {},
    "the libraries' own": NOT_SET,
    "one thread": {"OMP_NUM_THREADS": "1"},
    "always spinning": OPENMP,
    "no spinning": LOADED,
    "twice as long spinning": {"GOMP_SPINCOUNT": str(2 * int(OPENMP["GOMP_SPINCOUNT"]))},
    "OpenBLAS with all threads": dict.fromkeys(OTHERS, ""),
}
"""The variables that each sets otherwise than ours; empty: not set."""
WORK = """
import time
from mrnets import heap
heap.settle()
import numpy as np, torch
from bench_chain import NETWORKS
from mrnets import store
from mrnets.contract import Scan
from mrnets.physics.espirit import espirit
options = list(NETWORKS.values())[1]
torch.manual_seed(0)
network = store.create("varnet", **options).eval()
k, s = (torch.randn((1, 1, 8, 160, 160), dtype=torch.complex64) for _ in range(2))
mask = torch.rand((1, 1, 1, 160, 160)) < 0.25
scan = Scan(kspace=k * mask, mask=mask, sens=s / s.abs().square().sum(2, keepdim=True).sqrt())
block = np.random.default_rng(0).standard_normal((12, 24, 24)).astype(np.complex64)
with torch.inference_mode():
    for work in (lambda: network(scan), lambda: espirit(block, (256, 256))):
        work()
        start = time.perf_counter()
        for _ in range(3):
            work()
        print((time.perf_counter() - start) / 3)
"""


def main() -> None:
    """Print the seconds of each setting, idle and loaded, and their ratio to the fastest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", type=int, default=4, help="processes that compute beside it (default 4)")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    for load in dict.fromkeys((0, args.load)):
        with busy(load, LIMIT * args.rounds * len(SETTINGS)):
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in SETTINGS}
            for _ in range(args.rounds):
                for name, changed in SETTINGS.items():
                    found[name].append(seconds(changed, load))
        best = {name: tuple(map(min, zip(*times, strict=True))) for name, times in found.items()}
        fastest = [min(column) for column in zip(*best.values(), strict=True)]
        print(f"{load} busy processes on {len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.1f}")
        for name, times in best.items():
            ratios = ", ".join(
                f"{what} {s:7.3f} s {s / least:6.2f} x"
                for what, s, least in zip(("varnet", "ESPIRiT"), times, fastest, strict=True)
            )
            print(f"  {name:<28} {ratios}")


@contextmanager
def busy(count: int, most: int) -> Iterator[None]:
    """So many processes that compute; after `most` seconds they end by themselves."""
    code = f"import time\nend = time.monotonic() + {most}\nwhile time.monotonic() < end: pass"
    others = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def seconds(changed: dict[str, str], load: float) -> tuple[float, float]:
    """Seconds of varnet and of ESPIRiT with a setting, on a machine with that load; infinity where they take too
    long."""
    environment = {k: v for k, v in os.environ.items() if k not in (*NOT_SET, "OMP_WAIT_POLICY", "OMP_NUM_THREADS")}
    settle(environment, load=load)
    environment.update(changed)
    environment = {k: v for k, v in environment.items() if v} | {"PYTHONPATH": os.pathsep.join(["", *sys.path])}
    try:
        done = subprocess.run(
            [sys.executable, "-c", WORK], env=environment, capture_output=True, text=True, check=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return float("inf"), float("inf")
    network, maps = map(float, done.stdout.split())
    return network, maps


if __name__ == "__main__":
    main()
