"""Whole commands as a user runs them: `replay`, `serve` with clients, and `training fit`, on simulated scans.

    python tests/benchmarks/bench_commands.py [--slices 2] [--coils 12] [--size 256] [--rounds 1]
        [--only replay-varnet serve-varnet] [--against FOLDER]

Each command is a process of its own, with its start and its imports. A server gets one scan first, then the one that
counts, then four at once. Its clients send from the memory of this process. With `--against`, the commands of another
checkout of this project take turns with ours, on the same scans. Medians of the rounds. Processor time is that of the
command and its processes. Memory is the peak of the largest process. Linux only.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import ismrmrd

from gadgets.connection import Peer
from gadgets.limits import PATIENT
from gadgets.messages import Close, ConfigFile, Header
from gadgets.protocol import State
from gadgets.serialise import encode
from mrnets.mrd.files import open_scan

ROOT = Path(__file__).parents[2]
CLIENT = "gadgetron_ismrmrd_client"
OURS = "ours"
AT_ONCE = 4
NETWORK = "{cascades: 4, channels: 16, pooling_layers: 3}"
"""The network that learns: a small varnet."""


@dataclass(frozen=True)
class Cost:
    """The price of some work."""

    clock: float
    """s."""
    processor: float
    """s, of user and system."""
    memory: float
    """MiB at most, so far."""


Costs = dict[str, Cost]
"""By the lines of the table."""


class Failure(Exception):
    """A command has failed: one sentence."""


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    process: subprocess.Popen[str]
    port: int

    def cost(self, work: Callable[[], object]) -> Cost:
        """Return what some work of its clients costs the server."""
        start, before = time.perf_counter(), self._processor()
        work()
        seconds = time.perf_counter() - start
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        return Cost(seconds, self._processor() - before, peak / 1024)

    def _processor(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print the table."""
    args = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the command that runs is ended, too
    sides = {OURS: ROOT} | ({"the other's": args.against} if args.against else {})
    print(f"{args.slices} slices of {args.size} x {args.size}, {args.coils} coils, medians of {args.rounds}")
    print(f"{len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.1f}", flush=True)
    print(f"{'s by the clock, s of the processor, MiB':<42}", "".join(f"{side:>24}" for side in sides))
    with tempfile.TemporaryDirectory() as folder:
        for name in dict.fromkeys(WORKS[name][0] for name in args.only):
            note(f"simulates: {name}")
            simulate(Path(folder) / name, args)
        for name in args.only:
            report(raced(name, sides, Path(folder), args.rounds))


def raced(name: str, sides: dict[str, Path], folder: Path, count: int) -> list[list[Costs]]:
    """Return the costs of some work: rounds, sides. An older checkout may not know it: then they are ours alone.

    A failure of ours ends the process with a sentence."""
    scan, work = WORKS[name]
    rounds: list[dict[str, Costs]] = [{} for _ in range(count)]
    for number, costs in enumerate(rounds):
        for side in sorted(sides, reverse=number % 2 == 1):  # the other one begins every second round
            note(f"round {number + 1}: {name}, {side}")
            try:
                costs[side] = work(sides[side], folder / scan)
            except Failure as failure:
                if side == OURS:
                    raise SystemExit(str(failure)) from None
                print(failure, flush=True)
                sides = {OURS: sides[OURS]}
    return [[costs[side] for side in sides] for costs in rounds]


