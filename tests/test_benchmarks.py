"""Every benchmark starts as `make bench` starts it: by its path. Its own folder is known then, and `tests` is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "benchmarks"
IMPORTED = """
import runpy, sys
sys.modules["tests"] = None
sys.path[0] = sys.argv[1]
for script in sys.argv[2:]:
    runpy.run_path(script, run_name="imported")
    print(script)
"""


def test_each_script_finds_what_it_imports(tmp_path):
    scripts = [str(script) for script in sorted(FOLDER.glob("bench_*.py"))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", IMPORTED, str(FOLDER), *scripts]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == scripts
