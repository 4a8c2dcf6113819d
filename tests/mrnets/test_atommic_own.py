"""ATOMMIC's own forms of networks, and what stands around them, against ATOMMIC 1.0.1 with the same weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from mrnets import store
from mrnets.atommic import own
from mrnets.atommic.checkpoint import Imported, convert
from mrnets.atommic.notes import notes
from mrnets.atommic.relaxometry import UNITS, Problem
from mrnets.atommic.settings import translated
from mrnets.blocks.encoding import encoded
from mrnets.contract import Scan
from mrnets.errors import InputError
from mrnets.physics.fourier import fftc, ifftc
from mrnets.preparation import Preparation
from tests.mrnets.vectors import FOLDER, drawn, relative_error, vector

ON_KSPACE = ["crnn", "jointicnet", "kikinet", "lpdnet", "rim", "varnet", "vsnet", "xpdnet"]
"""Published configurations at small widths. All but jointicnet have ATOMMIC's sensitivity network."""
ON_IMAGES = ["dynunet", "segunet", "vnet"]
RUNS: dict[str, dict[str, Any]] = {
    "ortho": {"fft_centered": True, "fft_normalization": "ortho", "coil_combination_method": "SENSE"},
    "plain": {"fft_centered": False, "fft_normalization": "backward", "coil_combination_method": "RSS"},
}
ECHO_TIMES = torch.tensor([3.0e-3, 11.5e-3, 20.0e-3, 28.5e-3])


def theirs(name: str) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """Settings, state dict and outputs of a network of ATOMMIC's."""
    with safe_open(FOLDER / f"theirs_{name}.safetensors", framework="pt") as file:
        metadata = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
        outputs = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    weights = drawn(metadata["seeded"])
    for key in weights:
        if key.endswith(("running_var", "dc_weight", "param")) or key.startswith(("reg_", "lr_")):
            weights[key] = weights[key].abs() + 0.25
        if key.startswith("quantitative") and "final_layer" in key:  # small steps, so that R2* does not vanish
            weights[key] = weights[key] / 10
    weights |= {alias: weights[key] for alias, key in metadata["same"].items()}
    weights |= {key: torch.tensor(0) for key in metadata["tracked"]}
    return metadata["settings"], weights, outputs


def imported(name: str, **changes: Any) -> tuple[Imported, dict[str, Tensor]]:
    settings, weights, outputs = theirs(name)
    data = {**settings["train_ds"], **changes.pop("train_ds", {})}
    return convert({**settings, **changes, "train_ds": data}, weights), outputs


def scan(*, sens: bool = True) -> Scan:
    reference = vector("varnet").tensors
    kspace, maps = (torch.view_as_complex(reference[key]) for key in ("kspace", "sens"))
    return Scan(kspace=kspace, mask=reference["mask"], sens=maps if sens else None)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", ON_KSPACE)
def test_images_are_atommic_s(name: str, run: str) -> None:
    network, outputs = imported(name, **RUNS[run], train_ds={"mask_args": {"type": "gaussian2d"}})
    options = network.options
    with torch.inference_mode():
        image = network.network.eval()(scan(sens=Preparation.from_json(network.preparation).sens != "none")).image
    reference = torch.view_as_complex(outputs[run])[:, None]
    ends, starts = options.get("combination") == "rss", options.get("start") == "rss_components"
    assert (ends or starts) == (run == "plain" and name not in ("kikinet", "xpdnet"))
    assert options["checkered"] == (run == "plain")
    if options["checkered"] and not starts:
        y, x = torch.meshgrid(torch.arange(64), torch.arange(48), indexing="ij")
        image = image * (1 - 2 * ((y + x) % 2))
    # Only the magnitude of real and imaginary parts by themselves has a meaning.
    error = relative_error(image.abs(), reference.abs()) if ends or starts else relative_error(image, reference)
    assert error < 1e-5
    assert bool((image.imag == 0).all()) == starts


