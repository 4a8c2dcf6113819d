"""Networks trained with ATOMMIC 1.0.1 as weights files of ours: `python -m mrnets import-atommic`.

Its archive is a tar, plain or gzip, of `model_config.yaml` and `model_weights.ckpt`. The weights are read as tensors
and nothing else (`weights_only`), the settings by YAML's safe reader, both up to a bounded size. A setting that this
program would compute differently is refused, never passed over.
"""

from __future__ import annotations

import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mrnets import atommic, store
from mrnets.errors import InputError
from mrnets.preparation import Preparation

__all__ = ["Imported", "convert", "import_atommic", "read"]

Settings = Mapping[str, Any]
Translations = dict[str, str | tuple[str, Callable[[Any], Any]]]
"""Our option to their setting, or to their setting and what makes our value of theirs."""

_LARGEST = {"model_config.yaml": 2**20, "model_weights.ckpt": 2**32}
"""Bytes."""


@dataclass(frozen=True)
class _Kind:
    """How the settings of one of ATOMMIC's networks become options of ours."""

    options: Translations
    constants: dict[str, Any] = field(default_factory=dict)
    """Options of ours that ATOMMIC does not let one choose."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """Settings of theirs that ours does not let one choose."""


@dataclass(frozen=True)
class Imported:
    """A network of ours with ATOMMIC's weights, and what `store.save` needs with it."""

    name: str
    options: dict[str, Any]
    network: nn.Module
    preparation: dict[str, Any]


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
        {"num_cascades": "num_cascades", "hidden_channels": "hidden_channels", "n_convs": "n_convs"},
        fixed={"batchnorm": False, "no_dc": False},
    ),
    "cirim": _Kind({**_rim(), "num_cascades": "num_cascades"}, fixed=_rim_fixed()),
    "rim": _Kind(_rim(), fixed=_rim_fixed()),
    "modl": _Kind(
        {
            "unrolled_iterations": "unrolled_iterations",
            "residual_blocks": "residual_blocks",
            "channels": "channels",
            "regularization_factor": "regularization_factor",
        },
        constants={"conjugate_gradient": False},
        fixed={"conjugate_gradient_dc": False},
    ),
    "rvn": _Kind(
        {
            "num_steps": ("num_steps", _steps),
            "recurrent_hidden_channels": "recurrent_hidden_channels",
            "recurrent_num_layers": "recurrent_num_layers",
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
    "varnet": _Kind({**_UNET, "num_cascades": "num_cascades"}, fixed={"no_dc": False, "normalize": True}),
    "segunet": _SEGMENTATION,
    "attentionunet": _SEGMENTATION,
    "unet3d": _SEGMENTATION,
    "idslr": _Kind({**_JOINT, "num_iters": "num_iters"}, {"magnitude": True}, {"normalize": False}),
    "idslrunet": _Kind({**_JOINT, "num_iters": "num_iters"}, fixed={"normalize": False}),
    "segnet": _Kind({**_JOINT, "num_cascades": "num_cascades"}, fixed={"normalize": True, "norm_groups": 2}),
    "mtlrs": _Kind(
        {
            **_rim("reconstruction_module_"),
            "num_cascades": "joint_reconstruction_segmentation_module_cascades",
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


def import_atommic(
    checkpoint: str | os.PathLike[str], out: str | os.PathLike[str], config: str | os.PathLike[str] | None = None
) -> Imported:
    """Read ATOMMIC's `checkpoint` and write our weights file `out`; what was imported.

    config: its YAML, for a checkpoint that is not an archive. Raises InputError with one sentence for whatever cannot
    be read, or would not be computed as ATOMMIC does.
    """
    settings, weights = read(checkpoint, config)
    imported = convert(settings, weights)
    store.save(
        out,
        imported.network,
        name=imported.name,
        options=imported.options,
        preparation=imported.preparation,
        provenance={
            "imported": f"from ATOMMIC {settings.get('atommic_version', '(version unknown)')}, {settings['target']}",
            "file": Path(checkpoint).name,
            "normalisation": f"trained with {_found(settings, 'normalization_type') or 'an unknown one'}",
        },
    )
    return imported


def convert(settings: Settings, weights: Mapping[str, Tensor]) -> Imported:
    """Our network from ATOMMIC's settings (its model section, with `target`) and state dict."""
    name = _name(settings)
    kind = _KINDS[name]
    for key, wanted in {**kind.fixed, "estimate_coil_sensitivity_maps_with_nn": False}.items():
        if settings.get(key, wanted) != wanted:
            raise InputError(f"cannot import: {key} is {settings[key]!r}, and our {name} is that with {wanted!r}")
    options = {**kind.constants, **_conventions(settings, name)}
    for ours, theirs in kind.options.items():
        key, translate = theirs if isinstance(theirs, tuple) else (theirs, _same)
        if key not in settings:
            raise InputError(f"cannot import: the settings lack {key}")
        options[ours] = translate(settings[key])
    bound = store.bind(name, **options)
    network = store.create(name, **bound)
    _load(network, atommic.state_dict(name, weights), name)
    return Imported(name, bound, network, _preparation(settings, name, bound))


def read(
    checkpoint: str | os.PathLike[str], config: str | os.PathLike[str] | None = None
) -> tuple[Settings, dict[str, Tensor]]:
    """Settings and state dict of an archive, or of a checkpoint with its YAML."""
    path = Path(checkpoint)
    try:
        if config is None:
            parts = _unpacked(path)
        else:
            parts = {"model_config.yaml": Path(config).read_bytes(), "model_weights.ckpt": path.read_bytes()}
    except OSError as error:
        raise InputError(f"cannot read {error.filename or path}: {error.strerror or error}") from None
    return _settings(parts["model_config.yaml"], config or path), _weights(parts["model_weights.ckpt"], path)


def _unpacked(path: Path) -> dict[str, bytes]:
    parts: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                file = archive.extractfile(member) if name in _LARGEST and member.isfile() else None
                if file is None:
                    continue
                if member.size > _LARGEST[name]:
                    raise InputError(f"{name} in {path} has {member.size} bytes, more than any network needs")
                parts[name] = file.read(_LARGEST[name])
    except InputError:
        raise
    except (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError):
        raise InputError(f"{path} is not an archive of ATOMMIC, and no settings were given with --config") from None
    for name in _LARGEST:
        if name not in parts:
            raise InputError(f"{path} is not an archive of ATOMMIC: it has no {name}")
    return parts


def _settings(text: bytes, source: str | os.PathLike[str]) -> Settings:
    try:
        import yaml
    except ImportError:
        raise InputError("ATOMMIC's settings are YAML, and PyYAML is not installed: pip install pyyaml") from None
    try:
        value = yaml.safe_load(text[: _LARGEST["model_config.yaml"]].decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError):
        raise InputError(f"the settings in {source} are not YAML") from None
    if isinstance(value, dict) and isinstance(value.get("model"), dict):
        value = {**value["model"], **{k: v for k, v in value.items() if k in ("target", "atommic_version")}}
    if not isinstance(value, dict) or not isinstance(value.get("target"), str):
        raise InputError(f"the settings in {source} do not name a network (target)")
    return cast(Settings, value)


def _weights(content: bytes, path: Path) -> dict[str, Tensor]:
    try:
        value = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 torch raises whatever the bytes make it
        reason = str(error).partition("\n")[0]
        raise InputError(f"the weights in {path} cannot be read as tensors alone: {reason}") from None
    if isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        value = value["state_dict"]
    if not isinstance(value, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items()):
        raise InputError(f"the weights in {path} are not a state dict")
    return dict(value)


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


def _load(network: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    expected = network.state_dict()
    for key in sorted(expected.keys() | weights.keys()):
        shapes = [tuple(state[key].shape) if key in state else "absent" for state in (expected, weights)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"cannot import: {key} of our {name} should be {shapes[0]} by the settings, and is {shapes[1]}"
            )
    network.load_state_dict(dict(weights))


def _conventions(settings: Settings, name: str) -> dict[str, Any]:
    """Options of ours for how ATOMMIC combined the coils, and for its Fourier transform.

    Images are the same whatever its transform: only rvn sees k-space. Its "RSS" takes real and imaginary parts by
    themselves, which leaves the magnitude of the usual one; some networks end with it (as the settings of the model
    say), some start with it (as those of the data say, where they are there).
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
    known = store.bind(name)
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
    """What the network starts from is made with the data; older settings have no word of it but the model's."""
    for section in ("train_ds", "train_dataset"):
        data = settings.get(section)
        if isinstance(data, Mapping) and data.get("coil_combination_method") is not None:
            return str(data["coil_combination_method"])
    return _end(settings)


def _preparation(settings: Settings, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What the settings say of the data. Where ATOMMIC subtracts a real number from complex data, which is a spike in
    k-space, we only divide; its patch of noise and its ESPIRiT are left to ours, which find what they need. Each class
    of a segmentation is decided by itself."""
    coils, squares = options.get("coils"), _start(settings) == "RSS"
    values: dict[str, Any] = {
        "slices": store.describe(name).slices,
        "classes": "overlapping" if "classes" in options else "exclusive",
        "whiten": "periphery" if _found(settings, "apply_prewhitening") else "none",
        "combination": "rss" if squares else "sense",
        "sens": "none" if store.describe(name).task == "segmentation" or (name == "unet" and squares) else "espirit",
        "normalisation": _normalisation(settings),
        "normalise": "kspace" if _found(settings, "kspace_normalization") else "image",
    }
    if _found(settings, "apply_gcc"):
        values["coils"] = _found(settings, "gcc_virtual_coils") if coils is None else coils
        values["compression_lines"] = _found(settings, "gcc_calib_lines")
        values["compression_align"] = bool(_found(settings, "gcc_align_data"))
    else:
        values["coils"] = coils
    crop = _found(settings, "crop_size")
    if isinstance(crop, list):
        values["kspace_crop" if _found(settings, "kspace_crop") else "image_crop"] = crop
    return Preparation.from_json(values).to_json()


def _normalisation(settings: Settings) -> str:
    if _found(settings, "normalize_inputs") is False:
        return "none"
    kind = _found(settings, "normalization_type")
    return "none" if kind is False else str(kind or "max").lower()


def _found(settings: Settings, key: str) -> Any:
    """A setting of the model section, or of the data that it was trained on; None where neither says."""
    for section in (settings, settings.get("train_ds"), settings.get("train_dataset")):
        if isinstance(section, Mapping) and section.get(key) is not None:
            return section[key]
    return None
