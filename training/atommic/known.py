"""Settings of ATOMMIC that need no counterpart, and the reasons why others have none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from training.atommic.parts import Part

__all__ = ["differences", "lines"]

_OFF: tuple[Any, ...] = (None, False, 0, 0.0, "none", "None", [], {})
"""Values of switches that ask for nothing."""

_ON = ("shuffle", "dice_loss_include_background", "dice_loss_batch", "cross_entropy_loss_include_background")
"""Switches that are always on here."""

_READ_FROM_DATA = (
    r"input_channels|segmentation_module_(in|out)put_channels|reconstruction_module_output_channels|num_echoes|"
    r"consecutive_slices|dimensionality|segmentation_classes|TEs|sequence|complex_data|complex_target"
)
_ONE_CONVENTION = r"coil_dim|spatial_dims|fft_centered|fft_normalization|num_cols|data_saved_per_slice"
_LAYERS = (
    r"((k|im)space|primal|dual)_(in|out)_channels|(quantitative_|reconstruction_)?module_(in|out)_channels|"
    r"quantitative_module_(in|out)_channels|.*conv_dim|.*depth|.*dimensionality|model_name|segmentation_module|"
    r"dual_conv_.*|kspace_model_architecture|use_reconstruction_module|segmentation_module_norm_groups|padding|norm_groups"
)
_LOGS = r"log_.*|logger|.*_metric_.*|metric_.*|unnormalize_log_outputs|enable_checkpointing|exp_dir|.*_kwargs|wandb_.*"
_FILES = r"data_path|dataset_format|use_dataset_cache|dataset_cache_file|pin_memory|num_workers|use_seed|files_to_copy"
_RUN = r"pretrained|accelerator|strategy|devices|num_nodes|check_val_every_n_epoch|last_epoch|max_steps"
_SILENT = re.compile("|".join((_READ_FROM_DATA, _ONE_CONVENTION, _LAYERS, _LOGS, _FILES, _RUN)))
"""Settings that say what is read from the data here, what has one convention, or how ATOMMIC works."""

_SAME: dict[str, tuple[Any, ...]] = {
    "complex_valued_type": ("stacked", "complex_abs"),
    "magnitude_input": (True, False),
    "precompute_quantitative_maps": (True,),
    "qmaps_scaling_factor": ("1e-3", 1e-3),
    "quantitative_maps_scaling_factor": ("1e-3", 1e-3),
    "kspace_scaling_factor": (10000,),
    "sample_rate": (1, 1.0),
    "shuffle": (True,),
    "crop_before_masking": (True,),
    "coil_sensitivity_maps_espirit_max_iters": (30,),
    "segmentation_activation": ("sigmoid",),
    "dice_loss_include_background": (True,),
    "dice_loss_batch": (True,),
    "dice_loss_reduction": ("mean_batch", "mean"),
    "cross_entropy_loss_include_background": (True,),
    "cross_entropy_loss_reduction": ("mean",),
    "total_quantitative_loss_weight": (1, 1.0),
    "quantitative_module_signal_forward_model_sequence": ("MEGRE",),
    "segmentation_mode": ("multilabel", "multiclass"),
    "segmentation_output_mode": ("binary",),
    "keep_prediction": (True,),
    "no_parameter_sharing": (True,),
}
"""Values with which a setting says what holds here anyway."""

_REASONS = {
    r".*padding_size": "U-Nets pad to sizes that every pooling halves",
    r"normalize_segmentation_output": "logits are not scaled by their least and largest value",
    r"segmentation_classes_thresholds": "classes are decided by the largest logit, or above 0",
    r"normalize_image|standardization": "no network here has it",
    r"mwcnn_bias": "only the last convolution has a bias",
    r"mwcnn_batchnorm|batchnorm": "there is no batch normalisation",
    r"segmentation_module_kernel_size": "kernels are 3, as in nnU-Net",
    r"segmentation_module_strides": "each level halves the resolution, as in nnU-Net",
    r"quantitative_module_normalize": "each map is standardised by itself",
    r"reconstruction_module_.*": "train it before, and give network.first=WEIGHTS",
    r"checkpoint": "import it by python -m mrnets import-atommic, and give network.start=WEIGHTS",
    r"quantitative_maps_regularization_factors": "maps have units of their own inside the networks",
    r"quantitative_parameters_regularization_factors": "the terms of all maps count alike",
    r"dice_loss_smooth_.*": "the Dice loss has a constant of its own",
    r"dice_loss_(sigmoid|softmax)": "classes that exclude each other get the softmax, others the sigmoid",
    r"cross_entropy_loss_classes_weight": "all classes count alike",
    r"cross_entropy_loss_num_samples": "all pixels count",
    r"initial_predictions_path": "give network.first=WEIGHTS of a reconstruction, and network.options={start: image}",
    r"segmentations_path|segmentation_mask_path": "labels are found in the folder data=FOLDER",
    r"coil_sensitivity_maps_path": "maps are found in the folder data=FOLDER, or estimated",
    r"noise_path": "noise is measured in the scan, or found in the periphery of k-space",
    r"kspace_zero_filling_size": "k-space is not filled with zeros",
    r"coil_sensitivity_maps_gaussian_sigma": "calibration lines get no Gaussian window",
    r"penalization_weight|conjugate_gradient_.*": "modl learns its weight, and solves by consistency_iterations",
    r"learned_initializer": "see python -m mrnets show rvn",
    r"gradient_clip_algorithm": "gradients are clipped by their norm",
    r"num_sanity_val_steps|reload_dataloaders_every_n_epochs": "nothing has to be reloaded",
    r"shuffle": "training slices always come in random order",
    r"volume_sample_rate|sample_rate": "choose subjects by reader.split",
    r"ssdu.*": "see self_supervised in training/README.md",
    r"n2r.*": "see noise_to_recon in training/README.md",
    r"apply_random_motion|random_motion_.*": "see augmentation.motion in training/README.md",
}


def differences(training: Part, validation: Part) -> Iterator[str]:
    """Give a line for every setting that the data of validation have otherwise than those of training."""
    for key, value in validation.values.items():
        other = training.values.get(key, value)
        if key == "mask_args" and isinstance(other, dict) and isinstance(value, dict):
            value, other = ({k: v for k, v in values.items() if k != "use_seed"} for values in (value, other))
        if value != other and not re.fullmatch(r".*_path|use_seed|shuffle|batch_size|log_images_rate", key):
            yield f"{validation.path(key)}: {value} (validation reads its data as training does)"


def lines(part: Part) -> Iterator[str]:
    """Give a line for every setting of `part` that has no counterpart and asks for something."""
    for key, value in part.values.items():
        off = value in _OFF and key not in _ON
        if key in part.met or off or _SILENT.fullmatch(key) or value in _SAME.get(key, ()):
            continue
        reason = next((text for pattern, text in _REASONS.items() if re.fullmatch(pattern, key)), "no counterpart")
        yield f"{part.path(key)}: {value} ({reason})"
