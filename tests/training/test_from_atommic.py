"""Training configurations of ATOMMIC as recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mrnets.errors import InputError
from training.__main__ import main
from training.atommic.convert import Converted, convert
from training.options import read

yaml = pytest.importorskip("yaml")

VARNET: dict[str, Any] = {
    "model_name": "VN",
    "num_cascades": 6,
    "channels": 14,
    "pooling_layers": 2,
    "padding_size": 11,
    "normalize": True,
    "no_dc": False,
    "reconstruction_loss": {"l1": 0.1, "ssim": 0.9},
    "fft_centered": True,
    "fft_normalization": "ortho",
    "coil_dim": 1,
    "coil_combination_method": "SENSE",
    "estimate_coil_sensitivity_maps_with_nn": True,
    "ssdu": False,
}
FASTMRI: dict[str, Any] = {
    "data_path": "lists/train.json",
    "dataset_format": "fastmri",
    "apply_prewhitening": False,
    "apply_gcc": True,
    "gcc_virtual_coils": 4,
    "gcc_calib_lines": 24,
    "gcc_align_data": False,
    "coil_combination_method": "SENSE",
    "mask_args": {"type": "equispaced1d", "accelerations": [4, 8], "center_fractions": [0.08, 0.04]},
    "partial_fourier_percentage": 0.1,
    "crop_size": [320, 300],
    "kspace_crop": False,
    "crop_before_masking": True,
    "normalize_inputs": True,
    "normalization_type": "minmax",
    "batch_size": 2,
    "num_workers": 3,
    "shuffle": True,
}
OPTIM: dict[str, Any] = {
    "name": "adam",
    "lr": "1e-4",
    "betas": [0.9, 0.98],
    "weight_decay": "1e-5",
    "sched": {"name": "InverseSquareRootAnnealing", "min_lr": "1e-6", "last_epoch": -1, "warmup_ratio": 0.1},
}
TRAINER: dict[str, Any] = {"max_epochs": 20, "max_steps": -1, "precision": "16-mixed", "accelerator": "gpu"}
MANAGER: dict[str, Any] = {
    "exp_dir": "runs",
    "ema": {"enable": True, "decay": 0.99},
    "create_tensorboard_logger": True,
    "create_wandb_logger": False,
}
SEGMENTATION: dict[str, Any] = {
    "segmentation_module_input_channels": 3,
    "segmentation_module_output_channels": 1,
    "segmentation_loss": {"dice": 0.5, "binary_cross_entropy": 0.5},
    "segmentation_classes_thresholds": [0.5],
    "normalize_segmentation_output": True,
    "magnitude_input": True,
    "coil_combination_method": "None",
}
IMAGES: dict[str, Any] = {
    "data_path": "folder",
    "segmentations_path": "labels",
    "dataset_format": "ISLES2022SubAcuteStroke",
    "mask_args": {"type": "none"},
    "crop_size": [96, 80],
    "normalization_type": "minmax",
}


def configuration(tmp_path: Path, model: dict[str, Any], data: dict[str, Any], **changes: Any) -> Path:
    values = {
        "pretrained": False,
        "mode": "train",
        "model": {"train_ds": data, "validation_ds": data, "optim": OPTIM, **model},
        "trainer": TRAINER,
        "exp_manager": MANAGER,
        **changes,
    }
    path = tmp_path / "configuration.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def converted(tmp_path: Path, model: dict[str, Any], data: dict[str, Any], **changes: Any) -> Converted:
    return convert(configuration(tmp_path, model, data, **changes))


def test_a_configuration_becomes_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = {**FASTMRI, "data_path": "lists/val.json"}
    path, out = configuration(tmp_path, {**VARNET, "validation_ds": lists}, FASTMRI), tmp_path / "recipe.yaml"
    assert main(["from-atommic", str(path), "-o", str(out)]) == 0
    options = read(out)
    assert (options.network.name, options.network.options["cascades"]) == ("varnet", 6)
    assert options.network.options["sens_net"] is True
    assert options.reader.split.lists == {"train": "lists/train.json", "validation": "lists/val.json"}
    masks, preparation, optimiser = options.masks, options.preparation, options.optimiser
    assert (masks.names, masks.accelerations, masks.centres) == (("equispaced1d",), (4, 8), (0.08, 0.04))
    # Its first axis is the readout, which is x here.
    assert (masks.image_crop, masks.partial_fourier) == ((300, 320), 0.1)
    assert (preparation.whiten, preparation.sens, preparation.combination) == ("none", "none", "sense")
    assert (preparation.coils, preparation.compression_lines, preparation.compression_align) == (4, 24, False)
    assert preparation.normalisation == "minmax"
    assert (options.loss.l1, options.loss.ssim) == (0.1, 0.9)
    assert (optimiser.name, optimiser.learning_rate, optimiser.betas) == ("adam", 1e-4, (0.9, 0.98))
    assert (optimiser.schedule, optimiser.warm_up, optimiser.min_lr) == ("inverse_sqrt", 0.1, 1e-6)
    assert (optimiser.weight_decay, optimiser.ema, optimiser.clip) == (1e-5, 0.99, 1e9)
    assert (options.epochs, options.batch, options.workers) == (20, 2, 3)
    assert (options.precision, options.device, options.log) == ("float16", "cuda", ("tensorboard",))
    assert options.seen.anatomy == ("brain",)
    line = "model.padding_size: 11 (U-Nets pad to sizes that every pooling halves)"
    printed = capsys.readouterr().out
    assert printed.splitlines() == [line, f"wrote {out}; settings without a counterpart, which it lists: 1"]
    text = out.read_text(encoding="utf-8")
    assert f"# {line}\n" in text
    assert f"#   python -m training fit {out} data=FOLDER\n" in text


def test_the_anatomy_of_fastmri_is_told_by_its_paths(tmp_path: Path) -> None:
    knees = converted(tmp_path, VARNET, {**FASTMRI, "data_path": "data/Knees/multicoil_train"})
    assert knees.recipe["folder"] == "runs/fastmri_knees_varnet"
    single = converted(tmp_path, VARNET, {**FASTMRI, "data_path": "data/Knees/singlecoil_train"})
    assert single.recipe["folder"] == "runs/fastmri_knees_singlecoil_varnet"
    assert single.recipe["seen"]["anatomy"] == ["knee"]


def test_gaussian_masks_have_their_width_and_their_centre(tmp_path: Path) -> None:
    mask = {"type": "gaussian2d", "accelerations": [12], "center_fractions": [0.7], "center_scale": 0.05}
    data = {**FASTMRI, "dataset_format": "stanford_knees", "mask_args": mask, "crop_size": "None"}
    maps = {"estimate_coil_sensitivity_maps": True, "coil_sensitivity_maps_type": "rss"}
    model = {**VARNET, "estimate_coil_sensitivity_maps_with_nn": False}
    recipe = converted(tmp_path, model, {**data, **maps}).recipe
    assert recipe["masks"]["centres"] == [0.1]
    assert recipe["masks"]["options"] == {"fwhm": 0.7}
    assert recipe["preparation"]["sens"] == "rss"
    espirit = {**maps, "coil_sensitivity_maps_type": "espirit", "coil_sensitivity_maps_espirit_kernel_size": 7}
    preparation = converted(tmp_path, model, {**data, **espirit}).recipe["preparation"]
    assert (preparation["sens"], preparation["kernel"]) == ("espirit", 7)


def test_masks_of_the_data_and_learnt_maps_of_jointicnet(tmp_path: Path) -> None:
    widths = {f"{part}_unet_num_filters": 8 for part in ("kspace", "imspace", "sens")}
    model = {"model_name": "JointICNet", "num_iter": 3, **widths, "reconstruction_loss": "ssim"}
    data = {
        **FASTMRI,
        "dataset_format": "cc359",
        "mask_path": "masks",
        "mask_args": {"type": "none"},
        "crop_size": "None",
    }
    recipe = converted(tmp_path, model, {**data, "coil_combination_method": "RSS"}).recipe
    assert recipe["network"]["options"] == {"iterations": 3, "channels": 8, "sens_net": True}
    assert recipe["masks"] == {"source": "data", "partial_fourier": 0.1}
    assert recipe["reader"]["options"]["masks"] == "masks"
    assert recipe["loss"] == {"ssim": 1.0}
    assert (recipe["preparation"]["sens"], recipe["preparation"]["combination"]) == ("none", "rss")


def test_data_without_maps_get_the_same_map_for_every_coil(tmp_path: Path) -> None:
    model = {**VARNET, "estimate_coil_sensitivity_maps_with_nn": False}
    assert converted(tmp_path, model, FASTMRI).recipe["preparation"]["sens"] == "unitary"


def test_segmentation_of_images(tmp_path: Path) -> None:
    model = {**SEGMENTATION, "model_name": "SEGMENTATION3DUNET", "consecutive_slices": 3, "dimensionality": 2}
    found = converted(tmp_path, {**model, "segmentation_module_channels": 16}, IMAGES)
    assert found.recipe["network"] == {"name": "unet3d", "options": {"channels": 16}}
    assert "masks" not in found.recipe
    assert found.recipe["reader"]["options"]["slices"] == 3
    assert found.recipe["preparation"] == {"image": "magnitude", "normalisation": "minmax", "image_crop": [96, 80]}
    assert found.recipe["loss"] == {"dice": 0.5, "cross_entropy": 0.5}
    keys = [line.partition(":")[0] for line in found.lines]
    assert "model.normalize_segmentation_output" in keys
    assert "model.train_ds.segmentations_path" in keys


def test_the_levels_of_dynunet(tmp_path: Path) -> None:
    levels = {"channels": [8, 16, 32, 64, 128], "kernel_size": [3, 3, 3, 1], "strides": [1, 1, 1, 1]}
    model = {**SEGMENTATION, "model_name": "SEGMENTATIONDYNUNET"}
    model |= {f"segmentation_module_{key}": value for key, value in levels.items()}
    found = converted(tmp_path, model, IMAGES)
    assert found.recipe["network"]["options"] == {"channels": 8, "pooling_layers": 3}
    assert any("each level halves the resolution" in line for line in found.lines)


def test_joint_losses_have_their_totals(tmp_path: Path) -> None:
    model = {
        "model_name": "SEGNET",
        "input_channels": 64,
        "channels": 8,
        "num_pools": 2,
        "num_cascades": 2,
        "reconstruction_loss": {"l1": 1.0},
        "segmentation_loss": {"dice": 2.0},
        "total_reconstruction_loss_weight": 0.4,
        "total_segmentation_loss_weight": 0.6,
    }
    mask = {"type": "poisson2d", "accelerations": [6]}
    data = {"data_path": "a", "dataset_format": "skm-tea-echo2", "mask_args": mask, "normalization_type": "max"}
    found = converted(tmp_path, model, data)
    assert found.recipe["loss"] == {"l1": 0.4, "dice": 0.6}
    assert found.recipe["reader"]["options"] == {"echo": 2, "acceleration": 6.0, "classes": "paper"}
    assert found.recipe["masks"] == {"source": "data", "kspace_crop": [80, 416]}
    assert "coils" not in found.recipe["network"]["options"]
    assert found.lines == []


def test_time_steps_are_rounded_as_atommic_does(tmp_path: Path) -> None:
    layers = {"recurrent_layer": "GRU", "conv_filters": [8, 8, 2], "recurrent_filters": [8, 8, 0], "time_steps": 5}
    fixed = {"recurrent_kernels": [1, 1, 0], "conv_bias": [True, True, False], "no_dc": True}
    model = {"model_name": "CIRIM", "num_cascades": 1, **layers, **fixed, "accumulate_predictions": True}
    recipe = converted(tmp_path, {**model, "reconstruction_loss": {"l1": 1.0}}, FASTMRI).recipe
    assert recipe["network"]["name"] == "rim"
    assert recipe["network"]["options"]["time_steps"] == 8
    assert recipe["network"]["options"]["recurrent_filters"] == [8, 8]
    assert recipe["loss"]["steps"] is True


@pytest.mark.parametrize(
    ("model", "data", "changes", "line"),
    [
        ({"no_dc": True}, {}, {}, "model.no_dc: True (option no_dc of network varnet is False here, not True)"),
        ({"a_new_setting": 3}, {}, {}, "model.a_new_setting: 3 (no counterpart)"),
        ({"ssdu": True}, {}, {}, "model.ssdu: True (see self_supervised in training/README.md)"),
        ({}, {"shuffle": False}, {}, "model.train_ds.shuffle: False (training slices always come in random order)"),
        ({}, {"sample_rate": 0.5}, {}, "model.train_ds.sample_rate: 0.5 (choose subjects by reader.split)"),
        ({"reconstruction_loss": {"l1": 1.0, "haarpsi": 1.0}}, {}, {}, "model.reconstruction_loss: {'haarpsi'"),
        ({}, {}, {"checkpoint": "a.atommic"}, "checkpoint: a.atommic (import it by python -m mrnets import-atommic"),
    ],
)
def test_what_has_no_counterpart_has_a_line(
    model: dict[str, Any], data: dict[str, Any], changes: dict[str, Any], line: str, tmp_path: Path
) -> None:
    found = converted(tmp_path, {**VARNET, **model}, {**FASTMRI, **data}, **changes)
    assert next(told for told in found.lines if not told.startswith("model.padding_size")).startswith(line)


def test_optimisers_and_schedules_that_torch_does_not_have_are_told(tmp_path: Path) -> None:
    optim = {"name": "novograd", "lr": 1e-3, "sched": {"name": "PolynomialHoldDecayAnnealing", "warmup_steps": 10}}
    model = {**VARNET, "validation_ds": {**FASTMRI, "normalization_type": "max"}, "optim": optim}
    found = converted(tmp_path, model, FASTMRI)
    assert found.recipe["optimiser"]["name"] == "adamw"
    assert found.recipe["optimiser"]["schedule"] == "linear"
    assert found.recipe["optimiser"]["warm_up"] == 10
    told = "\n".join(found.lines)
    assert "model.optim.name: novograd (no counterpart)" in told
    assert "model.optim.sched.name: PolynomialHoldDecayAnnealing (no counterpart)" in told
    assert "model.validation_ds.normalization_type: max (validation reads its data as training does)" in told


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "is not YAML"),
        ("[1, 2]", "is not a training configuration of ATOMMIC: it has no part model"),
        ("model: {model_name: VN}", "is no training configuration: model has no part train_ds"),
        ("model: {model_name: DUNet, train_ds: {dataset_format: fastmri}}", "no network here for ATOMMIC's DUNet"),
        ("model: {model_name: VN, train_ds: {dataset_format: mine}}", "no recipe reads the data set 'mine'"),
        ("# " + "x" * 2**20, "more than 1048576 characters"),
        ("!!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_what_is_no_configuration_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=sentence):
        convert(path)


def test_files_that_cannot_be_had_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = configuration(tmp_path, VARNET, FASTMRI)
    assert main(["from-atommic", str(tmp_path / "none.yaml"), "-o", str(tmp_path / "b.yaml")]) == 1
    assert "cannot read" in capsys.readouterr().err
    assert main(["from-atommic", str(path), "-o", str(tmp_path / "no" / "b.yaml")]) == 1
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "data", "sentence"),
    [
        ({}, {"crop_size": 320}, r"model\.train_ds\.crop_size must be a list of numbers, not 320"),
        ({}, {"mask_args": {"accelerations": ["four"]}}, r"mask_args\.accelerations must be a number, not 'four'"),
        ({}, {"dataset_format": "skm-tea"}, "the data set 'skm-tea' names no echo"),
        ({"reconstruction_loss": {"l1": "some"}}, {}, r"model\.reconstruction_loss\.l1 must be a number, not 'some'"),
        ({"consecutive_slices": "all"}, {}, r"model\.consecutive_slices must be a number, not 'all'"),
    ],
)
def test_settings_of_another_type_are_refused(
    model: dict[str, Any], data: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=sentence):
        converted(tmp_path, {**VARNET, **model}, {**FASTMRI, **data})
