"""The loop, on simulated scans of a few pixels."""

import csv
import dataclasses
import math
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mrnets import files, store
from mrnets.blocks import fused
from mrnets.errors import InputError
from mrnets.files import reserved
from mrnets.preparation import Preparation
from training import checkpoint, loop, targets, tasks
from training.__main__ import main
from training.batches import Batches, examples
from training.options import Early, Loss, Network, Options, Stage, Validation
from training.settings import Simulated
from training.step import Feed

ROOT = Path(__file__).parents[2]
SETTINGS = Simulated(matrix=(32, 40), coils=(4, 6), acceleration=(2, 3), calibration=(10, 12), masks=("equispaced1d",))


def ball(size: int = 40) -> np.ndarray:
    """A volume with something in it: nested balls."""
    z, y, x = np.mgrid[:size, :size, :size] * 2 / size - 1
    radius = np.sqrt(z**2 + (y / 0.9) ** 2 + (x / 0.7) ** 2)
    return ((radius < 0.9) * (0.5 + 0.4 * (radius < 0.5) * (x > 0) + 0.1 * np.sin(5 * y + z))).astype(np.float32)


def small(tmp_path: Path) -> Options:
    """A run of seconds."""
    np.stack([ball()[20], ball()[15]]).T.astype(np.complex64).ravel(order="F").tofile(tmp_path / "ball.cfl")
    (tmp_path / "ball.hdr").write_text("# Dimensions\n40 40 2\n", encoding="ascii")
    return Options(
        network=Network(name="varnet", options={"cascades": 1, "channels": 2, "pooling_layers": 1}),
        weights=str(tmp_path / "weights.safetensors"),
        folder=str(tmp_path / "run"),
        data=str(tmp_path),
        simulated=SETTINGS,
        validation=Validation(every=2, examples=2),
        steps=4,
        save_every=2,
        workers=0,
    )


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return small(tmp_path)


def changed(options: Options, **optimiser: Any) -> Options:
    return dataclasses.replace(options, optimiser=dataclasses.replace(options.optimiser, **optimiser))


def elsewhere(options: Options, name: str) -> Options:
    """The same run in another folder."""
    folder = Path(options.folder).parent
    return dataclasses.replace(options, folder=str(folder / name), weights=str(folder / f"{name}.safetensors"))


def weights(path: str) -> dict[str, Any]:
    return dict(store.load(path).network.state_dict())


def same(one: Options, other: Options) -> bool:
    a, b = weights(one.weights), weights(other.weights)
    return all(torch.equal(a[name], b[name]) for name in a)


