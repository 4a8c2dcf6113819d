"""Progress and result of a folder of scans, in lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gadgets.hosts.folders.task import Outcome, State

__all__ = ["duration", "progress", "summary"]

MOST = 20
"""Distinct warnings that are told."""
_WORDS: dict[State, str] = {
    "done": "done",
    "before": "done before",
    "noise": "noise measurements kept",
    "failed": "failed",
}


def progress(outcomes: Sequence[Outcome], tasks: int, seconds: float) -> str:
    """Return a line on the last outcome, how many of the tasks have one, and the time that is left."""
    last, left = outcomes[-1], tasks - len(outcomes)
    failed = sum(one.state == "failed" for one in outcomes)
    parts = [f"{len(outcomes)} of {tasks}", *([f"{failed} failed"] if failed else [])]
    worked = sum(one.state != "before" for one in outcomes)
    if left and worked:
        parts.append(f"about {duration(left * seconds / worked)} left")
    return f"{', '.join(parts)}: {last.name} {_WORDS[last.state]}, {last.seconds:.1f} s"


def duration(seconds: float) -> str:
    """Return a time in the two units that matter."""
    whole = round(seconds)
    for size, unit, smaller in ((3600, "h", "min"), (60, "min", "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size * 60 // size} {smaller}"
    return f"{whole} s"


def summary(outcomes: Sequence[Outcome], scans: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines at the end: counts, a table of warnings, and a table of failures.

    scans: the path of each scan, by its name."""
    counts = {state: sum(one.state == state for one in outcomes) for state in _WORDS}
    told = ", ".join(f"{count} {_WORDS[state]}" for state, count in counts.items() if count)
    yield f"{len(outcomes)} scan{'s' * (len(outcomes) != 1)}: {told}"
    yield from _table("warnings", _warned(outcomes))
    failed = [(scans[one.name], one.reason) for one in outcomes if one.state == "failed"]
    yield from _table("failures", [(path, reason.removeprefix(f"{path}: ")) for path, reason in failed])


def _warned(outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Return each warning with the scan that has it, or with the number of scans."""
    having: dict[str, list[str]] = {}
    for one in outcomes:
        for text in one.warnings:
            having.setdefault(text, []).append(one.name)
    rows = [(names[0] if len(names) == 1 else f"{len(names)} scans", text) for text, names in having.items()]
    more = [("", f"and {len(rows) - MOST} others: the comments of the images have them")] if len(rows) > MOST else []
    return rows[:MOST] + more


def _table(title: str, rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    if rows:
        width = max(len(name) for name, _ in rows)
        yield f"{title}:"
        yield from (f"  {name:{width}}  {text}" for name, text in rows)
