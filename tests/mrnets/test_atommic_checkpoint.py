"""Import of ATOMMIC's archives: settings and weights to a file of ours that gives ATOMMIC's image, or one sentence."""

from __future__ import annotations

import collections
import dataclasses
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mrnets import store
from mrnets.__main__ import main
from mrnets.atommic.checkpoint import import_atommic
from mrnets.atommic.forms import components
from mrnets.contract import Scan
from mrnets.errors import InputError
from mrnets.physics.fourier import fftc, ifftc
from mrnets.preparation import Preparation
from tests.mrnets.vectors import Vector, cc359, relative_error, vector
from tests.texts import REPEATED

yaml = pytest.importorskip("yaml")

_RIM = {
    "conv_filters": [16, 16, 2],
    "conv_kernels": [5, 3, 3],
    "conv_dilations": [1, 2, 1],
    "conv_bias": [True, True, False],
    "recurrent_filters": [16, 16, 0],
    "recurrent_kernels": [1, 1, 0],
    "recurrent_bias": [True, True, False],
    "time_steps": 5,
    "no_dc": True,
    "keep_prediction": True,
}
_COILS = {
    "segmentation_module_output_channels": 4,
    "input_channels": 8,
    "channels": 8,
    "num_pools": 2,
    "drop_prob": 0.0,
    "padding_size": 11,
}
_SEGMENTATION = {
    "segmentation_module_input_channels": 4,
    "segmentation_module_output_channels": 4,
    "segmentation_module_channels": 4,
    "segmentation_module_pooling_layers": 5,
    "segmentation_module_dropout": 0.0,
    "segmentation_module_normalize": False,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "ccnn": {"target": "CascadeNet", "num_cascades": 3, "hidden_channels": 16, "n_convs": 5, "batchnorm": False},
    "cirim": {"target": "CIRIM", "recurrent_layer": "IndRNN", "num_cascades": 2, **_RIM},
    "rim": {"target": "CIRIM", "recurrent_layer": "GRU", "num_cascades": 1, **_RIM},
    "modl": {
        "target": "MoDL",
        "unrolled_iterations": 2,
        "residual_blocks": 3,
        "channels": 16,
        "regularization_factor": 0.1,
        "conjugate_gradient_dc": False,
    },
    "rvn": {
        "target": "RecurrentVarNet",
        "num_steps": 8,
        "recurrent_hidden_channels": 16,
        "recurrent_num_layers": 4,
        "learned_initializer": True,
        "initializer_channels": [8, 8, 16, 16],
        "initializer_dilations": [1, 1, 2, 4],
    },
    "unet": {"target": "UNet", "channels": 8, "pooling_layers": 4, "padding_size": 11, "dropout": 0.0},
    "varnet": {"target": "VarNet", "num_cascades": 2, "channels": 6, "pooling_layers": 4, "padding_size": 11},
    "idslr": {"target": "IDSLR", "num_iters": 2, **_COILS},
    "idslrunet": {"target": "IDSLRUNet", "num_iters": 2, **_COILS},
    "segnet": {"target": "SegNet", "num_cascades": 2, **_COILS},
    "mtlrs": {
        "target": "MTLRS",
        "joint_reconstruction_segmentation_module_cascades": 2,
        "reconstruction_module_recurrent_layer": "IndRNN",
        **{f"reconstruction_module_{key}": value for key, value in _RIM.items()},
        **_SEGMENTATION,
        "segmentation_module_pooling_layers": 2,
    },
    "segunet": {"target": "SegmentationUNet", **_SEGMENTATION},
    "attentionunet": {"target": "SegmentationAttentionUNet", **_SEGMENTATION},
    "unet3d": {"target": "Segmentation3DUNet", **_SEGMENTATION},
}


def settings(name: str, **changes: Any) -> dict[str, Any]:
    target = f"atommic.collections.nn.{SETTINGS[name]['target']}"
    common = {
        "atommic_version": "1.0.1",
        "coil_combination_method": "SENSE",
        "normalization_type": "max",
        "fft_centered": True,
        "fft_normalization": "ortho",
    }
    return {**common, **SETTINGS[name], "target": target, **changes}


