"""Settings of ATOMMIC 1.0.1 as a network of ours with its options, and as its preparation.

A setting that this program would compute differently is refused, never passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mrnets import store
from mrnets.atommic import PREFIX, named
from mrnets.errors import InputError
from mrnets.preparation import Preparation

__all__ = ["Settings", "Translated", "found", "translated"]

Settings = Mapping[str, Any]
Translations = dict[str, str | tuple[str, Callable[[Any], Any]]]
"""Our option to their setting, or to their setting and the function that makes our value of theirs."""


@dataclass(frozen=True)
class Translated:
    """The network that settings describe, and its preparation."""

    published: str
    """The name of the published network, whose keys ATOMMIC's weights have."""
    name: str
    """The same, or ATOMMIC's form of it."""
    options: dict[str, Any]
    preparation: dict[str, Any]


@dataclass(frozen=True)
class _Kind:
    """How the settings of one of ATOMMIC's networks become options of ours."""

    options: Translations
    constants: dict[str, Any] = field(default_factory=dict)
    """Options of ours that ATOMMIC does not let one choose."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """Settings of theirs that ours does not let one choose."""


def _steps(steps: Any) -> Any:
    """ATOMMIC rounds time steps up to a multiple of eight."""
    return steps if not isinstance(steps, int) else -(-steps // 8) * 8


def _without_zeros(filters: Any) -> Any:
    return [f for f in filters if f] if isinstance(filters, list) else filters


def _halved(channels: Any) -> Any:
    """Real and imaginary channels as coils."""
    return channels // 2 if isinstance(channels, int) and channels % 2 == 0 else channels


def _rim(prefix: str = "") -> Translations:
    return {
        "recurrent_layer": f"{prefix}recurrent_layer",
        "conv_filters": f"{prefix}conv_filters",
        "conv_kernels": f"{prefix}conv_kernels",
        "conv_dilations": f"{prefix}conv_dilations",
        "recurrent_filters": (f"{prefix}recurrent_filters", _without_zeros),
        "time_steps": (f"{prefix}time_steps", _steps),
    }


def _rim_fixed(prefix: str = "") -> dict[str, Any]:
    return {
        f"{prefix}conv_bias": [True, True, False],
        f"{prefix}recurrent_kernels": [1, 1, 0],
        f"{prefix}recurrent_bias": [True, True, False],
        f"{prefix}no_dc": True,
        f"{prefix}keep_prediction": True,
    }


_UNET: Translations = {
    "channels": "channels",
    "pooling_layers": "pooling_layers",
    "padding": "padding_size",
}
_SEGMENTATION = _Kind(
    options={
        "contrasts": "segmentation_module_input_channels",
        "classes": "segmentation_module_output_channels",
        "channels": "segmentation_module_channels",
        "pooling_layers": "segmentation_module_pooling_layers",
        "dropout": "segmentation_module_dropout",
    },
    constants={"padding": 11},
    fixed={"segmentation_module_normalize": False},
)
_JOINT: Translations = {
    "coils": ("input_channels", _halved),
    "classes": "segmentation_module_output_channels",
    "channels": "channels",
    "pooling_layers": "num_pools",
    "dropout": "drop_prob",
    "padding": "padding_size",
}
_KINDS: dict[str, _Kind] = {
    "ccnn": _Kind(
        {"cascades": "num_cascades", "channels": "hidden_channels", "convs": "n_convs"},
        fixed={"batchnorm": False, "no_dc": False},
    ),
    "cirim": _Kind({**_rim(), "cascades": "num_cascades"}, fixed=_rim_fixed()),
    "rim": _Kind(_rim(), fixed=_rim_fixed()),
    "modl": _Kind(
        {
            "iterations": "unrolled_iterations",
            "residual_blocks": "residual_blocks",
            "channels": "channels",
            "residual_scale": "regularization_factor",
        },
        constants={"conjugate_gradient": False},
        fixed={"conjugate_gradient_dc": False},
    ),
    "rvn": _Kind(
        {
            "cascades": ("num_steps", _steps),
            "channels": "recurrent_hidden_channels",
            "layers": "recurrent_num_layers",
            "learned_initializer": "learned_initializer",
            "initializer_channels": "initializer_channels",
            "initializer_dilations": "initializer_dilations",
        },
        fixed={
            "in_channels": 2,
            "no_parameter_sharing": True,
            "initializer_initialization": "sense",
            "initializer_multiscale": 1,
        },
    ),
    "unet": _Kind(
        {**_UNET, "dropout": "dropout"},
        fixed={"in_channels": 2, "out_channels": 2, "normalize": True, "norm_groups": 2},
    ),
    "varnet": _Kind({**_UNET, "cascades": "num_cascades"}, fixed={"no_dc": False, "normalize": True}),
    "segunet": _SEGMENTATION,
    "attentionunet": _SEGMENTATION,
    "unet3d": _SEGMENTATION,
    "idslr": _Kind({**_JOINT, "iterations": "num_iters"}, {"magnitude": True}, {"normalize": False}),
    "idslrunet": _Kind({**_JOINT, "iterations": "num_iters"}, fixed={"normalize": False}),
    "segnet": _Kind({**_JOINT, "cascades": "num_cascades"}, fixed={"normalize": True, "norm_groups": 2}),
    "mtlrs": _Kind(
        {
            **_rim("reconstruction_module_"),
            "cascades": "joint_reconstruction_segmentation_module_cascades",
            "classes": "segmentation_module_output_channels",
            "channels": "segmentation_module_channels",
            "pooling_layers": "segmentation_module_pooling_layers",
            "dropout": "segmentation_module_dropout",
        },
        constants={"padding": 11},
        fixed={
            **_rim_fixed("reconstruction_module_"),
            "reconstruction_module_num_cascades": 1,
            "segmentation_module": "AttentionUNet",
            "task_adaption_type": "multi_task_learning",
        },
    ),
}

_CLASSES = {
    "CascadeNet": "ccnn",
    "CIRIM": "cirim",
    "MoDL": "modl",
    "RecurrentVarNet": "rvn",
    "UNet": "unet",
    "VarNet": "varnet",
    "SegmentationUNet": "segunet",
    "SegmentationAttentionUNet": "attentionunet",
    "Segmentation3DUNet": "unet3d",
    "IDSLR": "idslr",
    "IDSLRUNet": "idslrunet",
    "SegNet": "segnet",
    "MTLRS": "mtlrs",
}
_REFUSED = {
    "CRNNet": "its hidden state is always zero and its output is clipped at zero, so it does not recur",
    "JointICNet": "it multiplies real and imaginary parts separately and its residual vanishes",
    "KIKINet": "its iterations share one set of weights and its data consistency uses another iteration's k-space",
    "LPDNet": "its iterations share one primal and one dual network",
    "VSNet": "it adds images to k-space and does not impose the measured data",
    "XPDNet": "its wavelet networks are left out as configured, or cannot give negative values",
    "qCIRIM": "its signal model is not that of the physics",
    "qVarNet": "its signal model is not that of the physics and its B0 cannot be negative",
    "SegmentationDYNUNet": "it does not down-sample and adds its supervision heads to its output",
    "SegmentationVNet": "it does not read its width and depth",
}


def translated(settings: Settings) -> Translated:
    """The network that `settings` (a model section, with `target`) describe.

    Raises InputError for a network or a setting that ours does not have.
    """
    published = _name(settings)
    kind = _KINDS[published]
    for key, wanted in {**kind.fixed, "estimate_coil_sensitivity_maps_with_nn": False}.items():
        if settings.get(key, wanted) != wanted:
            raise InputError(f"cannot import: {key} is {settings[key]!r}, and our {published} is that with {wanted!r}")
    options = {**kind.constants, **_conventions(settings, published)}
    for ours, theirs in kind.options.items():
        key, translate = theirs if isinstance(theirs, tuple) else (theirs, _same)
        if key not in settings:
            raise InputError(f"cannot import: the settings lack {key}")
        options[ours] = translate(settings[key])
    name, options = named(published, options)
    bound = store.bind(name, **options)
    return Translated(published, name, bound, _preparation(settings, published, bound))


def _name(settings: Settings) -> str:
    kind = str(settings["target"]).rpartition(".")[2]
    if kind in _REFUSED:
        raise InputError(f"ATOMMIC's {kind} is not imported: {_REFUSED[kind]}; train ours, which follows the paper")
    if kind not in _CLASSES:
        raise InputError(f"ATOMMIC's {kind} is not imported; those that are: {', '.join(sorted(_CLASSES))}")
    name = _CLASSES[kind]
    return "rim" if name == "cirim" and settings.get("num_cascades") == 1 else name


def _same(value: Any) -> Any:
    return value


def _conventions(settings: Settings, name: str) -> dict[str, Any]:
    """Options of ours for how ATOMMIC combined the coils, and for its Fourier transform.

    Images are the same whatever its transform: only rvn sees k-space. Its "RSS" takes real and imaginary parts by
    themselves, which leaves the magnitude of the usual one. Some networks end with it, as the settings of the model
    say. Some start with it, as those of the data say, where they are there.
    """
    end, start = _end(settings), _start(settings)
    for method in (end, start):
        if store.describe(name).task != "segmentation" and method not in ("SENSE", "RSS"):
            raise InputError(f"cannot import: coils were combined by {method}, which is no root of a sum of squares")
    if store.describe(name).task == "joint" and "RSS" in (end, start):
        raise InputError(
            f"cannot import: coils were combined by RSS, which ATOMMIC takes of real and imaginary parts separately, "
            f"and our {name} combines them by SENSE, as published"
        )
    known = store.bind(f"{PREFIX}{name}")
    options: dict[str, Any] = {}
    if "combination" in known:
        options["combination"] = end.lower()
    if "start" in known:
        options["start"] = "rss_components" if start == "RSS" else "sense"
    if "initializer_transform" in known and settings.get("learned_initializer"):
        transform = settings.get("fft_centered", False), settings.get("fft_normalization", "backward")
        if transform not in _TRANSFORMS:
            raise InputError(
                f"cannot import: fft_centered is {transform[0]!r} with fft_normalization {transform[1]!r}, and the "
                "first state of our rvn comes from a centred, orthonormal k-space or from one that is neither"
            )
        options["initializer_transform"] = _TRANSFORMS[transform]
    return options


_TRANSFORMS = {(True, "ortho"): "centred", (False, "backward"): "plain"}


def _end(settings: Settings) -> str:
    return str(settings.get("coil_combination_method", "SENSE"))


def _start(settings: Settings) -> str:
    """How coils were combined in the image that the network starts from, which is made with the data.

    Older settings say it for the model only.
    """
    for section in ("train_ds", "train_dataset"):
        data = settings.get(section)
        if isinstance(data, Mapping) and data.get("coil_combination_method") is not None:
            return str(data["coil_combination_method"])
    return _end(settings)


def _preparation(settings: Settings, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The preparation that the settings describe.

    ATOMMIC subtracts a real number from complex data, which is a spike in k-space; we only divide. Its patch of noise
    and its ESPIRiT are left to ours, which find what they need. Each class of a segmentation is decided by itself.
    """
    traits = store.describe(name)
    coils, squares = options.get("coils"), _start(settings) == "RSS"
    values: dict[str, Any] = {
        "slices": traits.slices,
        "classes": "overlapping" if "classes" in options else "exclusive",
        "whiten": "periphery" if found(settings, "apply_prewhitening") else "none",
        "combination": "rss" if squares else "sense",
        "sens": "none" if traits.sens == "unused" or (traits.sens == "optional" and squares) else "espirit",
        "normalisation": _normalisation(settings),
        "normalise": "kspace" if found(settings, "kspace_normalization") else "image",
    }
    if found(settings, "apply_gcc"):
        values["coils"] = found(settings, "gcc_virtual_coils") if coils is None else coils
        values["compression_lines"] = found(settings, "gcc_calib_lines")
        values["compression_align"] = bool(found(settings, "gcc_align_data"))
    else:
        values["coils"] = coils
    crop = found(settings, "crop_size")
    if isinstance(crop, list):
        values["kspace_crop" if found(settings, "kspace_crop") else "image_crop"] = crop
    return Preparation.from_json(values).to_json()


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