def options() -> argparse.Namespace:
    """Return the options. Those that make no sense end the process with a sentence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=2)
    parser.add_argument("--coils", type=int, default=12)
    parser.add_argument("--size", type=int, default=256, help="matrix; half of it for volumes, 5/8 for training")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--only", nargs="+", choices=list(WORKS), default=list(WORKS), metavar="WORK", help=f"of {', '.join(WORKS)}"
    )
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout of this project")
    args = parser.parse_args()
    for name, least in {"slices": 1, "coils": 4, "size": 128, "rounds": 1}.items():
        if getattr(args, name) < least:
            parser.error(f"--{name} must be at least {least}; got {getattr(args, name)}.")
    if args.against:
        args.against = args.against.resolve()
        if not (args.against / "gadgets" / "__main__.py").is_file():
            parser.error(f"{args.against} is no checkout of this project: it has no gadgets/__main__.py.")
    return args


def note(words: str) -> None:
    """Tell on stderr what is going on."""
    print(f"  {words}", file=sys.stderr, flush=True)


def report(rounds: list[list[Costs]]) -> None:
    """Print the lines of some work: rounds, sides, costs."""
    for line in rounds[0][0]:
        sides = [[astuple(costs[line]) for costs in side] for side in zip(*rounds, strict=True)]
        text = f"{line:<42}"
        for side in sides:
            clock, processor, memory = (statistics.median(column) for column in zip(*side, strict=True))
            text += f"{clock:8.2f} {processor:8.2f} {memory:6.0f}"
        if len(sides) == 2:
            pairs = [[a / b for a, b in zip(ours, other, strict=True)] for ours, other in zip(*sides, strict=True)]
            ratios = (statistics.median(column) for column in zip(*pairs, strict=True))
            text += "   ours/other " + ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(text, flush=True)


def simulate(folder: Path, args: argparse.Namespace) -> None:
    """Write the scans of the name of a folder into it."""
    count, slices, size, kind = {
        "scan": (1, args.slices, args.size, []),
        "volume": (1, 3 * args.size // 8, args.size // 2, ["--three-d", "--acceleration", "2"]),
        "subjects": (8, 2 * args.slices, 5 * args.size // 8, ["--acceleration", "1"]),
    }[folder.name]
    folder.mkdir()
    for seed in range(count):
        numbers = ["--slices", slices, "--matrix", size, "--coils", args.coils, "--seed", seed]
        command(ROOT, "gadgets", "simulate", "-o", folder / f"{seed}.h5", *numbers, *kind)


def replayed(chain: str, checkout: Path, scans: Path) -> Costs:
    """`replay` of a scan."""
    with tempfile.TemporaryDirectory() as folder:
        words = [scans / "0.h5", "-c", chain, "-o", Path(folder) / "images.h5", "-q"]
        return {f"replay, {chain}, {scans.name}": command(checkout, "gadgets", "replay", *words)}


def fitted(checkout: Path, scans: Path) -> Costs:
    """One epoch of training, with a validation."""
    with tempfile.TemporaryDirectory() as run:
        where = [f"data={scans}", f"folder={run}", f"weights={run}/weights.safetensors"]
        how = ["licence=none", "epochs=1", "workers=1", f"network.options={NETWORK}"]
        return {"training fit, varnet": command(checkout, "training", "fit", "ismrmrd", *where, *how)}


def served(chain: str, checkout: Path, scans: Path) -> Costs:
    """The second scan of a server, and then four at once."""
    with open_scan(scans / "0.h5") as scan:
        # Each block of lines is encoded at once, since the next one may lie in the same memory.
        messages = itertools.chain([ConfigFile(f"{chain}.xml"), Header(bytes(scan.header[0]))], scan.items(), [Close()])
        data = b"".join(b"".join(encode(message)) for message in messages)
    # The server ends first: clients that wait for it then end, too.
    with ThreadPoolExecutor(AT_ONCE) as clients, serving(checkout) as server:
        sent(server.port, data)
        several = partial(clients.map, sent, [server.port] * AT_ONCE, [data] * AT_ONCE)
        found = {
            f"serve, {chain}, the second scan": server.cost(lambda: sent(server.port, data)),
            f"serve, {chain}, {AT_ONCE} scans at once": server.cost(lambda: deque(several())),
        }
        if shutil.which(CLIENT) is None:
            note(f"{CLIENT}: not installed")
        else:
            found[f"serve, {chain}, {CLIENT}"] = server.cost(lambda: by_client(server.port, chain, scans))
    return found


def command(checkout: Path, package: str, *words: object) -> Cost:
    """Run `python -m package words` of a checkout. Raises Failure."""
    said = [sys.executable, "-m", package, *map(str, words)]
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(said, cwd=checkout, env=environment(checkout), stdout=errors, stderr=errors)
        try:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            process.kill()  # where it still runs
        seconds = time.perf_counter() - start
        if process.returncode:
            errors.seek(0)
            failed(f"{package} {words[0]} of {checkout}", errors.read())
    return Cost(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


@contextmanager
def serving(checkout: Path) -> Iterator[Server]:
    """A server of a checkout, which ends with the block. Raises Failure."""
    said = [sys.executable, "-m", "gadgets", "serve", "--port", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(said, cwd=checkout, env=environment(checkout), stderr=pipe, text=True) as process:
        assert process.stderr is not None
        try:
            log = []
            for line in process.stderr:
                log.append(line)
                if "listening on" in line:
                    break
            else:
                failed(f"gadgets serve of {checkout}", "".join(log))
            threading.Thread(target=deque, args=(process.stderr, 0), daemon=True).start()  # the log goes nowhere
            yield Server(process, int(line.split()[-1]))
        finally:
            process.kill()


def environment(checkout: Path) -> dict[str, str]:
    """Return the environment of the commands of a checkout."""
    return {**os.environ, "PYTHONPATH": str(checkout)}


def sent(port: int, data: bytes) -> None:
    """Send a scan and receive its images. Raises Failure where none comes."""
    with socket.create_connection(("127.0.0.1", port)) as connected:
        peer = Peer.on(connected, State.ITEMS, PATIENT)
        peer.sink.write(data)
        items = list(peer.items())
        peer.close()
    said = [item for item in items if isinstance(item, str)]
    if said or not any(isinstance(item, ismrmrd.Image) for item in items):
        failed("gadgets serve", "\n".join(said))


def by_client(port: int, chain: str, scans: Path) -> None:
    """Send a scan by Gadgetron's own client. Raises Failure."""
    with tempfile.TemporaryDirectory() as folder:
        where = ["-a", "127.0.0.1", "-p", str(port), "-o", f"{folder}/images.h5"]
        words = [CLIENT, "-f", str(scans / "0.h5"), "-c", f"{chain}.xml", *where]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        failed(CLIENT, done.stderr)


def failed(who: str, errors: str) -> NoReturn:
    """Raise Failure with the last line of what a command has said."""
    said = next((line for line in reversed(errors.splitlines()) if line.strip()), "it said nothing")
    raise Failure(f"{who} failed: {said}")


WORKS: dict[str, tuple[str, Callable[[Path, Path], Costs]]] = {
    **{f"replay-{name}": ("scan", partial(replayed, name)) for name in ("zerofilled", "l1wavelet", "varnet")},
    "replay-reconstruct": ("scan", partial(replayed, "reconstruct")),
    **{f"serve-{name}": ("scan", partial(served, name)) for name in ("varnet", "l1wavelet")},
    **{f"volume-{name}": ("volume", partial(replayed, name)) for name in ("cgsense", "l1wavelet")},
    "training-fit": ("subjects", fitted),
}
"""The scans that some work needs, and the work, for a checkout and the folder of these scans."""


if __name__ == "__main__":
    main()
