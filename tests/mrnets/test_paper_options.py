"""Options by the names that they have in ATOMMIC's paper and in its repository's configurations."""

from __future__ import annotations

from typing import Any

import pytest

from mrnets import store
from mrnets.__main__ import main
from mrnets.errors import InputError

RIM: dict[str, Any] = {
    "conv_kernels": [5, 3, 3],
    "conv_dilations": [1, 2, 1],
    "conv_bias": [True, True, False],
    "recurrent_kernels": [1, 1, 0],
    "recurrent_dilations": [1, 1, 0],
    "recurrent_bias": [True, True, False],
    "depth": 2,
    "time_steps": 8,
    "no_dc": True,
    "keep_prediction": True,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "attentionunet": {"segmentation_module_channels": 32, "segmentation_module_pooling_layers": 5},
    "ccnn": {"num_cascades": 10, "hidden_channels": 64, "n_convs": 5, "batchnorm": False, "no_dc": False},
    "cirim": {
        **RIM,
        "recurrent_layer": "IndRNN",
        "conv_filters": [128, 128, 2],
        "recurrent_filters": [128, 128, 0],
        "num_cascades": 5,
    },
    "crnn": {"num_iterations": 10, "hidden_channels": 64, "n_convs": 3, "batchnorm": False},
    "dynunet": {
        "segmentation_module_input_channels": 4,
        "segmentation_module_deep_supervision": True,
        "segmentation_module_deep_supervision_levels": 2,
    },
    "idslr": {"channels": 64, "num_pools": 2, "drop_prob": 0.0, "normalize": False, "num_iters": 5},
    "idslrunet": {"channels": 64, "num_pools": 2, "drop_prob": 0.0, "normalize": False, "num_iters": 5},
    "jointicnet": {
        "num_iter": 2,
        "kspace_unet_num_filters": 16,
        "kspace_unet_num_pool_layers": 2,
        "kspace_unet_dropout_probability": 0.0,
        "imspace_unet_num_filters": 16,
        "imspace_unet_num_pool_layers": 2,
        "sens_unet_num_filters": 16,
        "sens_unet_num_pool_layers": 2,
        "sens_unet_normalize": True,
    },
    "kikinet": {
        "num_iter": 2,
        "kspace_model_architecture": "UNET",
        "kspace_unet_num_filters": 16,
        "kspace_unet_num_pool_layers": 2,
        "imspace_model_architecture": "UNET",
        "imspace_unet_num_filters": 16,
        "imspace_unet_num_pool_layers": 2,
    },
    "lpdnet": {
        "num_primal": 5,
        "num_dual": 5,
        "num_iter": 5,
        "primal_model_architecture": "UNET",
        "primal_unet_num_filters": 16,
        "primal_unet_num_pool_layers": 2,
        "dual_unet_num_filters": 16,
        "dual_unet_num_pool_layers": 2,
    },
    "modl": {"unrolled_iterations": 5, "residual_blocks": 5, "channels": 64, "regularization_factor": 0.1},
    "mtlrs": {
        "joint_reconstruction_segmentation_module_cascades": 5,
        **{f"reconstruction_module_{key}": value for key, value in RIM.items()},
        "reconstruction_module_recurrent_layer": "IndRNN",
        "reconstruction_module_conv_filters": [64, 64, 2],
        "reconstruction_module_recurrent_filters": [64, 64, 0],
        "segmentation_module": "AttentionUNet",
        "segmentation_module_channels": 32,
        "segmentation_module_pooling_layers": 5,
        "task_adaption_type": "multi_task_learning",
    },
    "qcirim": {
        **{f"quantitative_module_{key}": value for key, value in RIM.items()},
        "quantitative_module_conv_filters": [64, 64, 4],
        "quantitative_module_recurrent_filters": [64, 64, 0],
        "quantitative_module_num_cascades": 5,
    },
    "qvarnet": {
        "quantitative_module_num_cascades": 8,
        "quantitative_module_channels": 18,
        "quantitative_module_pooling_layers": 4,
    },
    "rim": {**RIM, "recurrent_layer": "GRU", "conv_filters": [64, 64, 2], "recurrent_filters": [64, 64, 0]},
    "rvn": {
        "in_channels": 2,
        "recurrent_hidden_channels": 64,
        "recurrent_num_layers": 4,
        "num_steps": 8,
        "no_parameter_sharing": True,
        "initializer_initialization": "sense",
        "initializer_channels": [32, 32, 64, 64],
        "initializer_dilations": [1, 1, 2, 4],
        "initializer_multiscale": 1,
    },
    "segnet": {
        "channels": 64,
        "num_pools": 2,
        "num_cascades": 5,
        "segmentation_final_layer_conv_dim": 2,
        "segmentation_final_layer_kernel_size": 3,
        "segmentation_final_layer_dilation": 1,
        "segmentation_final_layer_bias": False,
        "segmentation_final_layer_nonlinear": "relu",
    },
    "segunet": {"segmentation_module_input_channels": 4, "segmentation_module_output_channels": 4},
    "unet": {"channels": 64, "pooling_layers": 4, "in_channels": 2, "out_channels": 2, "norm_groups": 2},
    "unet3d": {"segmentation_module_channels": 32, "consecutive_slices": 3, "dimensionality": 3},
    "varnet": {"num_cascades": 8, "channels": 18, "pooling_layers": 4, "no_dc": False, "consecutive_slices": 1},
    "vnet": {"segmentation_module_activation": "elu", "segmentation_module_channels": 16},
    "vsnet": {
        "num_cascades": 10,
        "imspace_model_architecture": "CONV",
        "imspace_conv_hidden_channels": 64,
        "imspace_conv_n_convs": 4,
        "imspace_conv_batchnorm": False,
    },
    "xpdnet": {
        "num_primal": 5,
        "num_dual": 1,
        "num_iter": 10,
        "use_primal_only": True,
        "image_model_architecture": "MWCNN",
        "mwcnn_hidden_channels": 16,
    },
}
"""The published values, which are the defaults."""


