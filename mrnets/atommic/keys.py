"""Weights of ATOMMIC 1.0.1 under our names: one list of key rules per network whose graph is the same as ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mrnets.errors import InputError

__all__ = ["state_dict"]

Rules = tuple[tuple[str, str], ...]
"""(regular expression that matches a whole key of theirs, our key). Ours with [i] at its end is joined from parts. An
empty one means that their network does not use the weight."""


def _unet(theirs: str, ours: str) -> Rules:
    """The rules of one U-Net whose keys start with `theirs` (a regular expression) and `ours` (its replacement)."""
    rules = [
        (rf"{theirs}up_transpose_conv\.(?P<level>\d+)\.layers\.0\.weight", rf"{ours}decoder.ups.\g<level>.weight"),
        (rf"{theirs}up_conv\.\d+\.1\.(?P<what>weight|bias)", rf"{ours}decoder.head.\g<what>"),
    ]
    for layer, conv in ((0, "conv1"), (4, "conv2")):
        pair = rf"layers\.{layer}\.weight"
        rules += [
            (rf"{theirs}down_sample_layers\.(?P<level>\d+)\.{pair}", rf"{ours}encoder.blocks.\g<level>.{conv}.weight"),
            (rf"{theirs}conv\.{pair}", rf"{ours}encoder.bottom.{conv}.weight"),
            (rf"{theirs}up_conv\.(?P<level>\d+)\.(?:0\.)?{pair}", rf"{ours}decoder.blocks.\g<level>.{conv}.weight"),
        ]
    return tuple(rules)


def _attention_unet(theirs: str, ours: str) -> Rules:
    """The same for a U-Net with attention gates."""
    gates = rf"{theirs}up_attention_gates\.(?P<level>\d+)\."
    parts = (("W_x", "skip"), ("W_g", "coarse"), ("psi", "weight"))
    return (
        *(
            (rf"{gates}{part}\.0\.(?P<what>weight|bias)", rf"{ours}decoder.gates.\g<level>.{name}.\g<what>")
            for part, name in parts
        ),
        *_unet(theirs, ours),
    )


def _ccnn() -> Rules:
    """Convolutions have even numbers there; the odd ones are the parametric ReLU, one for the whole network."""
    cascade = r"reconstruction_module\.(?P<c>\d+)\."
    convs = ((rf"{cascade}model\.conv\.{2 * i}\.(?P<what>\w+)", rf"stacks.\g<c>.convs.{i}.\g<what>") for i in range(64))
    return ((rf"{cascade}dc_weight", r"dc_weight[\g<c>]"), *convs, (rf"{cascade}model\.conv\.\d+\.weight", "slope"))


def _rim(theirs: str, ours: str) -> Rules:
    """The rules of one inference machine, whose recurrent units may be GRU or IndRNN."""
    layer = rf"{theirs}layers\.(?P<layer>\d+)\."
    return (
        (rf"{layer}convs\.conv_layer\.(?P<what>\w+)", rf"{ours}convs.\g<layer>.\g<what>"),
        (rf"{layer}rnn\.ih\.(?P<what>\w+)", rf"{ours}units.\g<layer>.input.\g<what>"),
        (rf"{layer}rnn\.hh(?P<what>\.weight|)", rf"{ours}units.\g<layer>.hidden\g<what>"),
        (rf"{theirs}final_layer\.0\.conv_layer\.weight", rf"{ours}last.weight"),
    )


_SEGMENTATION: dict[str, Rules] = {
    "segunet": _unet(r"segmentation_module\.", "unet."),
    "attentionunet": _attention_unet(r"segmentation_module\.", "unet."),
    "unet3d": _unet(r"segmentation_module\.", "unet."),
}

_JOINT: dict[str, Rules] = {
    "idslr": (
        *_unet(r"reconstruction_(?:encoder|decoder)\.", ""),
        *_unet(r"segmentation_decoder\.", "segmentation_"),
        (r"dc\.dc_weight", "consistency.weight"),
    ),
    "idslrunet": (
        *_unet(r"reconstruction_(?:encoder|decoder)\.", "reconstruction."),
        *_unet(r"segmentation_module\.", "segmentation."),
        (r"dc\.dc_weight", "consistency.weight"),
    ),
    "mtlrs": (
        *_rim(r"rs_module\.(?P<c>\d+)\.reconstruction_module\.0\.", r"machines.\g<c>."),
        *_attention_unet(r"rs_module\.(?P<c>\d+)\.segmentation_module\.", r"segmentations.\g<c>."),
        (r"rs_module\.\d+\.dc_weight", ""),
    ),
    "segnet": (
        *_unet(r"reconstruction_(?:encoder|decoder)\.(?P<c>\d+)\.", r"cascades.\g<c>."),
        *_unet(r"segmentation_decoder\.(?P<c>\d+)\.", r"cascades.\g<c>.segmentation_"),
        (r"segmentation_final_layer\.0\.conv_layer\.weight", "merge.weight"),
        (r"dc\.dc_weight", "consistency.weight"),
    ),
}

_MAPS = _unet(r"coil_sensitivity_maps_nn\.norm_unet\.unet\.", "sens_net.unet.unet.")
"""The rules of ATOMMIC's sensitivity network, which any network on k-space may have."""