@pytest.mark.parametrize("name", ["rim", "kikinet"])
def test_planes_of_one_dimensional_masks_are_transposed(name: str) -> None:
    network, outputs = imported(name, **RUNS["ortho"], train_ds={"mask_args": {"type": "equispaced1d"}})
    assert network.options["transposed"]
    planes = {key: None if array is None else array.mT for key, array in vars(scan(sens=False)).items()}
    with torch.inference_mode():
        image = network.network.eval()(Scan(**planes)).image
    assert relative_error(image.mT, torch.view_as_complex(outputs["ortho"])[:, None]) < 1e-5


def test_images_of_a_chessboard_come_without_its_signs() -> None:
    network, _ = imported("kikinet", **RUNS["plain"])
    assert network.options["checkered"]
    corner, _ = imported("kikinet", **RUNS["plain"], train_ds={"mask_args": {"type": "none", "shift_mask": True}})
    assert not corner.options["checkered"]
    # A scan of 63 x 47 samples: the phase between pixels is not quite half a turn.
    example = scan(sens=False)
    example = Scan(kspace=example.kspace[..., 1:, 1:], mask=example.mask[..., 1:, 1:])
    ramps = [torch.polar(torch.ones(n), 2 * torch.pi * (n // 2) * torch.arange(n) / n) for n in (63, 47)]
    checkers = ramps[0][:, None] * ramps[1]
    turned = Scan(
        kspace=fftc(ifftc(example.kspace * example.mask) * checkers),
        mask=torch.fft.fftshift(example.mask, dim=(-2, -1)),
    )
    with torch.inference_mode():
        image, other = network.network.eval()(example).image, corner.network.eval()(turned).image
    torch.testing.assert_close(image * checkers, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


def test_phase_maps_come_without_the_signs_of_a_chessboard() -> None:
    network = store.create("atommic.qvarnet", **store.describe("atommic.qvarnet").small, checkered=True).eval()
    plain = store.create("atommic.qvarnet", **store.describe("atommic.qvarnet").small).eval()
    for one in (network, plain):
        one.refined = lambda problem: problem.start  # type: ignore[assignment]
    example = scan()
    decay = torch.exp(-ECHO_TIMES * (40 + 60j)).to(torch.complex64)[:, None, None]
    image = torch.polar(100 * torch.ones(64, 48), torch.linspace(-2, 2, 48).expand(64, 48)) * decay
    kspace = fftc(image[None, :, None] * example.sens) * example.mask
    example = dataclasses.replace(example, kspace=kspace, image=image[None], echo_times=ECHO_TIMES)
    with torch.inference_mode():
        for (name, one), other in zip(network(example).maps.items(), plain(example).maps.values(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.parametrize("name", ["idslr", "unet", "varnet"])
def test_images_are_in_the_scale_of_the_data(name: str) -> None:
    options = {**store.describe(f"atommic.{name}").small, **({"coils": 4} if name == "idslr" else {})}
    torch.manual_seed(0)
    plain = store.create(f"atommic.{name}", **options).eval()
    network = store.create(f"atommic.{name}", **options, scaled=True).eval()
    network.load_state_dict(plain.state_dict())
    example = scan()
    with torch.inference_mode():
        image, other = network(example).image, plain(example).image
    sampled = [example.mask * fftc(x[:, :, None] * example.sens) for x in (image, other)]
    columns = torch.view_as_real(sampled[1]).reshape(-1, 1)
    factor = torch.linalg.lstsq(columns, torch.view_as_real(example.kspace * example.mask).reshape(-1, 1)).solution
    assert 0.2 < float(factor) < 1e6
    torch.testing.assert_close(image, other * float(factor), rtol=1e-4, atol=1e-4 * float(image.abs().max()))


def test_an_image_against_the_data_keeps_its_scale() -> None:
    torch.manual_seed(0)
    options = store.describe("atommic.crnn").small
    plain, network = store.create("atommic.crnn", **options), store.create("atommic.crnn", **options, scaled=True)
    network.load_state_dict(plain.state_dict())
    with torch.inference_mode():
        image, other = network.eval()(scan()).image, plain.eval()(scan()).image
    assert float((fftc(other[:, :, None] * scan().sens) * scan().mask * scan().kspace.conj()).real.sum()) < 0
    assert torch.equal(image, other)


def test_the_scale_of_the_data_is_for_losses_that_know_none() -> None:
    settings = _with_maps_of("rss")
    for value, expected in ((False, True), (True, False)):
        options = translated({**settings, "unnormalize_loss_inputs": value}).options
        assert options.get("scaled", False) == expected


def test_crops_go_with_the_axes() -> None:
    crop = {"crop_size": [320, 300], "kspace_crop": False}
    for kind, plane in (("equispaced1d", (300, 320)), ("gaussian2d", (320, 300))):
        network, _ = imported("rim", train_ds={"mask_args": {"type": kind}, **crop})
        assert Preparation.from_json(network.preparation).image_crop == plane


@pytest.mark.parametrize("name", ["qcirim", "qvarnet"])
def test_maps_are_atommic_s(name: str) -> None:
    network, outputs = imported(name)
    units = torch.tensor(UNITS)[:, None, None]
    factors = torch.tensor([150.0, 150.0, 1000.0, 150.0])[:, None, None]
    decay = torch.exp(-ECHO_TIMES * (40 + 60j)).to(torch.complex64)[:, None, None, None]
    example = scan()
    example = dataclasses.replace(example, kspace=10 * example.kspace * decay)
    start = outputs["start"] / factors
    problem = Problem(encoded(example, network.network), ECHO_TIMES[:, None, None], start)
    with torch.inference_mode():
        maps = network.network.eval().refined(problem)  # type: ignore[operator]
        for ours, reference in zip((maps * factors).unbind(1), outputs["maps"].unbind(1), strict=True):
            assert relative_error(ours, reference) < 1e-5
        estimate = problem.estimate(maps)
    torch.testing.assert_close(torch.stack(list(estimate.maps.values()), dim=1), maps * units)
    assert bool((estimate.maps["B0"] <= 0).all())


def test_maps_start_from_the_fit_to_given_images() -> None:
    example = scan()
    decay = torch.exp(-ECHO_TIMES * (40 + 2j * torch.pi * 10)).to(torch.complex64)[:, None, None]
    image = (100 * torch.ones(1, 1, 64, 48)) * decay
    example = dataclasses.replace(
        example,
        kspace=fftc(image[:, :, None] * example.sens) * example.mask,
        image=image,
        echo_times=ECHO_TIMES,
    )
    network = store.create("atommic.qvarnet", **store.describe("atommic.qvarnet").small).eval()
    seen: list[Problem] = []
    network.refined = lambda problem: seen.append(problem) or problem.start  # type: ignore[assignment]
    with torch.inference_mode():
        maps = network(example).maps
    for name, value in {"R2*": 40.0, "S0": 100.0, "B0": -10.0, "phase": 0.0}.items():
        torch.testing.assert_close(maps[name], torch.full((1, 64, 48), value), rtol=1e-3, atol=1e-3)
    # B0 is an angular frequency of the other sign there, and all maps have divisors.
    expected = torch.tensor([40 / 150, 100 / 150, 2 * torch.pi * 10 / 1000, 0.0])
    torch.testing.assert_close(seen[0].start[0, :, 0, 0], expected, rtol=1e-3, atol=1e-4)
    few = dataclasses.replace(example, kspace=example.kspace[:, :3], image=image[:, :3], echo_times=ECHO_TIMES[:3])
    with pytest.raises(InputError, match=r"atommic\.qvarnet takes 4 echoes, and the scan has 3"):
        network(few)


@pytest.mark.parametrize("name", ON_IMAGES)
def test_probabilities_are_atommic_s(name: str) -> None:
    network, outputs = imported(name)
    image = vector("attentionunet").tensors["image"][:, : network.options["contrasts"]]
    with torch.inference_mode():
        logits = network.network.eval()(Scan(image=image)).logits
    torch.testing.assert_close(torch.sigmoid(logits), outputs["probability"], rtol=1e-5, atol=2e-5)
    assert torch.equal(logits > 0, outputs["probability"] > 0.5)
    assert Preparation.from_json(network.preparation).classes == "overlapping"
    assert Preparation.from_json(network.preparation).contrasts == network.options["contrasts"]


def test_every_sample_is_scaled_by_itself() -> None:
    network = store.create("atommic.segunet", **store.describe("segunet").small, min_max=True).eval()
    image = torch.rand(2, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        both = network(Scan(image=image)).logits
        for n in range(2):
            alone = network(Scan(image=image[n : n + 1])).logits
            torch.testing.assert_close(alone, both[n : n + 1], rtol=0, atol=1e-5 * float(both.abs().max()))
        flat = network(Scan(image=torch.zeros(1, 4, 32, 32))).logits
    assert bool(both.isfinite().all())
    assert bool(flat.isfinite().all())


def test_vnet_of_three_contrasts_has_an_empty_fourth() -> None:
    network, _ = imported("vnet")
    assert network.options["contrasts"] == 3
    assert network.network.net.top.conv.weight.shape[1] == 4  # type: ignore[union-attr]


def test_coils_that_the_data_lack_are_empty() -> None:
    network, outputs = imported("idslr", train_ds={"apply_gcc": True, "gcc_virtual_coils": 4})
    assert (network.options["coils"], network.options["given_coils"]) == (6, 4)
    assert Preparation.from_json(network.preparation).coils == 4
    with torch.inference_mode():
        estimate = network.network.eval()(scan())
    assert relative_error(estimate.image[:, 0], torch.view_as_complex(outputs["image"])) < 1e-5
    torch.testing.assert_close(torch.sigmoid(estimate.logits), outputs["probability"], rtol=1e-5, atol=2e-5)
    three = dataclasses.replace(scan(), kspace=scan().kspace[:, :, :3], sens=scan().sens[:, :, :3])
    with pytest.raises(InputError, match=r"takes 4 coils, and the scan has 3"):
        network.network(three)


def test_skm_tea_has_eight_coils() -> None:
    settings, _, _ = theirs("idslr")
    wide = {**settings, "input_channels": 64, "channels": 1}
    assert translated(wide).preparation["coils"] == 8
    assert translated(wide).options["given_coils"] == 8
    other = {**wide, "train_ds": {**wide["train_ds"], "dataset_format": "private"}}
    assert translated(other).preparation["coils"] == 32
    assert translated(other).options["given_coils"] is None


@pytest.mark.parametrize("name", [*ON_KSPACE, *ON_IMAGES, "idslr", "qcirim", "qvarnet"])
def test_networks_go_through_a_file_and_say_what_they_are(name: str, tmp_path: Path) -> None:
    network, _ = imported(name)
    path = tmp_path / "imported.safetensors"
    store.save(path, network.network, name=network.name, options=network.options, preparation=network.preparation)
    trained = store.load(path)
    for key, tensor in network.network.state_dict().items():
        assert torch.equal(trained.network.state_dict()[key], tensor)
    sentences = " ".join(notes(trained.name, trained.options))
    assert ("as ATOMMIC, not as the paper" in sentences) == (own(name) is not None)
    assert ("its sensitivity network was trained on fully sampled k-space" in sentences) == bool(
        network.options.get("sens_net")
    )
    assert ("no slice is without any" in sentences) == bool(network.options.get("min_max"))


@pytest.mark.parametrize("name", [name for name in store.names() if own(name) is not None])
def test_own_networks_are_described_and_run(name: str) -> None:
    traits = store.describe(f"atommic.{name}")
    published = store.describe(name)
    assert traits.differs
    assert not published.differs
    assert (traits.task, traits.takes) == (published.task, published.takes)
    assert traits.title.endswith(", as ATOMMIC computes it")
    network = store.create(f"atommic.{name}", **traits.small).eval()
    assert network.name == f"atommic.{name}"
    known = store.bind(f"atommic.{name}")
    assert set(traits.aliases.values()) <= set(known)


def test_a_plane_without_the_rows_that_the_maps_need_is_refused() -> None:
    network, _ = imported("varnet", **RUNS["ortho"])
    example = scan(sens=False)
    low = dataclasses.replace(example, kspace=example.kspace[..., :16, :], mask=example.mask[..., :16, :])
    with pytest.raises(InputError, match="rows from half the number of columns on, and a matrix of 16 x 48 has none"):
        network.network(low)


def test_maps_come_from_all_of_k_space_without_a_centre() -> None:
    everywhere, _ = imported("varnet", **RUNS["ortho"], coil_sensitivity_maps_nn_mask_center=False)
    columns, _ = imported("varnet", **RUNS["ortho"], coil_sensitivity_maps_nn_mask_type="1D")
    rows, _ = imported("varnet", **RUNS["ortho"])
    assert [n.options["sens_region"] for n in (everywhere, columns, rows)] == ["all", "columns", "rows"]
    example = scan(sens=False)
    middle = example.kspace * torch.zeros(64, 48).index_fill(1, torch.tensor([24]), 1.0)
    only = example.mask & torch.zeros(64, 48, dtype=torch.bool).index_fill(1, torch.tensor([24]), True)
    with torch.inference_mode():
        images = [n.network.eval()(example).image for n in (everywhere, columns, rows)]
        assert not torch.allclose(images[0], images[1])
        assert not torch.allclose(images[1], images[2])
        # A mask of one column leaves nothing else to see; the middle of its first row is that column, if any.
        alone = [n.network.eval()(Scan(kspace=middle, mask=only)).image for n in (everywhere, columns)]
    torch.testing.assert_close(*alone)


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("varnet", {"coil_sensitivity_maps_nn_mask_type": "3D"}, "mask_type is '3D', and must be one of 1D, 2D"),
        ("varnet", {"coil_sensitivity_maps_nn_mask_type": ["2D"]}, r"mask_type is \['2D'\], and must be one of 1D, 2D"),
        ("varnet", {"coil_sensitivity_maps_nn_normalize": False}, "our maps are divided by their size"),
        ("vsnet", {"fft_centered": True, "fft_normalization": "backward"}, "centred and orthonormal, or neither"),
        ("vsnet", {"fft_centered": [True]}, "centred and orthonormal, or neither"),
        ("vsnet", {"imspace_model_architecture": "UNET"}, "imspace_model_architecture of network atommic.vsnet is"),
        ("kikinet", {"kspace_unet_num_filters": 8}, "channels of network atommic.kikinet is given twice"),
        ("xpdnet", {"mwcnn_num_scales": 2}, "mwcnn_num_scales of network atommic.xpdnet is 0 here, not 2"),
        ("qcirim", {"coil_combination_method": "RSS"}, "our qcirim combines them by SENSE"),
        ("dynunet", {"segmentation_module_strides": [1, 2, 2, 2]}, "segmentation_module_strides are not all 1"),
        ("dynunet", {"segmentation_module_strides": 1}, "segmentation_module_strides are not all 1"),
        ("idslr", {"input_channels": "many"}, "option coils of network atommic.idslr must be an integer, not 'many'"),
        ("segunet", {"normalize_segmentation_output": False}, "are no probabilities"),
        ("segunet", {"segmentation_classes_thresholds": [0.5, 0.3]}, r"\[0.5, 0.3\], and ours are 0.5"),
        ("rim", {"estimate_coil_sensitivity_maps_with_nn": False}, "trained without coil sensitivities"),
    ],
)
def test_what_would_be_computed_differently_is_refused(name: str, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        imported(name, **changes)


def test_maps_of_the_data_become_those_of_the_preparation() -> None:
    for kind in ("rss", "ESPIRiT"):
        preparation = translated(_with_maps_of(kind)).preparation
        assert (preparation["sens"], preparation["normalise"]) == (kind.lower(), "coils")
    with pytest.raises(InputError, match="of the type unit, which are no estimates"):
        translated(_with_maps_of("unit"))


def _with_maps_of(kind: str) -> dict[str, Any]:
    settings, _, _ = theirs("rim")
    data = {**settings["train_ds"], "estimate_coil_sensitivity_maps": True, "coil_sensitivity_maps_type": kind}
    return {**settings, "estimate_coil_sensitivity_maps_with_nn": False, "train_ds": data}