def archive(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def saved(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def members(name: str, **changes: Any) -> dict[str, bytes]:
    return {
        "./model_config.yaml": yaml.safe_dump(settings(name, **changes)).encode(),
        "./model_weights.ckpt": saved(collections.OrderedDict(vector(name).weights)),
    }


def scan(reference: Vector, *, segmentation: bool) -> Scan:
    if segmentation:
        return Scan(image=reference.tensors["image"])
    kspace, sens = (torch.view_as_complex(reference.tensors[key]) for key in ("kspace", "sens"))
    return Scan(kspace=kspace, mask=reference.tensors["mask"], sens=sens)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_becomes_a_file_that_gives_its_image(tmp_path: Path, mode: str) -> None:
    reference = vector("varnet")
    path = archive(tmp_path / "varnet.atommic", members("varnet", train_ds={"apply_prewhitening": True}), mode)
    out = tmp_path / "varnet.safetensors"
    assert main(["import-atommic", str(path), "-o", str(out)]) == 0
    trained = store.load(out)
    with torch.inference_mode():
        image = trained.network(scan(reference, segmentation=False)).image
    assert relative_error(image, torch.view_as_complex(reference.tensors["image"])) < 1e-5
    preparation = Preparation.from_json(trained.preparation)
    assert (preparation.whiten, preparation.sens, preparation.coils) == ("periphery", "espirit", None)
    assert "1.0.1" in trained.metadata["provenance"]["imported"]


@pytest.mark.parametrize("name", SETTINGS)
def test_every_network_that_is_the_same_is_imported(name: str, tmp_path: Path) -> None:
    reference = vector(name)
    imported = import_atommic(archive(tmp_path / "a.atommic", members(name)), tmp_path / "a.safetensors")
    task = store.describe(name).task
    scaled = {"min_max": True} if task in ("joint", "segmentation") else {}
    assert imported.name == reference.name
    assert {**imported.options, **store.bind(reference.name, **reference.options), **scaled} == imported.options
    preparation = Preparation.from_json(imported.preparation)
    assert preparation.coils == imported.options.get("coils")
    assert (preparation.sens == "none") == (task == "segmentation")
    assert preparation.slices == store.describe(name).slices
    # The weights are in their places: the loaded network runs and gives what one with mapped weights gives elsewhere.
    with torch.inference_mode():
        estimate = store.load(tmp_path / "a.safetensors").network(scan(reference, segmentation=task == "segmentation"))
    if task == "reconstruction":
        assert relative_error(estimate.image, torch.view_as_complex(reference.tensors["image"])) < 1e-5
    if scaled:
        torch.testing.assert_close(torch.sigmoid(estimate.logits), reference.tensors["normalised"], rtol=0, atol=2e-4)


def root_of_squares(name: str, start: str = "RSS", **changes: Any) -> dict[str, bytes]:
    """An archive of uncentred, unnormalised data with the zero frequency in the corner, combined by ATOMMIC's RSS."""
    plain = {"fft_centered": False, "fft_normalization": "backward"}
    data = {"train_ds": {"coil_combination_method": start, "mask_args": {"shift_mask": True}}}
    return members(name, coil_combination_method="RSS", **plain, **data, **changes)


@pytest.mark.parametrize("name", ["ccnn", "cirim", "modl", "rim", "rvn", "unet", "varnet"])
def test_networks_trained_with_rss_and_an_uncentred_transform_give_their_image(name: str, tmp_path: Path) -> None:
    reference, run = vector(name), cc359()
    # The same coil images, under the one Fourier convention.
    kspace = fftc(torch.fft.ifft2(run["kspace"]))
    path = tmp_path / "a.safetensors"
    import_atommic(archive(tmp_path / "a.atommic", root_of_squares(name, start="SENSE")), path)
    with torch.inference_mode():
        image = store.load(path).network(dataclasses.replace(scan(reference, segmentation=False), kspace=kspace)).image
    ends_with_squares = name in ("ccnn", "rvn", "varnet")
    theirs = run[name][:, None] if run[name].ndim == 3 else run[name]
    # Real and imaginary parts each by themselves leave the magnitude, and no phase.
    error = relative_error(image.abs(), theirs.abs()) if ends_with_squares else relative_error(image, theirs)
    assert error < 1e-5
    if ends_with_squares:
        assert theirs.real.min() > 0
        assert image.real.min() < 0


@pytest.mark.parametrize("name", ["cirim", "modl", "rim", "rvn", "unet"])
def test_networks_that_start_from_rss_start_from_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    imported = import_atommic(archive(tmp_path / "a.atommic", root_of_squares(name)), path)
    assert imported.options["start"] == "rss_components"
    assert Preparation.from_json(imported.preparation).combination == "rss"
    example = scan(vector(name), segmentation=False)
    with torch.inference_mode():
        images = np.fft.fftshift(
            np.fft.ifft2(np.fft.ifftshift(example.kspace.numpy(), (-2, -1)), norm="ortho"), (-2, -1)
        )
        parts = (np.sqrt((part**2).sum(axis=2)) for part in (images.real, images.imag))
        start = torch.complex(*map(torch.from_numpy, parts)).to(torch.complex64)  # NumPy 1.26 transforms in double
        torch.testing.assert_close(components(ifftc(example.kspace * example.mask)), start)
        image = imported.network(example).image
        other = store.create(imported.name, **{**imported.options, "start": "sense"})
        other.load_state_dict(imported.network.state_dict())
        if name in ("modl", "unet"):  # nothing else enters
            denoise = other.unet if name == "unet" else lambda x: other.denoiser(other.denoiser(x))
            torch.testing.assert_close(image.real, denoise(start).abs())
        assert relative_error(image, other(example).image) > 1e-3
    assert bool((image.imag == 0).all()) == (name != "rvn")


def test_what_the_settings_say_of_the_data_is_in_the_preparation(tmp_path: Path) -> None:
    data = {
        "apply_prewhitening": True,
        "apply_gcc": True,
        "gcc_virtual_coils": 3,
        "gcc_calib_lines": 20,
        "gcc_align_data": False,
        "crop_size": [32, 40],
        "kspace_crop": True,
        "normalization_type": "minmax",
        "kspace_normalization": True,
    }
    content = members("varnet", normalization_type=None, train_ds=data)
    imported = import_atommic(archive(tmp_path / "a.atommic", content), tmp_path / "a.safetensors")
    assert Preparation.from_json(imported.preparation) == Preparation(
        whiten="periphery",
        coils=3,
        compression_lines=20,
        compression_align=False,
        kspace_crop=(32, 40),
        normalisation="minmax",
        normalise="kspace",
    )


def test_a_state_dict_is_imported_with_its_settings(tmp_path: Path) -> None:
    (tmp_path / "unet.ckpt").write_bytes(saved({"state_dict": vector("unet").weights, "epoch": 3}))
    (tmp_path / "unet.yaml").write_text(
        yaml.safe_dump({"model": settings("unet"), "target": settings("unet")["target"]}), encoding="utf-8"
    )
    imported = import_atommic(tmp_path / "unet.ckpt", tmp_path / "unet.safetensors", tmp_path / "unet.yaml")
    assert imported.options["padding"] == 11


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"no_dc": True}, "no_dc is True, and ours is that with False"),
        ({"coil_combination_method": "RSS_COMPLEX"}, "combined by RSS_COMPLEX, which is no root of a sum of squares"),
        ({"normalization_type": "zscore"}, "unknown value of normalisation in a preparation: 'zscore'"),
        (
            {"estimate_coil_sensitivity_maps_with_nn": True},
            r"sens_net\.unet\.unet.* should be \(.*\) by the settings, and is absent",
        ),
        ({"channels": 7}, r"should be \(56, 112, 3, 3\) by the settings, and is \(48, 96, 3, 3\)"),
        ({"num_cascades": 3}, "should be .* by the settings, and is "),
        ({"channels": "many"}, "option channels of network atommic.varnet must be an integer, not 'many'"),
        ({"target": "atommic.Transformer"}, "ATOMMIC's Transformer is not imported; those that are"),
        ({"target": None}, "do not name a network"),
    ],
)
def test_settings_that_would_be_computed_differently_are_refused(
    changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    path = archive(tmp_path / "a.atommic", members("varnet", **changes))
    with pytest.raises(InputError, match=sentence):
        import_atommic(path, tmp_path / "a.safetensors")


def test_the_first_state_of_rvn_is_refused_of_another_transform(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.atommic", members("rvn", fft_normalization="forward"))
    with pytest.raises(InputError, match="its k-space must be centred and orthonormal, or neither"):
        import_atommic(path, tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["idslr", "idslrunet", "segnet", "mtlrs"])
def test_joint_networks_trained_with_rss_are_refused(name: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.atommic", root_of_squares(name))
    with pytest.raises(InputError, match=f"our {name} combines them by SENSE"):
        import_atommic(path, tmp_path / "a.safetensors")


def test_a_missing_setting_is_refused(tmp_path: Path) -> None:
    lacking = {key: value for key, value in settings("varnet").items() if key != "channels"}
    content = {**members("varnet"), "./model_config.yaml": yaml.safe_dump(lacking).encode()}
    with pytest.raises(InputError, match="the settings lack channels"):
        import_atommic(archive(tmp_path / "a.atommic", content), tmp_path / "a.safetensors")


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("pickle-was-run"),))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("./model_weights.ckpt", pickle.dumps(_Evil()), "cannot be read as tensors alone"),
        ("./model_weights.ckpt", saved([1, 2]), "are not a state dict"),
        ("./model_weights.ckpt", b"", "cannot be read as tensors alone"),
        ("./model_config.yaml", b"a: [", "is not YAML"),
        ("./model_config.yaml", b"\xff\xfe\xff", "is not YAML"),
        ("./model_config.yaml", b"!!python/object/apply:os.getcwd []", "is not YAML"),
        ("./model_config.yaml", b"[" * 1000, "is not YAML"),
        ("./model_config.yaml", b"!!bool x", "is not YAML"),
        ("./model_config.yaml", b"!!timestamp x", "is not YAML"),
        ("./model_config.yaml", REPEATED.encode(), "repeats its parts"),
        ("./model_config.yaml", b"a: 1\n" + b"#" * 2**20, "more than any network needs"),
    ],
)
def test_hostile_members_are_refused(
    name: str, content: bytes, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = archive(tmp_path / "a.atommic", {**members("unet"), name: content})
    with pytest.raises(InputError, match=sentence):
        import_atommic(path, tmp_path / "a.safetensors")
    assert not (tmp_path / "pickle-was-run").exists()


@pytest.mark.parametrize(
    ("weight", "sentence"),
    [
        (torch.ones(1, dtype=torch.complex64), r"not real numbers alone: cascades\.1\.dc_weight is something else"),
        (torch.ones(1).to_sparse(), r"not real numbers alone: cascades\.1\.dc_weight is something else"),
        (torch.ones(1, device="meta"), r"not real numbers alone: cascades\.1\.dc_weight is something else"),
        (torch.ones(2, 2), r"dc_weight of our varnet should be \(2,\) by the settings, and is \(5,\)"),
    ],
    ids=["complex", "sparse", "meta", "shape"],
)
def test_weights_that_are_no_arrays_of_their_shape_are_refused(
    weight: torch.Tensor, sentence: str, tmp_path: Path
) -> None:
    weights = saved({**vector("varnet").weights, "cascades.1.dc_weight": weight})
    path = archive(tmp_path / "a.atommic", {**members("varnet"), "./model_weights.ckpt": weights})
    with pytest.raises(InputError, match=sentence):
        import_atommic(path, tmp_path / "a.safetensors")


def test_what_is_no_archive_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.ckpt").write_bytes(saved({}))
    assert main(["import-atommic", str(tmp_path / "a.ckpt"), "-o", str(tmp_path / "a.safetensors")]) == 1
    assert "is not an archive of ATOMMIC, and no settings were given" in capsys.readouterr().err
    assert main(["import-atommic", "/dev/zero", "-o", "x.safetensors"]) == 1
    assert "cannot read /dev/zero: it is not a regular file" in capsys.readouterr().err
    with pytest.raises(InputError, match="cannot read n"):
        import_atommic("n" * 300, tmp_path / "a.safetensors")
    assert main(["import-atommic", str(tmp_path / "none"), "-o", str(tmp_path / "a.safetensors")]) == 1
    assert "cannot read" in capsys.readouterr().err
    empty = archive(tmp_path / "empty.atommic", {})
    with pytest.raises(InputError, match="it has no model_config"):
        import_atommic(empty, tmp_path / "a.safetensors")
