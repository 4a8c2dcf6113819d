"""The report of a session on a GPU is there at each moment, whatever its parts do."""

from __future__ import annotations

import argparse
import importlib
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The driver, which is a script."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "benchmarks")
    return importlib.import_module("gpu_session")


def part(session: Any, name: str, code: str, seconds: float = 60) -> Any:
    return session.Part(name, f"what {name} measures", ("-S", "-c", code), seconds)


def test_a_part_that_fails_or_hangs_costs_itself_only(session: Any, tmp_path: Path) -> None:
    chosen = [
        part(session, "fails", "print('| one | at most 3 ms | 2 ms | met |', flush=True); raise ValueError('a | b')"),
        part(session, "hangs", "import threading; threading.Event().wait()", seconds=0.5),
        part(session, "works", "print('words'); print('| two |  | 5 x | |')"),
        part(session, "tells", "print('a table'); print('  torch 2.0 x')"),
    ]
    done = session.run(chosen, tmp_path, 60)
    assert [bool(one.lacks) for one in done] == [True, True, False, False]
    summary = (tmp_path / "summary.md").read_text()
    assert "| one | at most 3 ms | 2 ms | met |" in summary
    assert "| what fails measures (fails) | | not whole | exit status 1: ValueError: a / b |" in summary
    assert "| what hangs measures (hangs) | | not measured | its 0.5 s were over |" in summary
    assert "| two |  | 5 x | |" in summary
    assert "| what tells measures (tells) | | tables in tells.txt | torch 2.0 x |" in summary
    assert "words" not in summary
    assert "words" in (tmp_path / "works.txt").read_text()


def test_the_summary_is_there_after_each_part(session: Any, tmp_path: Path) -> None:
    summary = str(tmp_path / "summary.md")
    look = f"print('| waiting | | ' + str(open({summary!r}).read().count('not begun')) + ' | |')"
    done = session.run([part(session, "first", look), part(session, "second", look)], tmp_path, 60)
    assert [one.rows for one in done] == [["| waiting | | 2 | |"], ["| waiting | | 1 | |"]]


def test_without_time_parts_are_not_begun(session: Any, tmp_path: Path) -> None:
    (done,) = session.run([part(session, "late", "print('| one | | 1 | |')")], tmp_path, 0)
    assert not done.rows
    assert "| what late measures (late) | | not measured | no time was left |" in (tmp_path / "summary.md").read_text()


def test_what_a_part_has_started_ends_with_it(session: Any) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        session._end(process)
        # The pipe ends when nobody has its other end any more.
        assert select.select([process.stdout], [], [], 60)[0]
        assert process.stdout.read() == b""


@pytest.mark.parametrize(
    "output",
    [
        "tests/a.py::one[cupy-1 2] PASSED [ 50%]\ntests/a.py::two FAILED [100%]\nFAILED tests/a.py::two - assert 1\n",
        "tests/a.py::two \n[gw0] [ 50%] PASSED tests/a.py::one[cupy-1 2] \n[gw1] [100%] FAILED tests/a.py::two \n",
    ],
)
def test_the_tests_are_told_by_name(session: Any, output: str) -> None:
    count, failed = session.tested(output)
    assert count == "| tests for a device | all pass | 1 failed, 1 passed | **missed** |"
    assert failed == "| tests/a.py::two | passes | fails | **missed** |"
    assert session.tested(output.replace("FAILED", "PASSED")) == ["| tests for a device | all pass | 2 passed | met |"]


@pytest.mark.parametrize("line", ["{1} {0} [ 50%]", "[gw0] [ 50%] {0} {1} "])
def test_a_test_whose_fixture_fails_after_it_has_not_passed(session: Any, line: str) -> None:
    output = "\n".join(line.format(verdict, "tests/a.py::one") for verdict in ("PASSED", "ERROR"))
    assert session.tested(f"{output}\nERROR tests/a.py::one - ValueError: torn\n") == [
        "| tests for a device | all pass | 1 error | **missed** |",
        "| tests/a.py::one | passes | fails | **missed** |",
    ]


def test_parts_that_are_not_there_are_refused(
    session: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_session.py", "--only", "tests", "sever"])
    with pytest.raises(SystemExit):
        session.main()
    assert "there is no part sever; parts: server, replays," in capsys.readouterr().err


def test_no_tests_are_not_a_success(session: Any) -> None:
    assert session.tested("no tests ran in 0.1 s\n") == ["| tests for a device | all pass | none ran | not measured |"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_all_parts_are_there(session: Any, device: str) -> None:
    chosen = list(session.parts(argparse.Namespace(device=device, size=64, slices=2, scans=None)))
    scripts = [p.words[0] for p in chosen if p.name != "tests"]
    assert all((ROOT / script).is_file() for script in scripts)
    (tests,) = (p for p in chosen if p.name == "tests")
    assert {"tests/mrnets/test_fused.py", "tests/physics/test_fourier.py"} <= set(tests.words)


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ({"most": 3.0}, "| x | at most 3 ms | 2.5 ms | met |"),
        ({"most": 2.0}, "| x | at most 2 ms | 2.5 ms | **missed** |"),
        ({"least": 3.0}, "| x | at least 3 ms | 2.5 ms | **missed** |"),
        ({"most": 3.0, "cuda": False}, "| x | at most 3 ms | 2.5 ms | no device: means nothing |"),
        ({"most": 3.0, "value": float("nan")}, "| x | at most 3 ms | nan ms | **missed** |"),
        ({"more": "a | b"}, "| x |  | 2.5 ms (a / b) |  |"),
    ],
)
def test_rows_judge(session: Any, capsys: pytest.CaptureFixture[str], given: dict[str, Any], verdict: str) -> None:
    rows = importlib.import_module("rows")
    rows.measured("x", **{"value": 2.5, "unit": "ms", **given})
    printed = capsys.readouterr().out
    assert printed == f"{verdict}\n"
    assert session._ROW.findall(printed) == [verdict]
