"""The command line: the tables, and one sentence instead of a traceback."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from mrnets import measure, store
from mrnets.__main__ import main
from tests.mrnets.examples import create


def test_list_has_a_line_for_every_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--quick"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["name", "task", "parameters"]
    assert [line.split()[0] for line in lines] == store.names()
    assert next(line.split()[1:3] for line in lines if line.startswith("varnet")) == ["reconstruction", "19,634,712"]


def test_list_measures_a_slice_and_says_which(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "names", lambda: ["vsnet", "zerofilled"])
    assert main(["list"]) == 0
    out, err = capsys.readouterr()
    heading, table = out.split("\n\n")
    assert "one slice of 64 x 64, of 8 coils" in heading
    header, vsnet, zerofilled = (re.split(r" {2,}", line) for line in table.splitlines())
    assert header == ["name", "task", "parameters", "multiply-adds", "CPU seconds", "what (paper)"]
    # Ten cascades of four convolutions 3 x 3, between 2 and 64 channels.
    assert vsnet[3] == f"{10 * 9 * 64**2 * (2 * 2 * 64 + 2 * 64**2) / 1e9:.2f} G"
    assert float(vsnet[4]) > 0
    assert zerofilled[3] == "0.00 G"
    assert vsnet[5].endswith("(Duan et al., MICCAI 2019)")
    assert "running vsnet" in err


def test_show_prints_what_the_file_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "unet.safetensors"
    network = create("unet")
    store.save(
        path,
        network,
        name="unet",
        options=store.describe("unet").small,
        preparation={"coils": 8},
        labels=["grey", "white"],
        provenance={"licence": "CC0", "note": "bell \a and\nline"},
    )
    assert main(["show", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"{sum(p.numel() for p in network.parameters()):,} in {len(network.state_dict())} tensors" in out
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    for pair in (["network", "unet"], ["pooling_layers", "2"], ["coils", "8"], ["1", "white"], ["licence", "CC0"]):
        assert pair in lines
    assert ["note", "bell ? and?line"] in lines


@pytest.mark.parametrize("content", [None, b"", b"PK", b"\xff" * 100])
def test_show_of_anything_else_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert main(["show", str(path)]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("python -m mrnets: ")
    assert err.count("\n") == 1


def test_cost_counts_the_multiply_adds_of_convolutions() -> None:
    threads = torch.get_num_threads()
    # The lowest level of the U-Net alone: 512 to 1024 and 1024 to 1024 channels, 3 x 3, on 2 x 2 pixels.
    assert measure.cost("unet", coils=2, size=32).multiply_adds > 9 * 4 * (512 * 1024 + 1024 * 1024)
    assert torch.get_num_threads() == threads
