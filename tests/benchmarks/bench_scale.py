"""Growth of time and memory with coils, matrix, slices, repetitions, echoes and the partitions of a volume.

    python tests/benchmarks/bench_scale.py [--sweeps coils slices] [--whole] [--plot tests/benchmarks/scale.png]

Each scan is simulated and goes through noise, sort, coils (ESPIRiT), network (zerofilled) and images in a process of
its own, in one thread. Where it is "compressed", compress (GDCC, to 8 coils) comes before coils. Seconds are of the
processor, memory is the peak over what the process has before. The exponent is that of time in bytes of raw data, from
the first to the last scan of a row: 1 is linear. By default that is every second scan of a row, without the largest of
an even number; `--whole` takes all. Aim: at most 1 for the streaming stages (noise, sort, images).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

USUAL = {"coils": 12, "matrix": 192, "slices": 2}
SWEEPS: dict[str, list[dict[str, int]]] = {
    "coils": [{"coils": n} for n in (8, 16, 32, 64, 128)],
    "compressed": [{"coils": n, "compressed": 1} for n in (16, 32, 64, 128)],
    "matrix": [{"matrix": n} for n in (128, 192, 256, 384, 512)],
    "slices": [{"slices": n} for n in (1, 2, 4, 8, 16)],
    "repetitions": [{"repetitions": n} for n in (1, 2, 4, 8)],
    "echoes": [{"echoes": n} for n in (1, 2, 4, 8)],
    "partitions": [{"slices": n, "matrix": 96, "three_d": 1} for n in (16, 32, 64, 96)],
}
STAGES = ("noise", "sort", "compress", "coils", "images")
LIMIT = 600
"""Seconds for one scan."""


def main() -> None:
    """Measure all sweeps, print them, and plot them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", nargs="*", choices=SWEEPS, default=list(SWEEPS), help="only these")
    parser.add_argument("--whole", action="store_true", help="every scan of a row, not every second one")
    parser.add_argument("--keep", type=Path, help="JSON file: what it has is not measured again")
    parser.add_argument("--plot", type=Path, help="PNG to write")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measured(json.loads(args.one))))
        return
    found = json.loads(args.keep.read_text()) if args.keep and args.keep.exists() else {}
    for name in args.sweeps:
        changes = SWEEPS[name] if args.whole else SWEEPS[name][::2]
        if len(found.get(name, ())) != len(changes):
            found[name] = [in_process({**USUAL, **change}) for change in changes]
            if args.keep:
                args.keep.write_text(json.dumps(found))
        report(name, [next(iter(change.values())) for change in changes], found[name])
    if args.plot:
        plot({name: found[name] for name in args.sweeps}, args.plot)


def in_process(settings: dict[str, int]) -> dict[str, float]:
    """Return what one scan takes, in a process of its own with one thread."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--one", json.dumps(settings)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=LIMIT)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measured(settings: dict[str, int]) -> dict[str, float]:
    """Seconds of each stage, bytes of the raw data, and the most memory over what the process had before."""
    from gadgets.profile import Profile
    from gadgets.simulate import Settings, make_scan
    from mrnets.mrd.files import write_scan
    from mrnets.mrd.lines import Lines

    repetitions = settings.pop("repetitions", 1)
    three_d, compressed = (bool(settings.pop(name, 0)) for name in ("three_d", "compressed"))
    with tempfile.TemporaryDirectory() as folder:
        small = Settings(matrix=64, coils=4, acceleration=2, calibration=16)
        header, lines, _ = make_scan(small)
        write_scan(Path(folder) / "small.h5", header, lines)
        through(
            Path(folder) / "small.h5", Profile(time.process_time), compressed=compressed
        )  # libraries load and start
        header, lines, _ = make_scan(Settings(**settings, three_d=three_d))
        items = repeated(list(lines), repetitions)
        size = sum(item.data.nbytes for item in items if isinstance(item, Lines))
        write_scan(Path(folder) / "scan.h5", header, items)
        del lines, items
        before, profile = resident(), Profile(time.process_time)
        through(Path(folder) / "scan.h5", profile, compressed=compressed)
        steps = dict(profile.rows())
    return {
        "bytes": size,
        "memory": max(step.memory for step in steps.values()) - before,
        **{stage: steps[stage].seconds if stage in steps else 0.0 for stage in STAGES},
    }


def through(path: Path, profile: Any, *, compressed: bool) -> None:
    """Run the chain."""
    from gadgets.chain import Chain, Stage
    from mrnets.mrd.files import open_scan
    from mrnets.mrd.header import read_header

    stages = [
        Stage("noise", {}),
        Stage("sort", {"incomplete": "warn"}),
        *([Stage("compress", {"coils": "8"})] if compressed else []),
        Stage("coils", {}),
        Stage("network", {"name": "zerofilled"}),
        Stage("images", {}),
    ]
    with open_scan(path) as scan:
        for _ in Chain.of(tuple(stages)).run(scan.items(), read_header(scan.header).header, None, profile.timed):
            pass


def repeated(items: list[Any], count: int) -> list[Any]:
    """The scan, `count` times: imaging lines again with another repetition."""
    from mrnets.mrd.flags import Flag, has_flag
    from mrnets.mrd.lines import Lines

    found = list(items)
    for repetition in range(1, count):
        for item in items:
            if isinstance(item, Lines) and not has_flag(item.headers, Flag.IS_NOISE_MEASUREMENT).any():
                headers = item.headers.copy()
                headers["idx"]["repetition"] = repetition
                found.append(replace(item, headers=headers))
    return found


def resident() -> int:
    """Bytes of memory that the process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def report(name: str, values: list[int], rows: list[dict[str, float]]) -> None:
    """Print one sweep."""
    print(f"\n{name:<12} {'MiB':>8} {'memory':>8} " + " ".join(f"{stage:>9}" for stage in STAGES))
    for value, row in zip(values, rows, strict=True):
        times = " ".join(f"{row[stage]:8.3f}s" for stage in STAGES)
        print(f"{value:<12} {row['bytes'] / 2**20:8.0f} {row['memory'] / row['bytes']:7.1f}x {times}")
    growth = math.log(rows[-1]["bytes"] / rows[0]["bytes"])
    exponents = (math.log(max(rows[-1][s], 1e-4) / max(rows[0][s], 1e-4)) / growth for s in STAGES)
    print(f"{'exponent':<30} " + " ".join(f"{x:9.2f}" for x in exponents), flush=True)


def plot(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Time of each stage and memory over the bytes of the scan, double logarithmic, a panel for each sweep."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(2.2 * len(found), 3.2), sharey=True)
    for axis, (name, rows) in zip(axes, found.items(), strict=True):
        size = [row["bytes"] / 2**20 for row in rows]
        for n, stage in enumerate(STAGES):
            if any(row[stage] for row in rows):
                axis.loglog(size, [max(row[stage], 1e-4) for row in rows], ".-", color=f"C{n}", label=stage)
        axis.loglog(size, [row["memory"] / 2**30 for row in rows], "k.--", label="memory (GiB)")
        axis.loglog(size, [n / size[0] * 0.01 for n in size], color="0.8", lw=3, zorder=0, label="linear")
        axis.set_title(name)
        axis.set_xlabel("raw data (MiB)")
        axis.set_xticks([size[0], size[-1]], [f"{n:.0f}" for n in (size[0], size[-1])])
        axis.minorticks_off()
    axes[0].set_ylabel("seconds of one processor")
    handles = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    axes[-1].legend(handles.values(), handles.keys(), fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
