"""The command line: the tables, and one sentence instead of a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrnets import measure, store
from mrnets.__main__ import main
from tests.mrnets.examples import SMALL, create


def test_list_has_a_line_for_every_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["name", "task", "parameters"]
    assert [line.split()[0] for line in lines] == store.names()
    assert next(line.split()[1:3] for line in lines if line.startswith("varnet")) == ["reconstruction", "19,634,712"]


def test_show_prints_what_the_file_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "unet.safetensors"
    network = create("unet")
    store.save(
        path,
        network,
        name="unet",
        options=SMALL["unet"],
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


def test_cost_counts_the_multiply_adds_of_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure.example
    monkeypatch.setattr(measure, "example", lambda name: whole(name, coils=2, size=32))
    assert measure.cost("zerofilled").multiply_adds == 0
    # The lowest level of the U-Net alone: 512 to 1024 and 1024 to 1024 channels, 3 x 3, on 2 x 2 pixels.
    assert measure.cost("unet").multiply_adds > 9 * 4 * (512 * 1024 + 1024 * 1024)
