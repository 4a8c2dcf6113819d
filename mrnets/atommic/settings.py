"""Settings of ATOMMIC 1.0.1 as a network of ours with its options.

A setting that this program would compute differently is refused, never passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mrnets import store
from mrnets.atommic import PREFIX, named, own
from mrnets.atommic.data import (
    Settings,
    checkered,
    end_of,
    estimates_maps,
    given_coils,
    given_contrasts,
    preparation,
    scaled,
    start_of,
    transposed,
)
from mrnets.errors import InputError

__all__ = ["Translated", "rounded_steps", "translated"]

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


def rounded_steps(steps: Any) -> Any:
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
        "time_steps": (f"{prefix}time_steps", rounded_steps),
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
    fixed={"segmentation_module_normalize": False, "segmentation_module_padding_size": 11},
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
            "cascades": ("num_steps", rounded_steps),
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
    "CRNNet": "crnn",
    "JointICNet": "jointicnet",
    "KIKINet": "kikinet",
    "LPDNet": "lpdnet",
    "VSNet": "vsnet",
    "XPDNet": "xpdnet",
    "qCIRIM": "qcirim",
    "qVarNet": "qvarnet",
    "SegmentationDYNUNet": "dynunet",
    "SegmentationVNet": "vnet",
}


def translated(settings: Settings) -> Translated:
    """The network that `settings` (a model section, with `target`) describe.

    Raises InputError for a network or a setting that ours does not have.
    """
    published = _name(settings)
    options = _of_paper(settings, _KINDS[published]) if own(published) is None else _of_own(settings, published)
    known = store.bind(f"{PREFIX}{published}")
    options |= {key: value for key, value in _conventions(settings, published, known).items() if key in known}
    if isinstance(options.get("coils"), int):
        options["given_coils"] = given_coils(settings, options["coils"])
    name, options = named(published, options) if own(published) is None else (f"{PREFIX}{published}", options)
    bound = store.bind(name, **options)
    return Translated(published, name, bound, preparation(settings, name, bound))


def _of_paper(settings: Settings, kind: _Kind) -> dict[str, Any]:
    """The options of a network whose parameters are those of the paper's."""
    for key, wanted in kind.fixed.items():
        if settings.get(key, wanted) != wanted:
            raise InputError(f"cannot import: {key} is {settings[key]!r}, and ours is that with {wanted!r}")
    options = dict(kind.constants)
    for ours, theirs in kind.options.items():
        key, translate = theirs if isinstance(theirs, tuple) else (theirs, _same)
        options[ours] = translate(_setting(settings, key))
    return options


def _of_own(settings: Settings, published: str) -> dict[str, Any]:
    """The options of a network that we have as ATOMMIC has it: they have its names there."""
    name = f"{PREFIX}{published}"
    traits, fixed = store.describe(name), store.fixed_options(name)
    strides = settings.get("segmentation_module_strides") or []
    if not isinstance(strides, list) or any(stride != 1 for stride in strides):
        raise InputError("cannot import: segmentation_module_strides are not all 1, as published")
    given = {key: _setting(settings, key) for key in traits.aliases}
    same = {key: settings[key] for key in _OF_ONE_NAME if key in settings and key not in fixed}
    bound = store.bind(name, **given, **same, **{k: settings[k] for k in fixed if settings.get(k) is not None})
    options = {key: bound[key] for key in (*traits.aliases.values(), *same)}
    return options if published != "vnet" else {**options, "contrasts": given_contrasts(settings, options["contrasts"])}


_OF_ONE_NAME = ("num_primal", "num_dual")
"""Options that have ATOMMIC's names here."""


def _setting(settings: Settings, key: str) -> Any:
    if key not in settings:
        raise InputError(f"cannot import: the settings lack {key}")
    return settings[key]


def _name(settings: Settings) -> str:
    kind = str(settings["target"]).rpartition(".")[2]
    if kind not in _CLASSES:
        raise InputError(f"ATOMMIC's {kind} is not imported; those that are: {', '.join(sorted(_CLASSES))}")
    name = _CLASSES[kind]
    return "rim" if name == "cirim" and settings.get("num_cascades") == 1 else name


