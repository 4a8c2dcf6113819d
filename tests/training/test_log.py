"""The log of a run: a table that survives kills and new columns, and what TensorBoard and W&B read of it."""

from __future__ import annotations

import csv
import json
import math
import struct
import sys

import numpy as np
import pytest

from mrnets.errors import InputError
from mrnets.files import reserved
from training.log import EVERY, Log

PICTURES = [np.full((6, 9, 3), 200, np.uint8), np.zeros((4, 8, 3), np.uint8)]


def table(folder):
    with open(folder / "log.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def logged(folder, steps, *, kinds=(), start=0, **more):
    log = Log(folder, kinds, start, 100)
    for step in steps:
        log.row({"step": step, "loss": 1 / step, **more})
        log.show(step, PICTURES)
    log.close()


def test_a_run_that_goes_on_repeats_no_row(tmp_path):
    logged(tmp_path, [10, 20, 30])
    logged(tmp_path, [30, 40], start=20, ssim=0.9)  # killed at 30, its last checkpoint was of 20
    assert [row["step"] for row in table(tmp_path)] == ["10", "20", "30", "40"]
    assert [row["ssim"] for row in table(tmp_path)] == ["", "", "0.9", "0.9"]
    assert float(table(tmp_path)[0]["loss"]) == 0.1
    logged(tmp_path, [10])  # a checkpoint that was removed: anew
    assert [row["step"] for row in table(tmp_path)] == ["10"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.csv", "steps.csv"]


def steps(folder):
    with open(folder / "steps.csv", newline="", encoding="utf-8") as file:
        return [(row["step"], row["loss"], row["event"]) for row in csv.DictReader(file)]


def test_steps_are_logged_and_where_the_run_went_on(tmp_path, capsys):
    log = Log(tmp_path, [], 0, 100)
    for step in (20, 40, 60):
        log.step(step, {"loss": 1 / step, "learning rate": 1e-3, "gradient norm": 0.5})
    assert steps(tmp_path) == [("20", "0.05", ""), ("40", "0.025", ""), ("60", "0.0166667", "")]
    assert capsys.readouterr().out == ""
    with open(tmp_path / "steps.csv", "a", encoding="utf-8") as file:
        file.write("80,0.1")  # killed while it wrote
    log = Log(tmp_path, [], 50, 100)  # the last checkpoint was of 50
    assert capsys.readouterr().out == "going on from step 50 of 100\n"
    log.step(60, {"loss": 0.5, "learning rate": 1e-3, "gradient norm": 0.5})
    assert steps(tmp_path) == [("20", "0.05", ""), ("40", "0.025", ""), ("50", "", "going on"), ("60", "0.5", "")]
    Log(tmp_path, [], 0, 100)  # anew
    assert steps(tmp_path) == []


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "step\nmany\n", "step\n1,2\n", b"step\n\xff\n", "step,loss\n5\n,3\n"])
def test_a_table_of_something_else_is_not_overwritten(tmp_path, text):
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"log\.csv is not the log of a run"):
        Log(tmp_path, [], 10, 100)
    assert (tmp_path / "log.csv").read_bytes() == content


def test_a_table_that_cannot_be_written_costs_nothing(tmp_path):
    logged(tmp_path, [10])
    with reserved(tmp_path / "log.csv"), pytest.raises(InputError, match=r"log\.csv is being written by another run"):
        logged(tmp_path, [20], start=10)
    assert [row["step"] for row in table(tmp_path)] == ["10"]


def test_progress(tmp_path, capsys):
    log = Log(tmp_path, [], 0, 100)
    for step in range(1, 2 * EVERY + 4):
        log.progress(step, 2 * EVERY + 3, 0.25, 3.0, 0.041)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["20/43", "40/43", "43/43"]
    assert lines[0] == "step 20/43  loss 0.2500  3.00 s/step  1 min left  4 % waiting for data"


def test_a_validation_says_what_it_found(tmp_path, capsys):
    logged(tmp_path, [500], ssim=0.91234567, dice=math.nan)
    assert capsys.readouterr().out == "step 500  loss 0.002  ssim 0.9123  dice nan\n"
    assert table(tmp_path)[0]["dice"] == "nan"


@pytest.mark.parametrize(("kind", "extra"), [("tensorboard", "tensorboard"), ("wandb", "wandb")])
def test_what_is_not_installed_is_named(tmp_path, monkeypatch, kind, extra):
    monkeypatch.setitem(sys.modules, kind, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(InputError, match=rf"option log: {kind} needs {kind}.*networks\[{extra}\]"):
        Log(tmp_path, [kind], 0, 100)


def test_unknown_kinds(tmp_path):
    with pytest.raises(InputError, match=r"unknown value of option log: 'tensorbord'; did you mean 'tensorboard'"):
        Log(tmp_path, ["tensorbord"], 0, 100)


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged(tmp_path, [10, 20, 30], kinds=["tensorboard"])
    logged(tmp_path, [30, 40], kinds=["tensorboard"], start=20, ssim=0.5)
    log = Log(tmp_path, ["tensorboard"], 40, 100)
    log.step(50, {"loss": 0.25, "learning rate": 0.5, "gradient norm": 2.0})
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [
        (step, pytest.approx(1 / step)) for step in (10, 20, 30, 40)
    ]
    assert [(e.step, e.value) for e in events.Scalars("ssim")] == [(30, 0.5), (40, 0.5)]
    found = {name: [(e.step, e.value) for e in events.Scalars(f"train/{name}")] for name in ("loss", "learning rate")}
    assert found == {"loss": [(50, 0.25)], "learning rate": [(50, 0.5)]}
    for n, picture in enumerate(PICTURES):
        shown = events.Images(f"validation/{n}")
        assert [e.step for e in shown] == [10, 20, 30, 40]
        assert (shown[0].height, shown[0].width) == picture.shape[:2]


def records(data):
    """Records of a wandb file: after 7 bytes a LevelDB log, blocks of 32 KiB of records with a head of 7 bytes."""
    at, parts = 7, b""
    while at + 7 < len(data):
        if (room := -at % 32768) < 7 and room:
            at += room
        length, kind = struct.unpack_from("<HB", data, at + 4)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole one, or the last part of one
            yield parts
            parts = b""


@pytest.mark.slow
def test_weights_and_biases_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "options.json").write_text(json.dumps({"steps": 40}), encoding="utf-8")
    logged(tmp_path, [10, 20], kinds=["wandb"])
    (tmp_path / "wandb").rename(tmp_path / "before")  # W&B's folders have names by the second
    logged(tmp_path, [20, 30], kinds=["wandb"], start=10)
    wandb.teardown()  # its process writes files to their end when it ends

    runs = sorted(tmp_path.glob("*/offline-run-*/run-*.wandb"))
    assert len({path.stem for path in runs}) == 1  # both parts are of one run
    found = []
    for path in runs:
        for data in records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            values = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
            if "loss" in values:
                found.append((values["_step"], values["loss"]))
    assert sorted(found) == [(10, 0.1), (20, 0.05), (20, 0.05), (30, pytest.approx(1 / 30))]
    assert len(list(tmp_path.glob("*/offline-run-*/files/media/images/validation/*.png"))) == 8
