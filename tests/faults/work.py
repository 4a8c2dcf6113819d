"""Cases in a process of their own, with bounds on time, memory and files; and the process that watches it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import cycle
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from gadgets.messages import ConfigText
from tests.faults import files, inside, stream
from tests.faults.hosts import HOSTS, Outcome, Seen
from tests.faults.judge import judged
from tests.faults.sound import STAGES, TRAINED, parts
from tests.gadgets.toys import blob, chain, configuration, stage

STARTING, LONGEST = 120.0, 45.0
"""s: for a process to start, and for a case."""
MAX_MEMORY, MAX_FILE = 12 << 30, 16 << 20
"""Bytes: address space of the process, and a file that it writes."""

Run = Callable[["Bench", np.random.Generator], Outcome]


@dataclass(frozen=True)
class Kind:
    """Faults of one kind in one host."""

    name: str
    host: str
    run: Run
    visible: bool = True
    """Whether the format can show such a fault; not so bits of samples, and what a client may ask for."""
    expected: str = "cgsense"


@dataclass(frozen=True)
class Case:
    """The outcome of a case. Its number and the seed make it again."""

    number: int
    kind: str
    host: str
    verdict: str
    why: str


class Bench:
    """The files and the expected images of the process."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.scan = files.scan_file(place / "sound.h5")
        self.weights = files.weights_file(place / "sound.safetensors")
        self.count = 0
        self.expected: dict[str, list[Seen]] = {
            "cgsense": self.send("pipe", list(parts())).images,
            "weights": self.send("pipe", list(parts()), with_weights(place / "sound.safetensors")).images,
            "trained": self.send("pipe", list(parts()), with_weights(TRAINED)).images,
        }

    def send(self, host: str, scan: list[bytes], stages: Sequence[str] = STAGES) -> Outcome:
        """The outcome of a stream in one of the hosts."""
        return self.run(host, scan, configured(host, stages))

    def run(self, host: str, scan: list[bytes], config: str | bytes) -> Outcome:
        """The outcome of a stream and a configuration in one of the hosts. Two of them get it with the stream."""
        text = config if isinstance(config, bytes) else config.encode()
        start = blob([ConfigText(text)]) if host in ("serve", "external") else b""
        return HOSTS[host](start + b"".join(scan), text.decode(errors="replace"), self.place)


def configured(host: str, stages: Sequence[str]) -> str:
    """The configuration as Gadgetron sends it to an external process, or a whole chain."""
    return configuration(*stages) if host == "external" else chain(*stages)


def with_weights(weights: str | Path) -> tuple[str, ...]:
    """The stages with a weights file as the network."""
    return tuple(stage("network", weights=weights) if "cgsense" in s else s for s in STAGES)


def _faulty_stream(fault: stream.Fault, host: str, bench: Bench, rng: np.random.Generator) -> Outcome:
    return bench.send(host, fault(rng, list(parts())))


def _faulty_configuration(host: str, bench: Bench, rng: np.random.Generator) -> Outcome:
    return bench.run(host, list(parts()), stream.changed_configuration(rng, configured(host, STAGES).encode()))


def _faulty_inside(
    fault: inside.Inside, host: str, stages: Sequence[str], bench: Bench, rng: np.random.Generator
) -> Outcome:
    with fault(rng):
        return bench.send(host, list(parts()), stages)


def _faulty_file(damage: files.Damage, bench: Bench, rng: np.random.Generator) -> Outcome:
    return HOSTS["replay"](damage(rng, bench.scan), configured("replay", STAGES), bench.place)


def _faulty_weights(damage: files.Damage, host: str, bench: Bench, rng: np.random.Generator) -> Outcome:
    bench.count += 1  # another name each time: models of files are kept
    path = bench.place / f"w{bench.count}.safetensors"
    path.write_bytes(damage(rng, bench.weights))
    try:
        return bench.send(host, list(parts()), with_weights(path.stem if host == "serve" else path))
    finally:
        path.unlink()


