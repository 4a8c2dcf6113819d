"""`python -m tests.faults`: run seeded cases, and count the classes of their outcomes."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter

from tests.faults.judge import BAD
from tests.faults.work import kind_of, run


def main() -> int:
    """Exit status: 0; 1 if any case was silent or unforeseen, hung or crashed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", metavar="KIND", help="cases of this kind")
    parser.add_argument("--host", help="cases in this host")
    parser.add_argument("--number", type=int, help="one case alone")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    numbers = range(args.cases) if args.number is None else [args.number]
    chosen = (n for n in numbers if args.only in (None, kind_of(n).name) and args.host in (None, kind_of(n).host))
    counts: Counter[str] = Counter()
    start = time.perf_counter()
    for case in run(chosen, args.seed):
        counts[case.verdict] += 1
        if case.verdict in BAD or args.number is not None:
            print(f"{case.number} {case.host} {case.kind}: {case.verdict}: {case.why}", flush=True)
    print(f"{counts.total()} cases in {time.perf_counter() - start:.0f} s: {dict(counts)}")
    return int(any(counts[bad] for bad in BAD))


if __name__ == "__main__":
    sys.exit(main())
