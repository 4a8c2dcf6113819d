"""Scores of trained weights on a recipe's validation scans, beside the classical reconstructions."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from mrnets import store
from mrnets.prepare import Preparation
from training.loop import METRICS, Examples, split
from training.options import Options
from training.readers.anatomy import load_folder

__all__ = ["evaluate"]

REGULARISATIONS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Of CG-SENSE; it is given the best for each image, which no scanner could choose."""


@torch.no_grad()
def evaluate(weights: str, options: Options) -> dict[str, dict[str, float]]:
    """Mean of every metric for zero-filled, best-tuned CG-SENSE and the network; prints a table with deviations."""
    trained = store.load(weights)
    options = dataclasses.replace(options, preparation=Preparation.from_json(trained.preparation))
    examples = Examples(split(load_folder(options.data), options)[1], options, stream=1, batch=1)
    scores: dict[str, dict[str, list[float]]] = {}
    for n in range(options.validation.examples):
        one = examples[n]
        target = one.target.abs()
        tuned = [store.create("cgsense", regularisation=r)(one.scan).image.abs() for r in REGULARISATIONS]
        images = {
            "zerofilled": store.create("zerofilled")(one.scan).image.abs(),
            "cgsense": min(tuned, key=lambda image: float(torch.sum((image - target) ** 2))),
            trained.name: trained.network(one.scan).image.abs(),
        }
        for name, image in images.items():
            for metric, measure in METRICS.items():
                scores.setdefault(name, {}).setdefault(metric, []).append(float(measure(image, target).mean()))
    print(f"{'':12s}" + "".join(f"{metric:>20s}" for metric in METRICS))
    for name, row in scores.items():
        print(f"{name:12s}" + "".join(f"{np.mean(v):11.4f} ± {np.std(v):.4f}" for v in row.values()))
    return {name: {metric: float(np.mean(v)) for metric, v in row.items()} for name, row in scores.items()}
