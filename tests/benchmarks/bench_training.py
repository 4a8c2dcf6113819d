"""Whole training steps, from the file to the updated weights, beside those of ATOMMIC's trainer.

    python tests/benchmarks/bench_training.py [--python PEERS/bin/python] [--maps network espirit] [--device cuda]

varnet as published (8 cascades, 18 channels), SSIM and L1, AdamW, batch 1, equispaced 4-fold masks; HDF5 files in
fastMRI's layout. Each trainer runs in processes of its own, and in turns. The other one is stopped meanwhile, with its
loader's processes, so that it does not read ahead. Without such processes the step's time is all the work there is;
"data" is reading, masking and preparing. With one, "waits" is the time for which the network waits; on a CUDA device
ours is the time of the device. Ours clips gradients, averages weights and ends consistent with the data (where maps do
not come from the network), as it does by default; ATOMMIC does none of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rows import measured, unmeasured

_ROOT = Path(__file__).parents[2]
OURS, ATOMMIC = "ours", "ATOMMIC"
STEPS = 10**6
"""More than anybody asks for."""


class Contestant:
    """A trainer in a process of its own, which takes as many steps as it is told, and is stopped in between."""

    def __init__(self, python: str, name: str, settings: dict[str, Any]) -> None:
        path = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(settings["threads"])}
        words = [python, "-W", "ignore", __file__, "--worker", name, json.dumps(settings)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            words, stdin=pipe, stdout=pipe, text=True, env=environment, start_new_session=True
        )
        self.state = str(self._heard(default="failed"))
        self._signal(signal.SIGSTOP)

    def run(self, steps: int) -> tuple[float, float]:
        """Seconds of so many steps, and of those spent in waiting for data."""
        assert self.process.stdin is not None
        self._signal(signal.SIGCONT)
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        seconds, waited = self._heard()
        self._signal(signal.SIGSTOP)
        return seconds, waited

    def close(self) -> None:
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _heard(self, default: Any = None) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line and default is None:
            raise SystemExit("a trainer has failed")
        return json.loads(line) if line else default

    def _signal(self, what: signal.Signals) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, what)


class Told:
    """The other side of a `Contestant`: counts steps and the time without data. A step comes before the first turn.

    finished: called at the end of each turn, and waits for the device."""

    def __init__(self, finished: Callable[[], object]) -> None:
        self.finished = finished
        self.answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever else is printed
        self.left, self.began, self.since, self.waited = 1, 0.0, 0.0, 0.0

    def say(self, answer: object) -> None:
        self.answers.write(f"{json.dumps(answer)}\n")
        self.answers.flush()

    def has_data(self) -> None:
        self.waited += time.perf_counter() - self.since

    def stepped(self) -> None:
        self.left -= 1
        if not self.left:
            self.finished()
            self.say((time.perf_counter() - self.began, self.waited) if self.began else "ready")
            line = sys.stdin.readline()
            if not line:
                raise SystemExit
            self.left, self.began, self.waited = int(line), time.perf_counter(), 0.0
        self.since = time.perf_counter()


def train_ours(told: Told, settings: dict[str, Any]) -> None:
    """The steps of `training.loop.fit`, without its log, validation and checkpoints."""
    import torch

    from mrnets import store
    from mrnets.ending import ended
    from training.batches import Batches, examples
    from training.graphs import GradientGraphs
    from training.run import built
    from training.step import Feed, Learning, learn
    from training.tasks import opened

    options = options_of(settings)
    torch.manual_seed(options.seed)
    source, device = opened(options, "train"), torch.device(settings["device"])
    run = built(options, device)
    forward = ended(run.network, options.preparation, store.describe(options.network.name).echoes)
    graphs = GradientGraphs(run.network) if settings["graphs"] else None
    how = Learning(options, STEPS, source.labels, 0, run.network, forward, graphs)
    feed = Feed(examples(Batches(source, options, "train", 1), range(STEPS), options.workers, device), device)
    waited = feed.waited
    while True:
        learn(run, feed, how)
        told.waited, waited = told.waited + feed.waited - waited, feed.waited
        told.stepped()


def options_of(settings: dict[str, Any]) -> Any:
    """The options of a run on files of `write_files`."""
    from mrnets.preparation import Preparation
    from training.options import Loss, Network, Options, Reader
    from training.settings import Masks

    learnt = settings["maps"] == "network"
    return Options(
        network=Network(name=settings.get("network", "varnet"), options={"sens_net": learnt}),
        weights="weights.safetensors",
        folder=settings["folder"],
        data=settings["folder"],
        reader=Reader(name="fastmri"),
        masks=Masks(names=("equispaced1d",), accelerations=(4.0,), centres=(settings["centre"],)),
        preparation=Preparation(sens="none", combination="rss") if learnt else Preparation(),
        loss=Loss(ssim=0.9, l1=0.1),
        workers=settings["workers"],
        precision=settings["precision"],
        kernels=settings.get("kernels", False),
    )


def train_atommic(told: Told, settings: dict[str, Any]) -> None:
    """ATOMMIC's VarNet, data set and transforms in the Lightning trainer; ImportError without them."""
    import pytorch_lightning
    import torchmetrics  # noqa: F401  (before dataclasses are others)
    import wandb  # noqa: F401
    from omegaconf import OmegaConf

    network = _atommic_varnet()

    class Watch(pytorch_lightning.Callback):
        def on_train_batch_start(self, *arguments: Any, **more: Any) -> None:
            told.has_data()

        def on_train_batch_end(self, *arguments: Any, **more: Any) -> None:
            told.stepped()

    trainer = pytorch_lightning.Trainer(
        accelerator="gpu" if settings["device"] == "cuda" else "cpu",
        devices=1,
        max_epochs=-1,
        precision={"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}[settings["precision"]],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Watch()],
    )
    trainer.fit(network(OmegaConf.create(_atommic_settings(settings)), trainer))


def _atommic_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """As those that ATOMMIC ships for multi-coil brains."""
    fourier = {"fft_centered": True, "fft_normalization": "ortho", "spatial_dims": [-2, -1], "coil_dim": 1}
    learnt = settings["maps"] == "network"
    data = {
        "data_path": settings["folder"],
        "dataset_format": "fastMRI",
        "mask_args": {"type": "equispaced1d", "accelerations": [4], "center_fractions": [settings["centre"]]},
        "estimate_coil_sensitivity_maps": not learnt,
        "coil_combination_method": "SENSE",
        "complex_target": not learnt,
        "normalization_type": "max",
        "use_seed": False,
        "batch_size": 1,
        "shuffle": True,
        "num_workers": settings["workers"],
        **fourier,
    }
    return {
        "num_cascades": 8,
        "channels": 18,
        "pooling_layers": 4,
        "no_dc": False,
        "reconstruction_loss": {"ssim": 0.9, "l1": 0.1},
        "estimate_coil_sensitivity_maps_with_nn": learnt,
        "coil_sensitivity_maps_nn_mask_type": "1D",
        "normalization_type": "max",
        "train_ds": data,
        "optim": {
            "name": "adamw",
            "lr": 1e-3,
            "weight_decay": 0.0,
            "sched": {"name": "CosineAnnealing", "min_lr": 0.0, "warmup_steps": 200, "max_steps": 10000},
        },
        **fourier,
    }


def _atommic_varnet() -> Any:
    """Its modules have mutable defaults in dataclasses, which Python takes since 3.11 only if they have a hash."""
    plain = dataclasses.dataclass

    def hashable(cls: Any = None, /, **options: Any) -> Any:
        if cls is None:
            return functools.partial(hashable, **options)
        return plain(cls, **{"unsafe_hash": "__hash__" not in vars(cls), **options})

    dataclasses.dataclass = hashable  # type: ignore[assignment]
    try:
        from atommic.collections.reconstruction.nn.varnet import VarNet
    finally:
        dataclasses.dataclass = plain
    return VarNet


TRAINERS: dict[str, Callable[[Told, dict[str, Any]], None]] = {OURS: train_ours, ATOMMIC: train_atommic}


def work(name: str, settings: dict[str, Any]) -> None:
    """The process of a `Contestant`."""
    import torch

    told = Told(torch.cuda.synchronize if settings["device"] == "cuda" else lambda: None)
    try:
        TRAINERS[name](told, settings)
    except ImportError as error:
        told.say(f"not installed ({error})")


def write_files(folder: Path, coils: int, shape: tuple[int, int], files: int = 4, slices: int = 6) -> None:
    """Files of an ellipse seen by loops around it, with noise."""
    import h5py
    import numpy as np

    from mrnets.physics.fourier import fftc, ifftc

    x, y = (np.linspace(-1, 1, n, endpoint=False) for n in shape)
    angles = np.arange(coils)[:, None, None] * 2 * np.pi / coils
    away = (x[:, None] - 1.5 * np.cos(angles)) + 1j * (y - 1.5 * np.sin(angles))
    seen = ((x[:, None] / 0.7) ** 2 + (y / 0.9) ** 2 < 1) / away
    for file in range(files):
        rng = np.random.default_rng(file)
        noise = rng.standard_normal((slices, coils, *shape, 2)).view(np.complex128)[..., 0]
        kspace = (fftc(seen) + 0.01 * noise).astype(np.complex64)
        with h5py.File(folder / f"file{file}.h5", "w") as h5:
            h5["kspace"] = kspace
            h5["reconstruction_rss"] = np.sqrt((np.abs(ifftc(kspace)) ** 2).sum(1)).astype(np.float32)


def race(python: str, settings: dict[str, Any], rounds: int, steps: int) -> None:
    """Print the seconds a step of each, in turns; medians of the rounds would hide what is rare, so: means."""
    told_of = {"processes of the loader": settings["workers"]}
    told_of |= {key: settings[key] for key in ("device", "maps", "threads", "precision", "graphs")}
    print("; ".join(f"{what}: {value}" for what, value in told_of.items()), flush=True)
    running: dict[str, Contestant] = {}
    try:
        for name in TRAINERS:
            running[name] = Contestant(python, name, settings)
        there = {name: one for name, one in running.items() if one.state == "ready"}
        told = {name: [0.0, 0.0] for name in there}
        for one in there.values() if settings["graphs"] else ():
            one.run(6)  # graphs are made
        for _ in range(rounds):
            for name, one in there.items():
                told[name] = [a + b for a, b in zip(told[name], one.run(steps), strict=True)]
    finally:
        for one in running.values():
            one.close()
    count = rounds * steps
    for name, one in running.items():
        if name not in there:
            print(f"  {name:8s} {one.state}")
            continue
        whole, data = (seconds / count for seconds in told[name])
        apart = f"data {data:6.3f}, network {whole - data:6.3f}" if not settings["workers"] else f"waits {data:6.4f}"
        print(
            f"  {name:8s} {whole:6.3f} s a step, {1 / whole:5.2f} samples/s; {apart} ({data / whole:.1%})", flush=True
        )
        if name == OURS and settings["workers"]:
            what = f"training waits for data, {settings['maps']} maps, graphs: {settings['graphs']}"
            measured(what, 100 * data / whole, "%", most=3, cuda=settings["device"] == "cuda")
    if {OURS, ATOMMIC} <= there.keys():
        (ours, own), (peer, other) = told[OURS], told[ATOMMIC]
        print(f"  ATOMMIC / ours: step {peer / ours:.2f}", end="")
        print("" if settings["workers"] else f", data {other / own:.2f}, network {(peer - other) / (ours - own):.2f}")


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], json.loads(sys.argv[3]))
        return
    sys.path.insert(0, str(_ROOT))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--maps", nargs="+", choices=["network", "espirit"], default=["network", "espirit"])
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--coils", type=int, default=8)
    parser.add_argument("--size", type=int, default=256, help="along the readout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="of each round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--graphs", action="store_true", help="CUDA graphs, ours only")
    parser.add_argument("--python", default=sys.executable, metavar="PATH", help="interpreter that has ATOMMIC")
    chosen = parser.parse_args()
    if chosen.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            unmeasured("training from files", "torch finds no CUDA device")
            return
    with tempfile.TemporaryDirectory() as folder:
        shape = (chosen.size, 218 * chosen.size // 256)
        write_files(Path(folder), chosen.coils, shape)
        print(f"{chosen.coils} coils of {shape[0]} x {shape[1]}, {chosen.rounds} rounds of {chosen.steps} steps")
        for maps in chosen.maps:
            for workers in chosen.workers:
                settings = {"folder": folder, "maps": maps, "workers": workers, "centre": 0.16}
                settings |= {"threads": chosen.threads, "device": chosen.device}
                settings |= {"precision": chosen.precision, "graphs": chosen.graphs}
                race(chosen.python, settings, chosen.rounds, chosen.steps)


if __name__ == "__main__":
    main()
