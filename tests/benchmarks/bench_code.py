"""The size of the code: lines per function, repeated lines, lines of the project, arguments.

    python tests/benchmarks/bench_code.py [FOLDER]

FOLDER is a checkout, of another commit perhaps. A function's lines are those between its first and last, its decorators
and its docstring left out. A line is repeated if it lies in a window of 8 lines that stands in the package twice or
more. Blank lines and indentation do not count. Constructors are left out of the arguments: a network's options
are its own.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("gadgets", "mrnets", "training")
WINDOW = 8


@dataclass(frozen=True)
class Function:
    """One function or method."""

    place: str
    lines: int
    arguments: int


def functions(folder: Path, package: str) -> Iterator[Function]:
    """Yield all functions of a package, nested ones too."""
    for path in sorted((folder / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                place = f"{path.relative_to(folder)}:{node.lineno} {node.name}"
                yield Function(place, _lines(node), _arguments(node))


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is not None:
        lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
    return lines


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    if node.name == "__init__":
        return 0
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def repeated(folder: Path, *packages: str) -> float:
    """Return the share of lines that are repeated in the packages together."""
    paths = [path for package in packages for path in sorted((folder / package).rglob("*.py"))]
    files = [[line.strip() for line in path.read_text(encoding="utf-8").splitlines()] for path in paths]
    files = [[line for line in lines if line] for lines in files]
    windows = [[tuple(lines[i : i + WINDOW]) for i in range(len(lines) - WINDOW + 1)] for lines in files]
    counts = Counter(window for of_file in windows for window in of_file)
    covered = 0
    for of_file in windows:
        starts = [i for i, window in enumerate(of_file) if counts[window] > 1]
        covered += len({i + k for i in starts for k in range(WINDOW)})
    return covered / max(sum(map(len, files)), 1)


def row(name: str, found: list[Function], folder: Path, *packages: str) -> str:
    """Return the row of a table: median, 90 % and largest lines per function, repeated lines, lines."""
    sizes = sorted(function.lines for function in found)
    texts = [path.read_text(encoding="utf-8") for part in packages for path in (folder / part).rglob("*.py")]
    lines = sum(len(text.splitlines()) for text in texts)
    tenth = sizes[int(0.9 * (len(sizes) - 1))]
    share = repeated(folder, *packages)
    return (
        f"{name:10s} {statistics.median(sizes):6g} {tenth:5d} {sizes[-1]:8d} {share:9.2%} {lines:7d} {len(found):10d}"
    )


def main() -> None:
    """Print the tables of a checkout."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]
    found = {package: list(functions(folder, package)) for package in PACKAGES}
    every = [function for of_one in found.values() for function in of_one]
    print(f"{'':10s} median  90 %  largest  repeated   lines  functions")
    for package in PACKAGES:
        print(row(package, found[package], folder, package))
    print(row("all", every, folder, *PACKAGES))
    for name in ("lines", "arguments"):
        print(f"\nmost {name}:")
        for function in sorted(every, key=lambda f: -getattr(f, name))[:5]:
            print(f"{getattr(function, name):4d}  {function.place}")


if __name__ == "__main__":
    main()