def _crnn() -> Rules:
    """Layer 0 is the gated unit, whose state is always zero; the other layers are convolutions."""
    layers = r"reconstruction_module\.model\.layers\."
    convs = ((rf"{layers}{i}\.(?:0\.)?conv_layer\.weight", f"convs.{i - 1}.weight") for i in range(1, 66))
    return (
        (r"reconstruction_module\.dc_weight", "dc_weight"),
        (rf"{layers}0\.ih\.weight", "input.weight"),
        (rf"{layers}0\.hh\.weight", ""),
        *convs,
    )


def _vsnet() -> Rules:
    """All cascades share their blocks. Odd numbers are the parametric ReLU."""
    block = r"reconstruction_module\."
    conv = rf"{block}denoiser_block\.\d+\.conv\."
    convs = ((rf"{conv}{2 * i}\.(?P<what>\w+)", rf"stack.convs.{i}.\g<what>") for i in range(64))
    return (
        *convs,
        (rf"{conv}\d+\.weight", "slope"),
        (rf"{block}data_consistency_block\.\d+\.dc_weight", "dc_weight"),
        (rf"{block}weighted_average_block\.\d+\.param", "average"),
    )


def _vnet() -> Rules:
    """Each stage is named after its channels."""
    parts = (
        (r"(?:down|up)_tr\d+\.ops\.(?P<n>\d+)\.layers\.0\.(?P<what>\w+)", r"convs.\g<n>.conv.\g<what>"),
        (r"(?:down|up)_tr\d+\.ops\.(?P<n>\d+)\.layers\.1\.(?P<what>\w+)", r"convs.\g<n>.norm.\g<what>"),
        (r"(?:down|up)_tr\d+\.bn1\.(?P<what>\w+)", r"norm.\g<what>"),
        (r"down_tr\d+\.down_conv\.weight", "down.weight"),
        (r"up_tr\d+\.up_conv\.(?P<what>\w+)", r"up.\g<what>"),
    )
    stages = [(f"down_tr{width}", f"downs.{n}.") for n, width in enumerate((32, 64, 128, 256))]
    stages += [(f"up_tr{width}", f"ups.{n}.") for n, width in enumerate((256, 128, 64, 32))]
    ends = (("in_tr", "top"), ("out_tr", "mix"))
    module = r"segmentation_module\."
    return (
        *((rf"{module}(?={stage}\.){theirs}", f"net.{own}{ours}") for stage, own in stages for theirs, ours in parts),
        *((rf"{module}{end}\.conv_block\.0\.(?P<what>\w+)", rf"net.{own}.conv.\g<what>") for end, own in ends),
        *((rf"{module}{end}\.conv_block\.1\.(?P<what>\w+)", rf"net.{own}.norm.\g<what>") for end, own in ends),
        (rf"{module}out_tr\.conv2\.(?P<what>\w+)", r"net.head.\g<what>"),
    )


def _dynunet() -> Rules:
    """Its layers have a second name each, below skip_layers."""
    module, conv = r"segmentation_module\.", r"conv(?P<half>[12])\.conv\.weight"
    return (
        (rf"{module}input_block\.{conv}", r"top.conv\g<half>.weight"),
        (rf"{module}downsamples\.(?P<n>\d+)\.{conv}", r"downs.\g<n>.conv\g<half>.weight"),
        (rf"{module}bottleneck\.{conv}", r"bottom.conv\g<half>.weight"),
        (rf"{module}upsamples\.(?P<n>\d+)\.transp_conv\.conv\.weight", r"ups.\g<n>.up.weight"),
        (rf"{module}upsamples\.(?P<n>\d+)\.conv_block\.{conv}", r"ups.\g<n>.stage.conv\g<half>.weight"),
        (rf"{module}output_block\.conv\.conv\.(?P<what>\w+)", r"head.\g<what>"),
        (rf"{module}(?:deep_supervision_heads|skip_layers)\..*", ""),
    )