def rows(options: Options) -> list[dict[str, str]]:
    with open(Path(options.folder) / "log.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_an_example_depends_on_its_number_only(options: Options) -> None:
    def one(n: int, part: Any = "train", workers: int = 0) -> Any:
        made = Batches(tasks.opened(options, part), options, part, 2)
        return next(examples(made, range(n, n + 1), workers, "cpu"))

    assert torch.equal(one(3).target, one(3).target)
    here, there = one(3).scan.kspace, one(3, workers=1).scan.kspace  # a worker has one thread, and sums otherwise
    assert torch.linalg.vector_norm(here - there) <= 1e-6 * torch.linalg.vector_norm(here)
    for other in (one(4), one(3, "validation")):
        assert other.target.shape != one(3).target.shape or not torch.equal(other.target, one(3).target)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("killed", [1, 3])
def test_a_run_that_was_killed_ends_as_an_unbroken_one(options: Options, killed: int, accumulate: int) -> None:
    options = dataclasses.replace(changed(options, accumulate=accumulate, warm_up=2), save_every=1)
    broken = elsewhere(options, "broken")
    loop.fit(options)
    loop.fit(broken, stop_at=killed)
    assert not Path(broken.weights).exists()
    loop.fit(broken)
    assert same(options, broken)
    assert [row["step"] for row in rows(broken)] == ["2", "4"]
    assert rows(broken)[-1]["loss"] == rows(options)[-1]["loss"]


def test_dropout_is_the_same_after_a_kill(options: Options) -> None:
    network = Network(name="unet", options={"channels": 4, "pooling_layers": 1, "dropout": 0.5})
    options = dataclasses.replace(options, network=network, save_every=1)
    broken = elsewhere(options, "broken")
    loop.fit(options)
    loop.fit(broken, stop_at=3)
    loop.fit(broken)
    assert same(options, broken)


def test_the_weights_file_says_where_it_comes_from(options: Options) -> None:
    loop.fit(dataclasses.replace(options, licence="CC0"))
    header = store.header(options.weights)
    assert header["network"] == "varnet"
    assert Preparation.from_json(header["preparation"]) == Preparation()
    assert header["provenance"]["licence"] == "CC0"
    assert header["provenance"]["data"] == ["ball.cfl"]
    assert set(header["provenance"]["scores"]) >= {"ssim", "psnr", "nmse"}
    assert str(Path(options.folder).parent) not in str(header)  # no place of the machine it was trained on


def test_parameters_that_start_at_zero(options: Options) -> None:
    network = dataclasses.replace(options.network, zero=("head.weight", "head.bias"))
    loop.fit(changed(dataclasses.replace(options, network=network), learning_rate=0.0))
    heads = [value for name, value in weights(options.weights).items() if ".head." in name]
    assert heads
    assert all(float(value.abs().max()) == 0 for value in heads)


def test_parameters_that_no_network_has_are_told(options: Options, caplog: pytest.LogCaptureFixture) -> None:
    network = dataclasses.replace(options.network, zero=("head.weight", "haed.bias"))
    loop.fit(dataclasses.replace(options, network=network, steps=1))
    assert "network.zero: no parameter of varnet ends with 'haed.bias'" in caplog.text
    assert "head.weight" not in caplog.text


def test_gradients_that_are_not_finite_are_told(
    options: Options, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("training.step.nn.utils.clip_grad_norm_", lambda *_: torch.tensor(math.inf))
    loop.fit(dataclasses.replace(options, log_every=1))
    (told,) = [record.message for record in caplog.records if "is not finite" in record.message]
    assert told.startswith("the gradient of step 1 is not finite")


def test_a_run_may_start_from_weights(options: Options) -> None:
    loop.fit(options)
    network = dataclasses.replace(options.network, start=options.weights)
    second = elsewhere(changed(dataclasses.replace(options, network=network), learning_rate=0.0), "second")
    loop.fit(second)
    assert same(options, second)
    assert store.header(second.weights)["provenance"]["options"]["network"]["start"] == "weights.safetensors"
    wider = dataclasses.replace(network, options={**network.options, "channels": 3})
    with pytest.raises(
        InputError, match=r"cannot start from .*safetensors: its option channels is 2, and here it is 3"
    ):
        loop.fit(elsewhere(dataclasses.replace(second, network=wider), "third"))


def test_only_the_parameters_of_a_stage_learn(options: Options) -> None:
    inner, outer = "unets.0.unet.encoder.bottom.conv1.weight", "unets.0.unet.decoder.head.bias"
    stage = Stage(until=2, loss=Loss(l2=1.0), trains=("unets.0.unet.encoder",))
    one = changed(dataclasses.replace(options, stages=(stage,), save_every=1), warm_up=0, ema=0.0)
    states = []
    for step in (1, 2, 3):
        loop.fit(one, stop_at=step)
        states.append(checkpoint.read(Path(one.folder) / "checkpoint.pt")["network"])
    assert torch.equal(states[0][outer], states[1][outer])
    assert not torch.equal(states[0][inner], states[1][inner])
    assert not torch.equal(states[1][outer], states[2][outer])


def test_a_stage_that_trains_nothing_is_named(options: Options) -> None:
    stage = Stage(until=2, loss=Loss(l2=1.0), trains=("decoder",))
    with pytest.raises(InputError, match=r"trains names 'decoder', and no parameter starts so; there is"):
        loop.fit(dataclasses.replace(options, stages=(stage,)))


def test_early_stopping_keeps_the_best_weights(options: Options) -> None:
    """With a learning rate of 0 nothing gets better: it ends after the first validation and `patience` more."""
    early = dataclasses.replace(options, early=Early(metric="ssim", patience=2), steps=100)
    loop.fit(changed(early, learning_rate=0.0))
    assert [row["step"] for row in rows(options)] == ["2", "4", "6"]
    assert Path(options.weights).exists()
    with pytest.raises(InputError, match=r"early\.metric: no 'dise' among loss"):
        loop.fit(elsewhere(dataclasses.replace(early, early=Early(metric="dise", patience=1)), "other"))


def test_a_run_that_stopped_early_stays_so(options: Options) -> None:
    """Killed before it wrote its weights, it does not train on. Values of another metric say nothing of the best."""
    early = dataclasses.replace(options, early=Early(metric="nmse", patience=1), steps=8)
    still = changed(early, learning_rate=0.0)
    loop.fit(still)
    loop.fit(still)
    assert [row["step"] for row in rows(options)] == ["2", "4"]
    loop.fit(dataclasses.replace(still, early=Early(metric="ssim", patience=1)))
    assert [row["step"] for row in rows(options)] == ["2", "4", "6", "8"]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision(options: Options, precision: Any) -> None:
    loop.fit(dataclasses.replace(options, precision=precision))
    assert all(bool(torch.isfinite(value).all()) for value in weights(options.weights).values())


@pytest.mark.parametrize("kernels", [False, True])
def test_training_asks_for_kernels_where_its_option_says_so(
    options: Options, kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[bool] = set()

    def known(x: torch.Tensor) -> bool:
        asked.add(fused._wanted.get())
        return False

    monkeypatch.setattr(fused, "known", known)
    loop.fit(dataclasses.replace(options, kernels=kernels, steps=1), stop_at=1)
    assert (True in asked) == kernels


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(options: Options) -> None:
    compiled = elsewhere(dataclasses.replace(options, compile=True), "compiled")
    loop.fit(options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's compiler, about itself
        loop.fit(compiled)
    one, other = weights(options.weights), weights(compiled.weights)
    assert all(torch.allclose(one[name], other[name], atol=1e-3) for name in one)


def test_epochs_are_passes_over_the_data(options: Options) -> None:
    simulated = dataclasses.replace(options.simulated, examples=6)
    loop.fit(changed(dataclasses.replace(options, simulated=simulated, epochs=1.0, batch=1), accumulate=2))
    assert rows(options)[-1]["step"] == "3"


def test_a_loss_that_is_not_a_number_stops_the_run(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoned(raw: Any, coil_images: Any, *rest: Any) -> Any:
        calls.append(1)
        ready, target, *more = prepared(raw, coil_images, *rest)
        return ready, target * (float("nan") if len(calls) == 6 else 1.0), *more

    calls: list[int] = []
    prepared = targets.prepared
    monkeypatch.setattr(targets, "prepared", poisoned)
    with pytest.raises(InputError, match=r"the loss of step 3 is nan, of .+; the last checkpoint before it stays in"):
        loop.fit(options)
    state = checkpoint.read(Path(options.folder) / "checkpoint.pt")
    assert state["step"] == 2
    assert all(bool(torch.isfinite(value).all()) for value in state["network"].values())
    assert not Path(options.weights).exists()


@pytest.mark.parametrize("first", [None, lambda raw: raw.kspace[:, :, 0]])
def test_a_reader_that_fails_in_a_worker_says_its_own_sentence(
    options: Options, first: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the network of a first stage makes images, workers read and do not prepare."""
    batches = Batches(tasks.opened(options, "train"), options, "train", 1)

    def broken(self: Batches, n: int) -> Any:
        raise InputError("file7.h5: is cut short")

    monkeypatch.setattr(Batches, "__getitem__", broken)
    with pytest.raises(InputError, match=r"^file7\.h5: is cut short$"):
        next(examples(batches, range(2), 1, "cpu", first))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_file_that_cannot_be_read_costs_no_step(
    options: Options, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on from the step that needed it, once the file is mended, and ends as an unbroken one."""
    optimiser = dataclasses.replace(options.optimiser, accumulate=accumulate)
    options = dataclasses.replace(options, optimiser=optimiser, save_every=100)
    broken = elsewhere(options, "broken")
    loop.fit(options)
    made = Batches.__getitem__

    def cut_short(self: Batches, n: int) -> Any:
        if self.part == "train" and n == 3 * accumulate + accumulate // 2:
            raise InputError("file7.h5: is cut short")
        return made(self, n)

    with monkeypatch.context() as patched:
        patched.setattr(Batches, "__getitem__", cut_short)
        with pytest.raises(InputError, match=r"^file7\.h5: is cut short$"):
            loop.fit(broken)
    asked = list[int]()

    def counted(self: Batches, n: int) -> Any:
        asked.append(n)
        return made(self, n)

    monkeypatch.setattr(Batches, "__getitem__", counted)
    loop.fit(broken)
    assert 3 * accumulate in asked
    assert 2 * accumulate not in asked
    assert same(options, broken)


def test_a_worker_that_is_killed_is_told(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Batches.__getitem__

    def killed(self: Batches, n: int) -> Any:
        if torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return made(self, n)

    monkeypatch.setattr(Batches, "__getitem__", killed)
    with pytest.raises(
        InputError, match=r"a process that reads examples has ended \(DataLoader worker .*fewer workers"
    ):
        loop.fit(dataclasses.replace(options, workers=1))


def test_a_full_disk_keeps_the_last_checkpoint(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    loop.fit(options, stop_at=3)

    def full(source: Path, target: Path) -> None:
        if target.name == "checkpoint.pt":
            raise OSError(28, "No space left on device")
        replace(source, target)

    replace = os.replace
    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(InputError, match=r"cannot write .*checkpoint\.pt: No space left.*before it is kept"):
        loop.fit(options)
    assert checkpoint.read(Path(options.folder) / "checkpoint.pt")["step"] == 2
    assert not list(Path(options.folder).glob(".*partial"))


def test_a_checkpoint_of_another_network_is_refused(options: Options) -> None:
    loop.fit(options, stop_at=3)
    other = dataclasses.replace(options.network, options={"cascades": 2, "channels": 2, "pooling_layers": 1})
    with pytest.raises(InputError, match=r"was made with another network\.options\.cascades \(1, now 2\)"):
        loop.fit(dataclasses.replace(options, network=other))


def test_a_run_goes_on_whatever_its_options_are_called(options: Options) -> None:
    loop.fit(options, stop_at=3)
    named = {"num_cascades" if key == "cascades" else key: value for key, value in options.network.options.items()}
    network = dataclasses.replace(options.network, options={**named, "sens_net": False})
    loop.fit(dataclasses.replace(options, network=network))
    assert Path(options.weights).exists()


def test_a_damaged_checkpoint_is_named(options: Options) -> None:
    loop.fit(options, stop_at=3)
    path = Path(options.folder) / "checkpoint.pt"
    whole, rng = path.read_bytes(), np.random.default_rng(5)
    flipped = [bytearray(whole) for _ in range(30)]
    for content in flipped:
        content[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
    for content in (b"", whole[:1], whole[:1000], whole[:-1], whole + b"x", *flipped):
        path.write_bytes(content)
        with pytest.raises(
            InputError, match=r"^[^\n]*checkpoint\.pt is damaged: its checksum is absent or wrong[^\n]*$"
        ):
            checkpoint.read(path)
    with pytest.raises(InputError, match=r"checkpoint\.pt is damaged"):
        loop.fit(options)


def test_a_checkpoint_holds_no_code_and_no_advice_to_run_it(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    for state in ({"a": Path("x")}, {"a": print}):
        checkpoint.write(path, state)
        with pytest.raises(
            InputError, match=r"^[^\n]* is not a checkpoint of this version of the program[^\n]*$"
        ) as caught:
            checkpoint.read(path)
        assert "weights_only" not in str(caught.value)


def test_two_runs_do_not_share_a_folder(options: Options) -> None:
    Path(options.folder).mkdir()
    with reserved(Path(options.folder) / "run"), pytest.raises(InputError, match="is being written by another run"):
        loop.fit(options)
    loop.fit(options)


def test_a_network_of_another_task_is_refused(options: Options) -> None:
    with pytest.raises(InputError, match=r"segunet \(segmentation\) needs images with labels, which the reader simul"):
        loop.fit(dataclasses.replace(options, network=Network(name="segunet")))


def test_a_device_that_is_not_there(options: Options) -> None:
    with pytest.raises(InputError, match="no such device: 'gpu'"):
        loop.fit(dataclasses.replace(options, device="gpu"))
    for device in ("meta", "mps"):
        with pytest.raises(InputError, match=f"networks train on cpu and cuda .* not on '{device}'"):
            loop.fit(dataclasses.replace(options, device=device))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="torch finds no CUDA device"):
            loop.fit(dataclasses.replace(options, device="cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_a_cuda_device_learns_the_same(options: Options, workers: int) -> None:
    options = dataclasses.replace(changed(options, learning_rate=1e-4), batch=2, steps=8, workers=workers)
    loop.fit(options)
    there = dataclasses.replace(elsewhere(options, "there"), device="cuda")
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        loop.fit(there)
    one, other = (losses(each) for each in (options, there))
    np.testing.assert_allclose(other, one, rtol=1e-3)


def losses(options: Options) -> list[float]:
    """Losses of training and validation, at each validation of a run."""
    with open(Path(options.folder) / "log.csv", encoding="utf-8", newline="") as file:
        return [float(row[key]) for row in csv.DictReader(file) for key in ("train loss", "loss")]


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("network: {name: varnet}\nweights: w.safetensors\nfolder: f\n", encoding="utf-8")
    assert main(["fit", str(path), "network.options.chanels=3"]) == 1
    assert capsys.readouterr().err.startswith("training fit: unknown option of network varnet: 'chanels'; did you mean")
    assert main(["fit", str(path), f"data={tmp_path / 'none'}", f"folder={tmp_path / 'f'}"]) == 1
    assert "no folder" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "none"), "--recipe", str(path)]) == 1
    assert "no such folder" in capsys.readouterr().out
    words = ["check", str(tmp_path / "none"), "--recipe", str(path)]
    assert main([*words, "network.options.chanels=3"]) == 1  # overrides may stand behind an option
    assert "unknown option of network varnet: 'chanels'" in capsys.readouterr().err
    for wrong in ("chanels", "--steps=3"):
        with pytest.raises(SystemExit):
            main([*words, wrong])
        assert f"unrecognized arguments: {wrong}" in capsys.readouterr().err


def test_nobody_reads_the_output_any_more(tmp_path: Path) -> None:
    """As with `| head`: no traceback."""
    command = [sys.executable, "-m", "training", "check", str(tmp_path / "none"), "--recipe", "cc359"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        started.stdout.close()
        assert started.stderr.read() == ""
    assert started.returncode == 141


def test_a_dry_run_prints_what_would_be_done(options: Options, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "recipe.yaml"
    text = "network: {name: varnet, options: {cascades: 1, channels: 2, pooling_layers: 1}}\n"
    text += "weights: w.safetensors\nfolder: f\nsimulated: {matrix: [32], coils: [4, 4], masks: [equispaced1d]}\n"
    path.write_text(text, encoding="utf-8")
    assert main(["fit", "--dry-run", str(path), f"data={options.data}", "simulated.acceleration=[2, 2]"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[:3] == [
        f'data: "{options.data}" (recipe: null)',
        "simulated.acceleration: [2.0, 2.0] (recipe: [1.5, 10.0])",
        "---",
    ]
    assert "learning_rate: 0.001" in out
    assert "parameters " in out
    assert " MiB more for one step" in out
    assert not (tmp_path / "f").exists()


def test_events_of_a_device_are_counted_also_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in all processes of a team but the first."""

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            pass

        def query(self) -> bool:
            return True

        def elapsed_time(self, other: Any) -> float:
            return 500.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    feed = Feed(iter([]), torch.device("cuda"))
    for _ in range(9):
        feed.advance()
    assert not feed._gaps
    assert feed.waited == 5.0
