"""Rows of a report: what was measured, beside its aim, as lines of a Markdown table that are printed at once."""

from __future__ import annotations

__all__ = ["HEAD", "measured", "row", "unmeasured"]

HEAD = "| row | aim | found | |\n|---|---|---|---|"


def row(what: str, aim: str, found: str, verdict: str) -> None:
    """Print a row. Whoever reads the output knows it by its four columns."""
    cells = (" ".join(text.replace("|", "/").split()) for text in (what, aim, found, verdict))
    print("| " + " | ".join(cells) + " |", flush=True)


def measured(
    what: str,
    value: float,
    unit: str,
    *,
    most: float | None = None,
    least: float | None = None,
    cuda: bool = True,
    more: str = "",
) -> None:
    """Print a row with its verdict.

    most, least: the aim, in the unit of `value`. cuda: whether a CUDA device was measured. Else a processor stood for
    it, and the figure means nothing. more: words behind the figure."""
    aim = f"at most {most:g} {unit}" if most is not None else f"at least {least:g} {unit}" if least is not None else ""
    meets = (most is None or value <= most) and (least is None or value >= least)
    verdict = "no device: means nothing" if not cuda else "" if not aim else "met" if meets else "**missed**"
    row(what, aim, f"{value:.3g} {unit}" + (f" ({more})" if more else ""), verdict)


def unmeasured(what: str, why: object) -> None:
    """Print a row of what was not measured, and why."""
    row(what, "", "not measured", str(why))
