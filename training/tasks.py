"""A network made to fit a data set: options that the data decide are filled in, and contradictions are named."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from mrnets import store
from mrnets.classes import classes_of
from mrnets.errors import InputError
from training import data
from training.data import Reader, Sample, Source
from training.options import Options
from training.split import Part

__all__ = ["fitted", "opened", "reader_of"]


def reader_of(options: Options) -> Reader:
    """Return the reader that the options name. Raises InputError."""
    settings, slices = options.simulated, options.preparation.slices
    return data.bind(options.reader.name, options.reader.options, settings=settings, slices=slices)


def opened(options: Options, part: Part) -> Source:
    """Return the part of the data set that the options name. Raises InputError, also where it is empty."""
    folder = None if options.data is None else Path(options.data)
    if folder is not None and not folder.is_dir():
        raise InputError(f"data: no folder {folder}")
    if folder is None and options.reader.name not in ("simulated", "pool"):
        raise InputError(f"reader {options.reader.name} needs a folder: data=FOLDER")
    source = reader_of(options).read(folder, part, options.reader.split)
    if len(source) == 0:
        where = folder or options.reader.name
        raise InputError(f"{where}: no slices for {part}; check reader.split and {options.reader.name}'s files")
    return source


def fitted(options: Options, part: Part = "train") -> tuple[Options, Source]:
    """Return `options` with the numbers of coils, contrasts, classes and slices of the data, and the part of the data
    set.

    Raises InputError where the recipe says otherwise, or where the network's task is none of the data's.
    """
    name = options.network.name
    bound = store.bind(name, **options.network.options)
    traits = store.describe(name)
    if options.preparation.slices == 1:  # a network on several slices finds no neighbours in one plane
        options = dataclasses.replace(
            options, preparation=dataclasses.replace(options.preparation, slices=traits.slices)
        )
    source = opened(options, part)
    sample = source.take([0], np.random.default_rng(options.seed))
    _check_task(traits.task, sample, options)
    preparation, wanted = options.preparation, {}
    if sample.image is not None:
        wanted["contrasts"] = sample.image.shape[1]
        preparation = dataclasses.replace(preparation, contrasts=sample.image.shape[1])
    if sample.labels is not None:
        wanted["classes"] = len(source.labels)
        preparation = dataclasses.replace(preparation, classes=classes_of(source.labels))
    if "coils" in bound:
        assert sample.raw is not None
        wanted["coils"] = preparation.coils or sample.raw.kspace.shape[-3]
        preparation = dataclasses.replace(preparation, coils=wanted["coils"])
    filled = {key: value for key, value in wanted.items() if key in bound}
    for key, value in filled.items():
        if options.network.options.get(key, value) != value:
            raise InputError(
                f"option network.options.{key} is {options.network.options[key]}, but the data have {value}"
            )
    network = dataclasses.replace(options.network, options={**options.network.options, **filled})
    return dataclasses.replace(options, network=network, preparation=preparation), source


def _check_task(task: str, sample: Sample, options: Options) -> None:
    has: dict[str, Any] = {
        "reconstruction": sample.raw is not None,
        "quantitative": sample.raw is not None and sample.raw.echo_times is not None,
        "segmentation": sample.image is not None and sample.labels is not None,
        "joint": sample.raw is not None and sample.labels is not None,
    }
    if not has[task]:
        lacks = {
            "reconstruction": "k-space",
            "quantitative": "k-space with echo times",
            "segmentation": "images with labels",
            "joint": "k-space with labels",
        }
        raise InputError(
            f"network {options.network.name} ({task}) needs {lacks[task]}, "
            f"which the reader {options.reader.name} does not give"
        )
