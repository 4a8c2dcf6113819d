"""Forward, forward + backward and peak memory of networks, beside the same ones of ATOMMIC, DIRECT and fastMRI.

    python tests/benchmarks/bench_networks.py [--networks varnet unet ...] [--size 128] [--profile] [--python PYTHON]

Every network runs in a process of its own, and in turns: one run of each, again and again. The fastest times count, in
seconds of the processor over all threads. Other work on the machine counts little then.
Memory is the growth of the peak resident set over a first forward + backward, each in a fresh process.
--profile prints the part that convolutions take of forward + backward, which is the libraries' and no network's.

--python: the interpreter of an environment that has the peers, torch, and what `mrnets` needs. Ours runs under it too,
so that all have one torch. A peer that it lacks is "not installed".
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_ROOT = Path(__file__).parents[2]


class Contestant:
    """One network in a process of its own, which does what it is told, one word at a time."""

    def __init__(self, python: str, network: str, peer: str, size: int, coils: int, threads: int) -> None:
        words = [python, __file__, "--worker", network, peer, str(size), str(coils), str(threads)]
        path = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env=environment)
        self.state = self._heard()

    def ask(self, word: str) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return float(self._heard())

    def _heard(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise SystemExit(f"{' '.join(map(str, self.process.args))} has failed")  # type: ignore[arg-type]
        return line

    def close(self) -> None:
        self.process.communicate()


def work(network: str, peer: str, size: int, coils: int, threads: int) -> None:
    """The other side of a `Contestant`."""
    import torch

    from tests.benchmarks.peers import MAKERS, OURS, ours

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    shape = (1, coils, size, size)
    sens = torch.randn(shape, dtype=torch.complex64)
    sens /= torch.linalg.vector_norm(sens, dim=1, keepdim=True)
    mask = torch.zeros((1, 1, size, size), dtype=torch.bool)
    mask[..., ::4, :] = True
    mask[..., size // 2 - 12 : size // 2 + 12, :] = True
    kspace = mask * torch.randn(shape, dtype=torch.complex64)
    try:
        make = MAKERS[network].get(peer)
        run = ours(network, kspace, sens, mask) if make is None or peer == OURS else make(kspace, sens, mask)
    except ImportError as error:
        print(f"not installed ({error})", flush=True)
        return
    print("ready", flush=True)
    for line in sys.stdin:
        start, before = time.process_time(), _peak()
        if line.strip() == "convolutions":
            print(_convolutions(lambda: run().abs().sum().backward()), flush=True)
            continue
        if line.strip() == "forward":
            with torch.inference_mode():
                run()
        else:
            run().abs().sum().backward()
        print(_peak() - before if line.strip() == "memory" else time.process_time() - start, flush=True)


def _convolutions(work: Callable[[], object]) -> float:
    """Return the part of the operations' time that convolutions take."""
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        work()
    times = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    return sum(time for name, time in times.items() if "conv" in name and name.startswith("aten::")) / sum(
        times.values()
    )


def _peak() -> float:
    """Peak resident set in MiB. (getrusage's figure survives the exec of a child, so it would be the parent's.)"""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(float(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def race(network: str, python: str, size: int, coils: int, threads: int, repeats: int, profile: bool) -> None:
    from tests.benchmarks.peers import MAKERS, OURS

    started = {peer: Contestant(python, network, peer, size, coils, threads) for peer in (OURS, *MAKERS[network])}
    running = {peer: one for peer, one in started.items() if one.state == "ready"}
    best = {(peer, word): float("inf") for peer in running for word in ("forward", "both")}
    for repeat in range(repeats + 1):
        for peer, word in best:
            taken = running[peer].ask(word)
            best[peer, word] = min(best[peer, word], taken) if repeat else best[peer, word]
    parts = {peer: f", convolutions {one.ask('convolutions'):.2f}" for peer, one in running.items() if profile}
    memory = {}
    for contestant in started.values():
        contestant.close()
    for peer in running:
        fresh = Contestant(python, network, peer, size, coils, threads)
        memory[peer] = fresh.ask("memory")
        fresh.close()
    print(f"{network}, {coils} coils of {size} x {size}")
    for peer, one in started.items():
        if peer not in running:
            print(f"  {peer:8s} {one.state}")
            continue
        forward, both = best[peer, "forward"], best[peer, "both"]
        print(
            f"  {peer:8s} forward {forward:6.2f} s, + backward {both:6.2f} s, memory {memory[peer]:5.0f} MiB; ours / "
            f"{peer}: {best[OURS, 'forward'] / forward:.2f}, {best[OURS, 'both'] / both:.2f}, "
            f"{memory[OURS] / memory[peer]:.2f}{parts.get(peer, '')}",
            flush=True,
        )


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        network, peer, *numbers = sys.argv[2:]
        work(network, peer, *map(int, numbers))
        return
    sys.path.insert(0, str(_ROOT))
    from tests.benchmarks.peers import MAKERS

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=list(MAKERS), default=list(MAKERS))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--coils", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="print the part that convolutions take")
    parser.add_argument("--python", default=sys.executable, metavar="PATH", help="interpreter that has the peers")
    chosen = parser.parse_args()
    for network in chosen.networks:
        race(network, chosen.python, chosen.size, chosen.coils, chosen.threads, chosen.repeats, chosen.profile)


if __name__ == "__main__":
    main()
