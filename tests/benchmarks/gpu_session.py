"""All that needs a CUDA device, in order of importance, in a few minutes, and a report that is there at each moment.

    python tests/benchmarks/gpu_session.py --minutes 9 --out FOLDER [--scans FOLDER] [--only server replays ...]

Each part runs in a process of its own, by the Python that runs this, with a limit of time of its own. Its output
goes to FOLDER/PART.txt at once. FOLDER/summary.md is written anew after each part: its rows, and what was not measured
and why. A part that fails or hangs costs its own time only. Nothing is installed, and no network is needed.
`--device cpu --size 64 --slices 2` goes through the parts without a device. Its figures mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rows import HEAD

ROOT = Path(__file__).parents[2]
BENCHMARKS = "tests/benchmarks"
LEAST = 10
"""Seconds that must be left for a part to begin."""
_ROW = re.compile(r"^\|[^|\n]*\|[^|\n]*\|[^|\n]*\|[^|\n]*\|$", re.MULTILINE)
_TEST = re.compile(r"(?:(tests/\S+(?:\[.*\])?) )?(PASSED|FAILED|ERROR|SKIPPED)\b(?: (tests/.*))?")
_VERDICTS = ("SKIPPED", "PASSED", "ERROR", "FAILED")
"""The later one counts: a test that passed has an error where its fixtures fail after it."""
_MARKED = re.compile(r"\bgpu\b|\bxp\b")
"""In the file of each test for a device: its mark, or the fixture of array libraries (`tests/conftest.py`)."""


@dataclass(frozen=True)
class Part:
    """A command of Python, from its first argument on."""

    name: str
    title: str
    words: tuple[str, ...]
    seconds: float
    """It is ended after so many."""
    rows: Callable[[str], list[str]] = _ROW.findall
    """Returns the rows in its output, also where that breaks off."""
    threads: int = 0
    """OpenMP's threads of each of its processes; 0: as the machine has it."""


@dataclass(frozen=True)
class Done:
    """A part that has run, or not."""

    part: Part
    rows: list[str]
    lacks: str
    """Why there are no more rows; empty where the part came to its end."""
    last: str
    """The last line that it printed, but for rows."""
    seconds: float


def main() -> int:
    """Run the parts and print the summary. The exit status tells whether all came to their end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--minutes", type=float, default=9, help="for all parts together (default 9)")
    add("--out", type=Path, default=Path("gpu-session"), help="folder of the report (default gpu-session)")
    add("--scans", type=Path, help="folder of ISMRMRD files of real scans, for device against processor")
    add("--device", default="cuda", choices=["cuda", "cpu"])
    add("--size", type=int, default=256)
    add("--slices", type=int, default=64)
    add("--only", nargs="+", metavar="PART", help="names of parts; see the summary")
    args = parser.parse_args()
    known = list(parts(args))
    if unknown := set(args.only or ()) - {part.name for part in known}:
        there = ", ".join(part.name for part in known)
        parser.error(f"--only: there is no part {', '.join(sorted(unknown))}; parts: {there}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the part that runs is ended, too
    chosen = [part for part in known if not args.only or part.name in args.only]
    done = run(chosen, args.out, 60 * args.minutes)
    print((args.out / "summary.md").read_text(encoding="utf-8"))
    return int(any(one.lacks for one in done))


def parts(args: argparse.Namespace) -> Iterator[Part]:
    """Yield the parts, the most important one first. Each limit is two to three times what an H100 should take."""
    place = ("--device", args.device, "--size", str(args.size))
    stack, cuda = ("--slices", str(args.slices)), args.device == "cuda"
    graphs = ("--graphs",) if cuda else ()

    def script(name: str, title: str, file: str, *words: str, seconds: float) -> Part:
        return Part(name, title, (f"{BENCHMARKS}/{file}.py", *words), seconds)

    # A processor takes seconds for what a device does in milliseconds.
    few = () if cuda else ("--chains", "l1wavelet")
    once = () if cuda else ("--scans", "1")
    yield script("server", "one slice in a warm server", "bench_server", *place, *few, *once, seconds=100)
    chain = ("bench_device_chain", *place, *stack, *few, "--only")
    yield script("replays", "whole replays and their kernels", *chain, "replays", seconds=120)
    waiting = ("--device", args.device, "--size", str(args.size), "--maps", "espirit", "--workers", "3", *graphs)
    rounds = ("--rounds", "2", "--steps", "15") if cuda else ("--rounds", "1", "--steps", "1")
    yield script("waiting", "waiting of training with graphs", "bench_training", *waiting, *rounds, seconds=80)
    steps = ("bench_steps", *place, "--only")
    yield script("varnet", "a training step of varnet 8x18", *steps, "varnet", seconds=60)
    yield Part("tests", "tests for a device, by name", tuple(_tests()), 150, tested, threads=1)
    yield script("precision", "losses in half precision", *steps, "precision", seconds=60)
    real = [str(args.scans.resolve())] if args.scans else []
    yield script("scans", "scans on device and processor", "bench_device_scans", *real, *place, *few, seconds=90)
    yield script("profile", "replay --profile", *chain, "profile", seconds=90)
    yield script("steps", "training steps of rvn, cirim, unet, modl", *steps, "peers", seconds=120)
    yield script("kernels", "Triton's kernels", "bench_fused", "--size", str(args.size), seconds=90)
    networks = ("bench_device", *place, *stack, "--only")
    yield script("networks", "networks alone", *networks, "networks", seconds=90)
    yield script("others", "replays with other settings", *chain, "others", seconds=120)
    yield script("physics", "whitening, compression, maps", *networks, "physics", seconds=60)


def _tests() -> Iterator[str]:
    """The words of pytest: the files of tests that need a device, since others take long to collect."""
    yield from ("-m", "pytest", "-vv", "-m", "gpu", "-p", "no:benchmark", "--continue-on-collection-errors")
    if importlib.util.find_spec("xdist"):
        yield from ("-n", "4")
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    yield from (str(f.relative_to(ROOT)) for f in files if _MARKED.search(f.read_text(encoding="utf-8")))


def tested(output: str) -> list[str]:
    """Return the rows of pytest's output: how many tests passed, and the names of those that did not."""
    verdicts: dict[str, str] = {}
    for before, verdict, after in _TEST.findall(output):
        if name := (before or after).split(" - ")[0].strip():
            verdicts[name] = max(verdicts.get(name, verdict), verdict, key=_VERDICTS.index)
    counts = Counter(verdicts.values())
    told = ", ".join(f"{count} {word.lower()}" for word, count in sorted(counts.items())) or "none ran"
    bad = counts["FAILED"] + counts["ERROR"]
    verdict = "**missed**" if bad else "met" if counts["PASSED"] else "not measured"
    rows = [f"| tests for a device | all pass | {told} | {verdict} |"]
    failed = (name for name, verdict in verdicts.items() if verdict in ("FAILED", "ERROR"))
    return rows + [f"| {name.replace('|', '/')} | passes | fails | **missed** |" for name in failed]


