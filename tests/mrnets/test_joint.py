"""Joint reconstruction and segmentation: against ATOMMIC's with its weights, and the physics that they state."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from mrnets import store
from mrnets.atommic.keys import state_dict
from mrnets.blocks.coilwise import CoilConsistency
from mrnets.contract import Raw, Scan
from mrnets.errors import InputError
from mrnets.physics.coils import reduce
from mrnets.physics.fourier import fftc, ifftc
from mrnets.preparation import Preparation
from mrnets.prepare import prepare
from tests.mrnets.examples import create, scan, scan_for
from tests.mrnets.vectors import min_max, relative_error, vector

COILWISE = ["idslr", "idslrunet", "segnet"]


@pytest.mark.parametrize("name", [*COILWISE, "mtlrs"])
def test_image_and_logits_are_those_of_atommic_also_through_a_file(name: str, tmp_path: Path) -> None:
    reference = vector(name)
    network = store.create(reference.name, **reference.options)
    network.load_state_dict(state_dict(name, reference.weights))
    path = tmp_path / "imported.safetensors"
    store.save(path, network, name=reference.name, options=reference.options, preparation={})
    kspace, sens, image = (torch.view_as_complex(reference.tensors[key]) for key in ("kspace", "sens", "image"))
    with torch.inference_mode():
        network = store.load(path).network.train()  # for its steps; nothing else differs in these
        estimate = network(Scan(kspace=kspace, mask=reference.tensors["mask"], sens=sens))
    assert relative_error(estimate.image, image) < 1e-4
    assert relative_error(min_max(estimate.logits), reference.tensors["normalised"]) < 1e-4
    steps = {f"{field}.{index}": step for index, step in enumerate(estimate.steps) for field in ("image", "logits")}
    for key in reference.tensors.keys() & steps.keys():
        field = getattr(steps[key], key.partition(".")[0])
        theirs = reference.tensors[key]
        assert relative_error(field, theirs if field.is_floating_point() else torch.view_as_complex(theirs)) < 1e-4
    assert len(estimate.steps) == {"segnet": 2, "mtlrs": 15}.get(name, 0)


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("idslr", {}, 2_617_669),
        ("idslrunet", {}, 3_797_317),
        ("segnet", {}, 13_089_061),
        ("mtlrs", {}, 166_185_490 - 5),  # without five weights that ATOMMIC's graph does not use
        ("mtlrs", {"channels": 64, "pooling_layers": 2}, 10_183_395 - 5),
    ],
)
def test_parameters_at_published_widths(name: str, options: dict[str, int], count: int) -> None:
    with torch.device("meta"):
        network = store.create(name, **options)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize("shape", [(16, 12), (17, 23)])
def test_consistency_averages_samples_and_leaves_the_rest(shape: tuple[int, int]) -> None:
    example = scan(shape, batch=2)
    y, mask = example.kspace[:, 0], example.mask[:, 0]
    x = ifftc(y) + torch.randn_like(y)
    consistency = CoilConsistency()
    with torch.no_grad():
        consistency.weight.fill_(0.7)
        k = fftc(consistency(x, ifftc(y), mask))
    torch.testing.assert_close(k, (y + 0.7 * fftc(x)) / (mask + 0.7), atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", COILWISE)
def test_with_weight_zero_a_fully_sampled_scan_comes_back_exactly(name: str) -> None:
    network = create(name).eval()
    network.consistency.weight.zero_()
    example = scan((17, 22), fraction=2.0)
    truth = reduce(ifftc(example.kspace), example.sens)
    torch.testing.assert_close(network(example).image, truth, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", [*COILWISE, "mtlrs"])
def test_samples_outside_the_mask_do_not_matter(name: str) -> None:
    network = create(name).eval()
    example = scan_for(name)
    filled = dataclasses.replace(example, kspace=example.kspace + 3 * ~example.mask)
    assert torch.equal(network(filled).logits, network(example).logits)
    assert torch.equal(network(filled).image, network(example).image)


@pytest.mark.parametrize("name", COILWISE)
def test_another_number_of_coils_is_refused_with_the_way_out(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} takes 3 coils, and the scan has 5: its Preparation must compress"):
        create(name)(scan(coils=5))


@pytest.mark.parametrize("name", [*COILWISE, "mtlrs"])
def test_several_echoes_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} takes one echo, and the scan has 2"):
        create(name)(scan(echoes=2))


@torch.no_grad()
@pytest.mark.parametrize("name", COILWISE)
def test_its_preparation_compresses_to_its_coils(name: str) -> None:
    example = scan((24, 20), coils=5, fraction=2.0)
    raw = Raw(kspace=example.kspace, mask=example.mask, calibration=example.calibration)
    prepared = prepare(raw, Preparation(coils=3, compression="gdcc", sens="rss"))
    estimate = create(name).eval()(prepared.scan)
    assert estimate.image.shape == (1, 1, 24, 20)
    assert estimate.logits.shape == (1, 4, 24, 20)


@torch.no_grad()
def test_idslr_may_give_magnitudes_as_atommic_s_does() -> None:
    example = scan_for("idslr")
    logits = create("idslr").eval()(example).logits
    assert (logits < 0).any()
    assert torch.equal(create("atommic.idslr", magnitude=True).eval()(example).logits, logits.abs())


@torch.no_grad()
def test_segnet_merges_the_logits_of_its_cascades() -> None:
    network = create("segnet").eval()
    estimate = network.train()(scan_for("segnet"))
    assert len(estimate.steps) == 2
    assert network.eval()(scan_for("segnet")).steps == ()
    network.merge.weight.zero_()
    network.merge.weight[:, 4:, 1, 1] = torch.eye(4)
    assert torch.equal(network(scan_for("segnet")).logits, estimate.steps[1].logits.relu())


@torch.no_grad()
def test_mtlrs_feeds_its_segmentation_back_into_the_reconstruction() -> None:
    network = create("mtlrs").train()
    before = network(scan_for("mtlrs"))
    network.segmentations[0].decoder.head.weight.mul_(-1)
    after = network(scan_for("mtlrs"))
    steps = network.time_steps
    for index, (one, other) in enumerate(zip((*before.steps, before), (*after.steps, after), strict=True)):
        assert torch.equal(one.image, other.image) == (index < steps)
        assert (one.logits is None) == ((index + 1) % steps != 0)


@torch.no_grad()
@pytest.mark.parametrize("classes", [3, 5])
def test_mtlrs_takes_numbers_of_classes_that_do_not_divide_its_features(classes: int) -> None:
    estimate = create("mtlrs", classes=classes).eval()(scan_for("mtlrs", (17, 23)))
    assert estimate.logits.shape == (1, classes, 17, 23)
    assert estimate.steps == ()
