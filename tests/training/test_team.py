"""Two processes that train together, on the CPU with gloo, against one process."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mrnets import store
from mrnets.files import make_folder, reserved
from tests.training.layouts import write_knees_converted

ROOT = Path(__file__).parents[2]
# The consistency is weak: a strong one solves equations that multiply rounding, which differs with the size of a batch.
RECIPE = """
network: {name: varnet, options: {cascades: 2, channels: 2, pooling_layers: 1}}
reader: {name: knees, split: {counts: [2, 1, 0]}}
masks: {accelerations: [2, 2.5], centres: [0.3]}
preparation: {sens: rss, whiten: none, consistency: 0.001}
optimiser: {warm_up: 0}
validation: {every: 2, examples: 2}
weights: none
folder: none
workers: 0
steps: 2
"""


def start(
    folder: Path, name: str, world: int, *overrides: str, own: Sequence[tuple[str, ...]] = ()
) -> list[subprocess.Popen[str]]:
    """`world` processes of one run, as torchrun starts them. own: more overrides of each process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    command = [sys.executable, "-m", "tests.training.one_of_a_team", str(folder / "recipe.yaml")]
    command += [f"data={folder / 'data'}", f"folder={folder / name}", *overrides]
    team = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [*command, f"weights={folder / f'{name}{rank}.safetensors'}", *(own[rank] if own else ())],
            env={**os.environ, **team, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            text=True,
            stderr=subprocess.PIPE,
        )
        for rank in range(world)
    ]


def told(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Return what each process says on stderr until its end."""
    try:
        return [process.communicate(timeout=480)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()


def finish(processes: list[subprocess.Popen[str]]) -> None:
    errors = told(processes)
    assert all(process.returncode == 0 for process in processes), errors


def gradients(path: Path) -> dict[str, Any]:
    return dict(torch.load(f"{path}.gradients", weights_only=True))


def whole(gradients: dict[str, Any]) -> torch.Tensor:
    """All gradients as one vector. Some of its parts are nearly zero by themselves, and rounding is all they hold."""
    return torch.cat([gradient.flatten() for gradient in gradients.values()]).double()


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_give_the_gradients_of_one_with_the_double_batch(
    tmp_path: Path, rng: np.random.Generator, accumulate: int
) -> None:
    write_knees_converted(tmp_path / "data", rng)
    option = f"optimiser.accumulate={accumulate}"
    both = start(tmp_path, "both", 2, "batch=1", option) + start(tmp_path, "one", 1, "batch=2", option)
    finish(both)
    one, first, second = (gradients(tmp_path / f"{name}.safetensors") for name in ("one0", "both0", "both1"))
    assert all(torch.equal(first[name], second[name]) for name in one)
    error = whole(first) - whole(one)
    assert float(torch.linalg.vector_norm(error) / torch.linalg.vector_norm(whole(one))) < 1e-4
    assert store.load(tmp_path / "both0.safetensors").name == "varnet"
    assert not (tmp_path / "both1.safetensors").exists()  # only the first process writes


@pytest.mark.slow
def test_nodes_that_share_no_folder_go_on_together(tmp_path: Path, rng: np.random.Generator) -> None:
    """The second process has no checkpoint. Both end with the weights of a run that was not cut off."""
    write_knees_converted(tmp_path / "data", rng)
    apart = [(f"folder={tmp_path / name}",) for name in ("node0", "node1")]
    steady = "optimiser.schedule=constant"  # a cosine ends with the run
    finish(start(tmp_path, "cut", 2, "steps=2", "save_every=2", steady, own=apart))
    assert (tmp_path / "node0" / "checkpoint.pt").exists()
    assert not (tmp_path / "node1" / "checkpoint.pt").exists()
    finish(start(tmp_path, "cut", 2, "steps=4", steady, own=apart) + start(tmp_path, "whole", 2, "steps=4", steady))
    cut, unbroken = (store.load(tmp_path / f"{name}0.safetensors").network.state_dict() for name in ("cut", "whole"))
    assert all(torch.equal(cut[name], unbroken[name]) for name in unbroken)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ("data=OTHER", "its data have 3 slices for training, and those of the first process 6"),
        ("optimiser.warm_up=7", "it has another optimiser.warm_up (0"),
    ],
)
def test_a_node_that_cannot_follow_says_so_and_none_waits(
    changed: str, sentence: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    write_knees_converted(tmp_path / "data", rng)
    write_knees_converted(tmp_path / "other", rng, 2)
    own = changed.replace("OTHER", str(tmp_path / "other"))
    errors = told(start(tmp_path, "a", 2, own=[(), (own,)]))
    assert sentence in errors[1]
    assert "another process cannot go on" in errors[0]


@pytest.mark.slow
def test_a_node_without_data_and_a_folder_in_use_end_all(tmp_path: Path, rng: np.random.Generator) -> None:
    write_knees_converted(tmp_path / "data", rng)
    errors = told(start(tmp_path, "a", 2, own=[(), (f"data={tmp_path / 'nowhere'}",)]))
    assert f"data: no folder {tmp_path / 'nowhere'}" in errors[1]
    assert "another process cannot go on" in errors[0]
    with reserved(make_folder(tmp_path / "b") / "run"):
        errors = told(start(tmp_path, "b", 2))
    assert "is being written by another run" in errors[0]
    assert "another process cannot go on" in errors[1]


@pytest.mark.slow
def test_a_damaged_checkpoint_of_the_first_node_ends_all(tmp_path: Path, rng: np.random.Generator) -> None:
    write_knees_converted(tmp_path / "data", rng)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "checkpoint.pt").write_bytes(b"nothing")
    apart = [(f"folder={tmp_path / name}",) for name in ("a", "b")]
    errors = told(start(tmp_path, "a", 2, own=apart))
    assert "is damaged" in errors[0]
    assert "another process cannot go on" in errors[1]