@pytest.mark.parametrize(("name", "options"), PUBLISHED.items())
def test_published_options_by_their_names_are_the_defaults(name: str, options: dict[str, Any]) -> None:
    assert store.bind(name, **options) == store.bind(name)


@pytest.mark.parametrize("name", [name for name in store.names() if store.describe(name).learns])
def test_names_lead_to_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    known, traits = store.bind(name), store.describe(name)
    assert set(traits.names_of_options.values()) <= set(known)
    assert not set(traits.fixed) & (set(known) | set(traits.aliases))
    assert main(["show", name]) == 0
    words = capsys.readouterr().out.replace(",", " ").split()
    assert {*known, *store.fixed_options(name)} <= set(words)
    assert {alias for alias, key in traits.names_of_options.items() if alias != key} <= set(words)


def test_widths_by_the_papers_names_reach_the_network() -> None:
    named = store.bind("kikinet", kspace_unet_num_filters=8, imspace_unet_num_filters=8, num_iter=3)
    assert named == store.bind("kikinet", channels=8, cascades=3)
    assert store.bind("cirim", recurrent_filters=[32, 64, 0])["recurrent_filters"] == (32, 64)
    assert store.bind("varnet", estimate_coil_sensitivity_maps_with_nn=True)["sens_net"] is True


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("kikinet", {"kspace_unet_num_filters": 8, "imspace_unet_num_filters": 4}, "channels .* twice, as 8 and as 4"),
        ("cirim", {"recurrent_kernels": [3, 3, 0]}, r"recurrent_kernels .* is \(1, 1, 0\) here, not \(3, 3\)"),
        ("xpdnet", {"num_dual": 5}, "num_dual of network xpdnet is 1 here, not 5"),
        ("modl", {"conjugate_gradient_dc": False}, "is True here, not False"),
        ("unet3d", {"consecutive_slices": 5}, "is 3 here, not 5; preparation.slices sets it"),
        ("zerofilled", {"consecutive_slices": 1}, "unknown option"),
    ],
)
def test_what_cannot_be_had_is_refused(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        store.bind(name, **options)


def test_networks_of_atommic_are_shown_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "atommic.kikinet"]) == 0
    shown = capsys.readouterr().out
    assert "differs      its iterations share one set of weights" in shown
    assert "kspace_unet_padding_size" in shown
    assert main(["show", "atommic.cgsense"]) == 1
    assert "unknown network: 'atommic.cgsense'" in capsys.readouterr().err
