"""The preparation of a network's data, from ATOMMIC's settings of its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mrnets import store
from mrnets.atommic import PREFIX
from mrnets.errors import InputError
from mrnets.preparation import Preparation

__all__ = [
    "Settings",
    "checkered",
    "end_of",
    "estimates_maps",
    "found",
    "given_coils",
    "given_contrasts",
    "preparation",
    "scaled",
    "start_of",
    "transposed",
]

Settings = Mapping[str, Any]

SKMTEA_COILS = 8
"""Coils of the raw data of SKM-TEA (Desai et al., 2021), of which ATOMMIC's networks take 32: the others are zeros."""
ISLES_CONTRASTS = 3
"""Contrasts of ISLES 2022: FLAIR, ADC, DWI."""


def end_of(settings: Settings) -> str:
    """How the network combines coils, where it does."""
    return str(settings.get("coil_combination_method", "SENSE"))


def start_of(settings: Settings) -> str:
    """How coils were combined in the image that the network starts from.

    It is made with the data, or by the network where that estimates the sensitivities. Older settings say it for the
    model only.
    """
    if estimates_maps(settings) or str(settings["target"]).endswith("JointICNet"):
        return end_of(settings)
    for section in ("train_ds", "train_dataset"):
        data = settings.get(section)
        if isinstance(data, Mapping) and data.get("coil_combination_method") is not None:
            return str(data["coil_combination_method"])
    return end_of(settings)


def estimates_maps(settings: Settings) -> bool:
    """Whether the network has a sensitivity network of its own."""
    return bool(settings.get("estimate_coil_sensitivity_maps_with_nn", False))


def transposed(settings: Settings) -> bool:
    """Whether planes have exchanged axes there: its 1-D masks undersample along the last one, where ours read out."""
    masks = found(settings, "mask_args")
    return isinstance(masks, Mapping) and str(masks.get("type")).endswith("1d")


def checkered(settings: Settings) -> bool:
    """Whether its images have signs like a chessboard.

    They have where k-space has its zero frequency in the middle, as that of the masks is, and the transform takes it in
    the corner."""
    masks = found(settings, "mask_args")
    shifted = masks.get("shift_mask") if isinstance(masks, Mapping) else found(settings, "shift_mask")
    return not settings.get("fft_centered", False) and not shifted


def scaled(settings: Settings) -> bool:
    """Whether the image has to be scaled: its loss knew no scale, and the data have coil maps that give it."""
    return settings.get("unnormalize_loss_inputs") is False and "RSS" not in (end_of(settings), start_of(settings))


def given_coils(settings: Settings, coils: int) -> int | None:
    """The number of coils of the data, where it is below the `coils` of the network; None: it is the same."""
    if found(settings, "apply_gcc"):
        given = found(settings, "gcc_virtual_coils")
    else:
        given = SKMTEA_COILS if _format(settings).startswith("skm-tea") else coils
    return given if isinstance(given, int) and 0 < given < coils else None


def given_contrasts(settings: Settings, contrasts: int) -> int:
    """The number of contrasts of the data, for a network that fills `contrasts` up with one of zeros."""
    return ISLES_CONTRASTS if _format(settings).startswith("isles") and contrasts == ISLES_CONTRASTS + 1 else contrasts


def preparation(settings: Settings, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The preparation that the settings describe.

    ATOMMIC subtracts a real number from complex data, which is a spike in k-space; we only divide. Its patch of noise
    and its ESPIRiT are left to ours, which find what they need. Each class of a segmentation is decided by itself.
    Raises InputError where the coil sensitivities of the training cannot be had.
    """
    coils = options.get("given_coils") or options.get("coils")
    values: dict[str, Any] = {
        "slices": store.describe(name).slices,
        "classes": "overlapping" if "classes" in options else "exclusive",
        "whiten": "periphery" if found(settings, "apply_prewhitening") else "none",
        "combination": "rss" if start_of(settings) == "RSS" else "sense",
        "sens": _sensitivities(settings, name),
        "normalisation": _normalisation(settings),
        "normalise": _normalise(settings, name),
        "coils": coils,
    }
    if found(settings, "apply_gcc"):
        values["coils"] = coils or found(settings, "gcc_virtual_coils")
        values["compression_lines"] = found(settings, "gcc_calib_lines")
        values["compression_align"] = bool(found(settings, "gcc_align_data"))
    if "contrasts" in options:
        values["contrasts"] = options["contrasts"]
    crop = found(settings, "crop_size")
    if isinstance(crop, list):
        plane = crop[::-1] if options.get("transposed") else crop
        values["kspace_crop" if found(settings, "kspace_crop") else "image_crop"] = plane
    return Preparation.from_json(values).to_json()


def _sensitivities(settings: Settings, name: str) -> str:
    traits, squares = store.describe(name), start_of(settings) == "RSS"
    if traits.sens == "unused" or estimates_maps(settings):
        return "none"
    if found(settings, "estimate_coil_sensitivity_maps"):
        kind = str(found(settings, "coil_sensitivity_maps_type") or "espirit").lower()
        if kind not in ("espirit", "rss"):
            raise InputError(f"cannot import: its coil sensitivities are of the type {kind}, which are no estimates")
        return kind
    has_maps = _format(settings) not in ("fastmri", "cc359") or bool(_path(settings, "coil_sensitivity_maps_path"))
    if has_maps:
        return "none" if traits.sens == "optional" and squares else "espirit"
    if traits.sens == "optional":
        return "none"
    raise InputError("cannot import: it was trained without coil sensitivities, with the same number for all coils")


def _normalise(settings: Settings, name: str) -> str:
    """Where its scale comes from: of all coil images, or of the combined one where the network sees nothing else."""
    if found(settings, "kspace_normalization"):
        return "kspace"
    alone = store.describe(name).takes == "image" or name.removeprefix(PREFIX) in ("modl", "unet")
    return "image" if alone and not estimates_maps(settings) else "coils"


def _normalisation(settings: Settings) -> str:
    if found(settings, "normalize_inputs") is False:
        return "none"
    kind = found(settings, "normalization_type")
    return "none" if kind is False else str(kind or "max").lower()


def found(settings: Settings, key: str) -> Any:
    """A setting of the model section, or of the data that it was trained on; None where neither says."""
    for section in (settings, settings.get("train_ds"), settings.get("train_dataset")):
        if isinstance(section, Mapping) and section.get(key) is not None:
            return section[key]
    return None


def _format(settings: Settings) -> str:
    return str(found(settings, "dataset_format")).lower()


def _path(settings: Settings, key: str) -> str:
    """A path, "" where there is none: ATOMMIC writes None as a word."""
    value = found(settings, key)
    return "" if value in (None, "None") else str(value)
