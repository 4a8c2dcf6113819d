"""The data of one of ATOMMIC's training configurations as reader, masks and preparation of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mrnets.errors import InputError
from mrnets.traits import Task
from training.atommic.parts import Configuration, Part

__all__ = ["base", "masks", "preparation", "reader"]

_BASES: dict[tuple[str, Task], str] = {
    ("fastmri", "reconstruction"): "fastmri_brains",
    ("cc359", "reconstruction"): "cc359",
    ("stanford_knees", "reconstruction"): "stanford_knees",
    ("ahead", "reconstruction"): "ahead",
    ("ahead", "quantitative"): "ahead_maps",
    ("brats2023adultglioma", "segmentation"): "brats",
    ("isles2022subacutestroke", "segmentation"): "isles",
    ("skm-tea", "segmentation"): "skmtea_segmentation",
    ("skm-tea", "joint"): "skmtea_joint",
    ("skm-tea", "reconstruction"): "skmtea_reconstruction",
}
"""Recipes whose reader reads the data set."""


def base(configuration: Configuration, task: Task) -> str:
    """Return the name of the recipe that knows the data set. Raises InputError where there is none."""
    name = _format(configuration)
    found = _BASES.get((name.split("-echo")[0], task))
    if found is None:
        known = ", ".join(sorted({known for known, of in _BASES if of == task}))
        raise InputError(f"no recipe reads the data set {name!r} for {task}; known are {known}")
    if found != "fastmri_brains" or "knee" not in configuration.text:
        return found
    return "fastmri_knees_singlecoil" if "singlecoil" in configuration.text else "fastmri_knees"


def reader(configuration: Configuration, base: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part reader of a recipe, from that of the recipe `base`."""
    data, settings = configuration.data, dict(base["reader"])
    options = dict(settings.get("options", {}))
    accelerations = [float(a) for a in configuration.masks.numbers("accelerations")]
    name = _format(configuration)
    if name.startswith("skm-tea"):
        both = "echo1+echo2" in name
        if settings["name"] == "skmtea_segmentation":
            options["echoes"] = "rss" if both else name.removeprefix("skm-tea-")
        else:
            options["echo"] = "sum" if both else _echo(name)
            options["acceleration"] = accelerations if len(accelerations) != 1 else accelerations[0]
    if name == "cc359" and (folder := data.take("mask_path")):
        options |= {"masks": folder, "accelerations": [5.0, 10.0]}
    slices = configuration.model.number("consecutive_slices", 1)
    if slices > 1:
        options["slices"] = slices
    lists = {
        part: path
        for part, section in (("train", data), ("validation", configuration.validation))
        if str(path := section.take("data_path")).endswith(".json")
    }
    if len(lists) == 2:
        settings["split"] = {"lists": lists}
    return {**settings, **({"options": options} if options else {})}


def _echo(name: str) -> int:
    if not name[-1].isdecimal():
        raise InputError(f"the data set {name!r} names no echo, as skm-tea-echo1 does")
    return int(name[-1])


def masks(configuration: Configuration, base: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part masks of a recipe; empty for images, which have none."""
    data, settings = configuration.data, configuration.masks
    found: dict[str, Any] = {}
    if base["reader"]["name"] in _ON_IMAGES:
        return found
    kind = settings.take("type")
    accelerations, centres = settings.numbers("accelerations"), settings.numbers("center_fractions")
    scale = settings.number("center_scale")
    if data.values.get("mask_path") not in (None, "None") or _format(configuration).startswith("skm-tea"):
        found["source"] = "data"
        data.take("mask_path")
    elif kind is not None:
        found["names"] = [kind]
    if "names" in found and accelerations:
        found["accelerations"] = accelerations
    if str(kind).startswith("gaussian") and centres:
        # There the "centre fraction" is the full width at half maximum, and the scale half a width of the centre.
        found |= {"centres": [2 * (scale or _CENTRE_SCALE)], "options": {"fwhm": centres[0]}}
    elif "names" in found and centres:
        found["centres"] = centres
    if share := data.take("partial_fourier_percentage"):
        found["partial_fourier"] = share
    if plane := _crop(configuration):
        return found | {"kspace_crop" if data.take("kspace_crop") else "image_crop": plane}
    own = base["masks"]
    return found | {key: own[key] for key in ("kspace_crop",) if key in own}


def _crop(configuration: Configuration) -> list[int] | None:
    """Return (y, x) of a crop. Where masks have one dimension, ATOMMIC's first axis is the readout, our x."""
    crop = configuration.data.numbers("crop_size")
    exchanged = str(configuration.masks.values.get("type")).endswith("1d")
    return [int(size) for size in (crop[::-1] if exchanged else crop)] or None


_CENTRE_SCALE = 0.02
_ON_IMAGES = ("brats", "isles", "skmtea_segmentation")
"""Readers of images, which have no k-space."""


def preparation(configuration: Configuration, base: Mapping[str, Any], without: str) -> dict[str, Any]:
    """Return the part preparation of a recipe. without: sensitivities where data have none; "none": the network's."""
    data, model = configuration.data, configuration.model
    kind = str(data.take("normalization_type") or model.take("normalization_type") or "none").lower()
    kind = kind if data.take("normalize_inputs", True) else "none"
    model.met.add("normalization_type")
    if base["reader"]["name"] in _ON_IMAGES:
        plane = _crop(configuration)
        return {"image": "magnitude", "normalisation": kind} | ({"image_crop": plane} if plane else {})
    found: dict[str, Any] = {**_sensitivities(data, base, without), "normalisation": kind}
    combination = data.take("coil_combination_method") or model.take("coil_combination_method") or "SENSE"
    model.met.add("coil_combination_method")
    found["combination"] = str(combination).lower()
    found |= _whitening(data)
    if data.take("kspace_normalization"):
        found["normalise"] = "kspace"
    if data.take("apply_gcc"):
        found |= {
            "coils": data.take("gcc_virtual_coils"),
            "compression": "gdcc",
            "compression_lines": data.take("gcc_calib_lines"),
            "compression_align": bool(data.take("gcc_align_data", True)),
        }
    return found


def _whitening(data: Part) -> dict[str, Any]:
    if not data.take("apply_prewhitening"):
        data.met.update(key for key in data.values if key.startswith(("prewhitening_", "find_patch_size")))
        return {"whiten": "none"}
    found: dict[str, Any] = {"whiten": "periphery", "whiten_scale": float(data.take("prewhitening_scale_factor", 1.0))}
    start, length = (data.take(f"prewhitening_patch_{key}") for key in ("start", "length"))
    if not data.take("find_patch_size", True) and start and length:
        found |= {"patch_start": [start, start], "patch_length": [length, length]}
    return found


_ESPIRIT = {"kernel_size": "kernel", "threshold": "threshold", "crop": "crop"}


def _sensitivities(data: Part, base: Mapping[str, Any], without: str) -> dict[str, Any]:
    estimated, kind = data.take("estimate_coil_sensitivity_maps"), data.take("coil_sensitivity_maps_type")
    method = {"rss": "rss", "unit": "unitary"}.get(str(kind).lower(), "espirit")
    options = {f"coil_sensitivity_maps_espirit_{key}": ours for key, ours in _ESPIRIT.items()}
    if not estimated:
        data.met.update(options)
        return {"sens": without if base["preparation"]["sens"] == "none" else "espirit"}
    given = {ours: data.take(key) for key, ours in options.items()}
    return {"sens": method} | ({k: v for k, v in given.items() if v is not None} if method == "espirit" else {})


def _format(configuration: Configuration) -> str:
    return str(configuration.data.take("dataset_format")).lower()