def _same(value: Any) -> Any:
    return value


def _conventions(settings: Settings, name: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Options of ours for ATOMMIC's conventions: coils, Fourier transform, axes, maps and the scaling of logits.

    Its "RSS" takes real and imaginary parts by themselves, which leaves the magnitude of the usual one. Some networks
    end with it, as the settings of the model say. Some start with it, as those of the data say, where they are there.
    known: the options of the network.
    """
    task = store.describe(name).task
    options: dict[str, Any] = {"transposed": transposed(settings), "checkered": checkered(settings)}
    if task in ("segmentation", "joint"):
        options["min_max"] = _min_max(settings)
    if task == "segmentation":
        return options
    end, start = end_of(settings), start_of(settings)
    for method in (end, start):
        if method not in ("SENSE", "RSS"):
            raise InputError(f"cannot import: coils were combined by {method}, which is no root of a sum of squares")
    if task != "reconstruction" and "RSS" in (end, start):
        raise InputError(
            f"cannot import: coils were combined by RSS, which ATOMMIC takes of real and imaginary parts separately, "
            f"and our {name} combines them by SENSE, as published"
        )
    options |= {"combination": end.lower(), "scaled": scaled(settings)} | _maps(settings)
    if task == "reconstruction":
        options["start"] = "rss_components" if start == "RSS" else "sense"
    if name in _IN_KSPACE or options.get("sens_region") in ("rows", "columns"):
        options["transform"] = _transform(settings)
    if "initializer_transform" in known and settings.get("learned_initializer"):
        options["initializer_transform"] = _transform(settings)
    return options


_IN_KSPACE = ("jointicnet", "kikinet", "lpdnet", "vsnet")
"""Networks that see k-space, or the places of its samples."""
_TRANSFORMS = {(True, "ortho"): "centred", (False, "backward"): "plain"}
_REGIONS = {"1D": "columns", "2D": "rows"}


def _transform(settings: Settings) -> str:
    transform = settings.get("fft_centered", False), settings.get("fft_normalization", "backward")
    if transform not in tuple(_TRANSFORMS):  # a list, as YAML may have it, is no key
        raise InputError(
            f"cannot import: fft_centered is {transform[0]!r} with fft_normalization {transform[1]!r}, and its k-space "
            "must be centred and orthonormal, or neither"
        )
    return _TRANSFORMS[transform]


def _maps(settings: Settings) -> dict[str, Any]:
    """Options for ATOMMIC's sensitivity network, none where it has none."""
    if not estimates_maps(settings):
        return {}
    prefix = "coil_sensitivity_maps_nn_"
    if not settings.get(f"{prefix}normalize", True):
        raise InputError(f"cannot import: {prefix}normalize is False, and our maps are divided by their size")
    kind = settings.get(f"{prefix}mask_type", "2D")
    if kind not in tuple(_REGIONS):
        raise InputError(f"cannot import: {prefix}mask_type is {kind!r}, and must be one of {', '.join(_REGIONS)}")
    return {
        "sens_net": True,
        "sens_channels": settings.get(f"{prefix}chans", 8),
        "sens_pooling_layers": settings.get(f"{prefix}pools", 4),
        "sens_region": _REGIONS[kind] if settings.get(f"{prefix}mask_center", True) else "all",
        "sens_padding": 15,
    }


def _min_max(settings: Settings) -> bool:
    """Whether logits are scaled to probabilities. Raises InputError where classes would be decided otherwise."""
    if not settings.get("normalize_segmentation_output", True):
        raise InputError(
            "cannot import: normalize_segmentation_output is False, and the magnitudes that it then gives are no "
            "probabilities"
        )
    thresholds = settings.get("segmentation_classes_thresholds")
    if isinstance(thresholds, list) and any(value != 0.5 for value in thresholds):
        raise InputError(f"cannot import: segmentation_classes_thresholds are {thresholds}, and ours are 0.5")
    return True
