"""Each tutorial runs from its first to its last line, and becomes a notebook with all of its cells."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from docs.pages import ROOT

SCRIPTS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
MADE = {
    "add_a_network": ["run/unrolled.safetensors", "images.h5"],
    "from_raw_data_to_dicom": ["report.html", "images_l1wavelet.nii.gz", "dicom/l1wavelet/001_Image/0002.dcm"],
    "train_on_your_own_scans": ["run/mine.safetensors", "images.h5", "chains/mine.xml"],
}
"""Files that a tutorial must have written at its end."""
each = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


@each
def test_every_tutorial_is_listed_and_begins_with_a_title(script: Path) -> None:
    assert script.read_text(encoding="utf-8").splitlines()[:2] == ["# %% [markdown]", f"# # {title(script)}"]
    assert f"[{title(script)}]({script.stem}.md)" in (script.parent / "index.md").read_text(encoding="utf-8")
    assert script.stem in MADE


def title(script: Path) -> str:
    return script.read_text(encoding="utf-8").splitlines()[1].removeprefix("# # ")


@each
@pytest.mark.slow
def test_every_tutorial_runs(script: Path, tmp_path: Path) -> None:
    for package in ("pydicom", "nibabel", "matplotlib", "yaml"):
        pytest.importorskip(package, reason="a tutorial needs the extras export, report and training")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    command = [sys.executable, str(script)]
    with (tmp_path / "said").open("w") as said:  # no pipe: a process that a tutorial left behind would hold it open
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=said, stderr=subprocess.STDOUT, timeout=1200
        )
    assert done.returncode == 0, (tmp_path / "said").read_text()
    assert all((tmp_path / name).stat().st_size > 0 for name in MADE[script.stem])


@each
def test_every_tutorial_becomes_a_notebook(script: Path) -> None:
    jupytext = pytest.importorskip("jupytext", reason="the extra docs is not installed")
    notebook = jupytext.reads(jupytext.writes(jupytext.read(script), "ipynb"), "ipynb")
    assert len(notebook.cells) == script.read_text(encoding="utf-8").count("# %%")
    assert {cell.cell_type for cell in notebook.cells} == {"markdown", "code"}