def run(chosen: Sequence[Part], out: Path, seconds: float) -> list[Done]:
    """Run parts in order, for so many seconds together, and write `out`/summary.md after each of them."""
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    done: list[Done] = []
    _write(out, done, chosen)
    for number, part in enumerate(chosen, 1):
        done.append(_ran(part, out / f"{part.name}.txt", end - time.monotonic()))
        print(f"{part.name}: {done[-1].lacks or 'done'}, {done[-1].seconds:.0f} s", flush=True)
        _write(out, done, chosen[number:])
    return done


def _ran(part: Part, path: Path, left: float) -> Done:
    if left < min(LEAST, part.seconds):
        return Done(part, [], "no time was left", "", 0)
    limit, start = min(part.seconds, left), time.monotonic()
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": search}
    environment |= {"OMP_NUM_THREADS": str(part.threads)} if part.threads else {}
    # A part that is ended cannot remove its own temporary files.
    with path.open("wb") as output, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        # A session of its own, so that its workers can be ended with it.
        process = subprocess.Popen(
            [sys.executable, *part.words],
            cwd=ROOT,
            env=environment | {"TMPDIR": place},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
    text = path.read_text(encoding="utf-8", errors="replace")
    rows, lacks, last = part.rows(text), "", _last(text)
    if status is None:
        lacks = f"its {limit:.3g} s were over"
    elif status:
        lacks = f"exit status {status}: {last}"
    return Done(part, rows, lacks, last, time.monotonic() - start)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last(text: str) -> str:
    """The last line of an output that says something, short enough for a table."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("|")]
    return lines[-1][:200].replace("|", "/") if lines else "it printed nothing"


def _write(out: Path, done: Sequence[Done], waiting: Sequence[Part]) -> None:
    """Write the summary of what was done, and of what has not come yet. It is replaced as a whole."""
    lines = ["# On a machine with a GPU", "", HEAD]
    for one in done:
        lines += one.rows
        if one.lacks:
            found = "not whole" if one.rows else "not measured"
            lines.append(f"| {one.part.title} ({one.part.name}) | | {found} | {one.lacks} |")
        elif not one.rows:
            lines.append(f"| {one.part.title} ({one.part.name}) | | tables in {one.part.name}.txt | {one.last} |")
    lines += [f"| {part.title} ({part.name}) | | not measured | not begun |" for part in waiting]
    lines += [
        "",
        "Seconds of the parts: " + (", ".join(f"{d.part.name} {d.seconds:.0f}" for d in done) or "none") + ".",
    ]
    partial = out / "summary.md.part"
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(out / "summary.md")


if __name__ == "__main__":
    raise SystemExit(main())