@cache
def kinds() -> list[Kind]:
    """All kinds of faults in all hosts that they can reach."""
    unseen = ("flipped_sample", "spike", "gain")
    found = [
        Kind(name, host, partial(_faulty_stream, fault, host), name not in unseen)
        for name, fault in stream.FAULTS.items()
        for host in HOSTS
    ]
    found += [Kind("configuration", host, partial(_faulty_configuration, host), visible=False) for host in HOSTS]
    found += [
        Kind("broken gadget", host, partial(_faulty_inside, inside.broken_gadget, host, STAGES)) for host in HOSTS
    ]
    trained = with_weights(TRAINED)
    found += [
        Kind(name, host, partial(_faulty_inside, fault, host, trained), expected="trained")
        for host, (name, fault) in zip(cycle(HOSTS), inside.NETWORKS.items(), strict=False)
    ]
    found += [Kind("full disk", "replay", partial(_faulty_inside, inside.full_disk, "replay", STAGES))]
    found += [
        Kind(f"file {name}", "replay", partial(_faulty_file, damage), name in ("cut", "edited"))
        for name, damage in files.SCAN_FILES.items()
    ]
    found += [
        Kind(f"weights {name}", host, partial(_faulty_weights, damage, host), expected="weights")
        for name, damage in files.WEIGHTS.items()
        for host in HOSTS
    ]
    return found


def kind_of(number: int) -> Kind:
    """The kind of a case: all in turn."""
    known = kinds()
    return known[number % len(known)]


def case(number: int, seed: int, bench: Bench) -> tuple[str, str]:
    """Run a case; its class, and why."""
    kind = kind_of(number)
    outcome = kind.run(bench, np.random.default_rng([seed, number]))
    return judged(outcome, bench.expected[kind.expected], visible=kind.visible)


def _work(seed: int, place: Path, ends: Connection) -> None:
    """The process: numbers of cases come, verdicts go. Its files lie in the folder `place`."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE, MAX_FILE))
    logging.getLogger().addHandler(logging.NullHandler())
    os.environ.update(GADGETRON_STORAGE_ADDRESS="", XDG_CACHE_HOME="none")  # no noise of a scan is kept
    with tempfile.TemporaryFile("w+b") as said, suppress(EOFError):
        os.dup2(said.fileno(), sys.stderr.fileno())
        bench = Bench(place)
        ends.send("ready")
        while True:
            number = ends.recv()
            try:
                verdict, why = case(number, seed, bench)
            except Exception as error:  # noqa: BLE001 (whatever it is, it is judged)
                verdict, why = "crash", f"{type(error).__name__}: {error}"
            sys.stderr.flush()
            said.seek(0)
            if b"Traceback" in (text := said.read()):
                verdict, why = "crash", text.decode(errors="replace")[-400:]
            os.ftruncate(said.fileno(), 0)
            said.seek(0)
            ends.send((verdict, why))


class _Worker:
    def __init__(self, seed: int) -> None:
        self.folder = tempfile.TemporaryDirectory()  # the process is killed, and cannot remove it
        self.ends, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=_work, args=(seed, Path(self.folder.name), theirs), daemon=True)
        self.process.start()
        theirs.close()
        if not self.ends.poll(STARTING):
            self.end()
            raise TimeoutError("the process of the faults did not start")
        assert self.ends.recv() == "ready"

    def ask(self, number: int) -> tuple[str, str] | None:
        """The verdict; None if the process is of no more use."""
        self.ends.send(number)
        if not self.ends.poll(LONGEST):
            return None
        found: Any = self.ends.recv()
        return found

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.ends.close()
        self.folder.cleanup()


def run(numbers: Iterable[int], seed: int) -> Iterator[Case]:
    """Yield what comes of each case."""
    worker = _Worker(seed)
    try:
        for number in numbers:
            try:
                found = worker.ask(number) or ("hang", f"more than {LONGEST:g} s")
            except (EOFError, OSError):
                worker.process.join(10)
                found = "crash", f"the process ended with {worker.process.exitcode}"
            kind = kind_of(number)
            yield Case(number, kind.name, kind.host, *found)
            if found[0] == "hang" or not worker.process.is_alive():
                worker.end()
                worker = _Worker(seed)
    finally:
        worker.end()