_OWN: dict[str, Rules] = {
    "crnn": _crnn(),
    "dynunet": _dynunet(),
    "jointicnet": (
        *_unet(r"image_model\.unet\.", "image_net.unet."),
        *_unet(r"kspace_model\.unet\.", "kspace_net.unet."),
        *_unet(r"sens_net\.norm_unet\.unet\.", "map_net.unet."),
        (r"reg_param_I", "image_weight"),
        (r"reg_param_F", "kspace_weight"),
        (r"lr_image", "image_step"),
        (r"reg_param_C|lr_sens|conv_out\.\w+", ""),
    ),
    "kikinet": (
        *_unet(r"image_model_list\.\d+\.unet\.", "image_net.unet."),
        *_unet(r"kspace_model_list\.\d+\.model\.unet\.", "kspace_net.unet."),
        (r"dc_weight", "dc_weight"),
    ),
    "lpdnet": (
        *_unet(r"primal_net\.\d+\.primal_block\.unet\.", "primal_net."),
        *_unet(r"dual_net\.\d+\.dual_block\.unet\.", "dual_net."),
    ),
    "qcirim": _rim(r"quantitative_module\.(?P<c>\d+)\.", r"machines.\g<c>."),
    "qvarnet": (
        (r"quantitative_module\.(?P<c>\d+)\.dc_weight", r"dc_weight[\g<c>]"),
        *_unet(r"quantitative_module\.(?P<c>\d+)\.model\.unet\.", r"unets.\g<c>.unet."),
    ),
    "vnet": _vnet(),
    "vsnet": _vsnet(),
    "xpdnet": ((r"reconstruction_module\.image_model_list\.(?P<c>\d+)\.1\.(?P<what>\w+)", r"convs.\g<c>.\g<what>"),),
}
"""The rules of the networks in `mrnets/atommic/nets`."""

_RULES: dict[str, Rules] = {
    "ccnn": _ccnn(),
    "cirim": _rim(r"reconstruction_module\.(?P<c>\d+)\.", r"machines.\g<c>."),
    "modl": (
        (r"reconstruction_module\.conv1\.weight", "denoiser.first.weight"),
        (
            r"reconstruction_module\.layers(?P<half>[12])\.(?P<block>\d+)\.weight",
            r"denoiser.conv\g<half>.\g<block>.weight",
        ),
        (r"reconstruction_module\.last_layer\.weight", "denoiser.middle.weight"),
        (r"reconstruction_module\.final_layer\.weight", "denoiser.last.weight"),
    ),
    "rim": _rim(r"reconstruction_module\.0\.", "machine."),
    "rvn": (
        (r"block_list\.(?P<step>\d+)\.learning_rate", r"learning_rate[\g<step>]"),
        (
            r"block_list\.(?P<step>\d+)\.regularizer\.(?P<gate>reset|update|out)_gates\.(?P<layer>\d+)\.0\.(?P<what>\w+)",
            r"blocks.\g<step>.\g<gate>.\g<layer>.\g<what>",
        ),
        (
            r"block_list\.(?P<step>\d+)\.regularizer\.conv_blocks\.(?P<layer>\d+)\.1\.(?P<what>\w+)",
            r"blocks.\g<step>.convs.\g<layer>.\g<what>",
        ),
        (r"initializer\.conv_blocks\.(?P<layer>\d+)\.1\.(?P<what>\w+)", r"initializer.convs.\g<layer>.\g<what>"),
        (r"initializer\.out_blocks\.(?P<layer>\d+)\.0\.(?P<what>\w+)", r"initializer.heads.\g<layer>.\g<what>"),
    ),
    "unet": _unet(r"reconstruction_module\.unet\.", "unet.unet."),
    "varnet": (
        (r"cascades\.(?P<c>\d+)\.dc_weight", r"dc_weight[\g<c>]"),
        *_unet(r"cascades\.(?P<c>\d+)\.model\.unet\.", r"unets.\g<c>.unet."),
    ),
    **_SEGMENTATION,
    **_JOINT,
    **_OWN,
}


def state_dict(name: str, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of our network `name` from that of ATOMMIC's.

    Raises InputError for a network whose graph is not the same as ours and for a key that is not one of its own.
    """
    if name not in _RULES:
        raise InputError(f"weights of ATOMMIC's {name!r} cannot be imported, only those of {', '.join(sorted(_RULES))}")
    ours: dict[str, Tensor] = {}
    parts: dict[str, dict[int, Tensor]] = {}
    for key, tensor in theirs.items():
        target = _renamed(key, name)
        if not target:
            continue
        if target in ours and not torch.equal(ours[target], tensor):
            raise InputError(f"{key!r} is one of several names of one weight of ATOMMIC's {name}, but differs from it")
        if part := re.fullmatch(r"(.*)\[(\d+)\]", target):
            parts.setdefault(part[1], {})[int(part[2])] = tensor
        else:
            ours[target] = tensor
    for key, pieces in parts.items():
        ours[key] = torch.cat([pieces[i].flatten() for i in sorted(pieces)])
    return ours


def _renamed(key: str, name: str) -> str:
    for pattern, replacement in (*_RULES[name], *_MAPS):
        if match := re.fullmatch(pattern, key):
            return match.expand(replacement)
    raise InputError(f"{key!r} is not a weight of ATOMMIC's {name}")
