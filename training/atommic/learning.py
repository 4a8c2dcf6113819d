"""Loss, optimiser and run of one of ATOMMIC's training configurations as parts of a recipe."""

from __future__ import annotations

from typing import Any

import torch

from training.atommic.parts import Configuration, Part

__all__ = ["loss", "optimiser", "run"]

_TERMS = {
    "l1": "l1",
    "mse": "l2",
    "ssim": "ssim",
    "wasserstein": "wasserstein",
    "dice": "dice",
    "cross_entropy": "cross_entropy",
    "binary_cross_entropy": "cross_entropy",
    "categorical_cross_entropy": "cross_entropy",
}
_SCHEDULES = {
    "InverseSquareRootAnnealing": "inverse_sqrt",
    "CosineAnnealing": "cosine",
    "WarmupAnnealing": "constant",
    "WarmupPolicy": "constant",
    "WarmupHoldPolicy": "constant",
}
_PRECISIONS = {"16": "float16", "16-mixed": "float16", "bf16": "bfloat16", "bf16-mixed": "bfloat16"}


def loss(configuration: Configuration) -> dict[str, Any]:
    """Return the part loss of a recipe: the terms of all that the network estimates, with their totals."""
    model = configuration.model
    found: dict[str, Any] = {}
    for what in ("reconstruction", "quantitative", "segmentation"):
        terms = _terms(model, f"{what}_loss")
        total = model.number(f"total_{what}_loss_weight", 1.0)
        weights = {key: float(terms.number(key)) for key in terms.values if key in _TERMS}
        weights = {key: weight for key, weight in weights.items() if weight}
        for key, weight in weights.items():
            share = round(total * weight / sum(weights.values()), 6)
            found[_TERMS[key]] = found.get(_TERMS[key], 0.0) + share
        if terms.values.keys() - _TERMS.keys():
            model.met.discard(f"{what}_loss")
    for key in ("accumulate_predictions", "quantitative_module_accumulate_predictions"):
        if key in model.values:
            found["steps"] = bool(model.take(key))
    return {key: weight for key, weight in found.items() if weight or key == "steps"}


def _terms(model: Part, key: str) -> Part:
    """The terms of a loss with their weights; a word alone is one term."""
    word = model.values.get(key)
    return (
        Part(model.path(key), {word: 1.0}, model.met) if isinstance(word, str) and model.take(key) else model.inner(key)
    )


def optimiser(configuration: Configuration) -> dict[str, Any]:
    """Return the part optimiser of a recipe."""
    part, schedule, trainer = configuration.optimiser, configuration.schedule, configuration.trainer
    found: dict[str, Any] = {"name": _name(part), "learning_rate": part.take("lr", 1e-3)}
    if decay := part.take("weight_decay"):
        found["weight_decay"] = decay
    if betas := part.take("betas"):
        found["betas"] = betas
    found |= _schedule(schedule)
    found["clip"] = trainer.take("gradient_clip_val") or _NO_CLIP
    if batches := trainer.take("accumulate_grad_batches"):
        found["accumulate"] = batches
    average = configuration.manager.inner("ema")
    found["ema"] = average.take("decay", 0.999) if average.take("enable", False) else 0.0
    return found


_NO_CLIP = 1e9
"""A norm that no gradient has: there gradients are not clipped unless the settings say so."""


def _name(part: Part) -> str:
    name = str(part.values.get("name", "adam")).lower()
    if name not in (known.lower() for known in vars(torch.optim)):
        return "adamw"
    part.take("name")
    return name


def _schedule(part: Part) -> dict[str, Any]:
    name = part.values.get("name")
    found: dict[str, Any] = {"schedule": _SCHEDULES.get(str(name), "linear" if name else "constant"), "warm_up": 0}
    if str(name) in _SCHEDULES:
        part.take("name")
    found["warm_up"] = part.take("warmup_ratio") or part.take("warmup_steps") or 0
    if least := part.take("min_lr"):
        found["min_lr"] = least
    return found


def run(configuration: Configuration) -> dict[str, Any]:
    """Return the keys at the top of a recipe that say how long, in which precision and where it runs."""
    data, trainer, manager = configuration.data, configuration.trainer, configuration.manager
    found: dict[str, Any] = {}
    steps, epochs = trainer.number("max_steps", -1), trainer.take("max_epochs")
    if steps > 0:
        found["steps"] = steps
    elif epochs:
        found["epochs"] = epochs
    found |= {"batch": data.take("batch_size", 1), "workers": data.take("num_workers", 0)}
    found["precision"] = _PRECISIONS.get(str(trainer.take("precision")), "float32")
    found["device"] = "cuda" if trainer.take("accelerator") in ("gpu", "cuda") else "cpu"
    logs = [name for name in ("tensorboard", "wandb") if manager.take(f"create_{name}_logger")]
    return found | ({"log": logs} if logs else {})
