"""Slices that have come are computed together, with the results that each has alone."""

import re
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch

import gadgets.models as module
from gadgets.batches import in_batches
from gadgets.coils import coils
from gadgets.compress import compress
from gadgets.frame import Frame
from gadgets.network import network
from gadgets.noise import noise
from gadgets.simulate import Settings, make_scan
from gadgets.sort import sort
from mrnets import stages, store
from mrnets.errors import InputError
from mrnets.mrd.header import read_header
from mrnets.physics import conjugate
from mrnets.physics.coils import rss
from mrnets.physics.fourier import ifftc
from mrnets.prepare import Preparation
from tests.gadgets.frames import frames, header, volume

SMALL = {"cascades": 1, "channels": 2, "pooling_layers": 1}
SLICES = 5
pytestmark = pytest.mark.usefixtures("no_networks_of_other_tests")


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "small.safetensors"
    store.save(path, store.create("varnet", **SMALL), name="varnet", options=SMALL, preparation=Preparation().to_json())
    return str(path)


@pytest.fixture
def sizes(monkeypatch):
    """The sizes of the batches that networks got."""
    found = []
    made = module.Model

    def model(*args, **kwargs):
        one = made(*args, **kwargs)
        one.module.register_forward_pre_hook(lambda _, args: found.append(_size(args[0])))
        return one

    monkeypatch.setattr(module, "Model", model)
    return found


def _size(scan):
    return len(scan.image if scan.kspace is None else scan.kspace)


def arrived(count=SLICES):
    """Slices that have all come when the first is taken."""
    return [replace(frame, behind=count - 1 - n) for n, frame in enumerate(frames(slices=count))]


def same(one, other):
    image, reference = one.estimate.image, other.estimate.image
    return torch.linalg.vector_norm(image - reference) <= 1e-5 * torch.linalg.vector_norm(reference)


def described(frame):
    """Notes and marks of a frame, without numbers: their last digit may differ, and they are compared elsewhere."""
    notes = tuple(re.sub(r"\d[\d.e+-]*", "n", note) for note in frame.notes)
    return notes, frame.history, frame.fallback, frame.made, int(frame.headers[0, 0]["idx"]["slice"])


@pytest.mark.parametrize("check", ["off", "warn"])
@pytest.mark.parametrize("with_maps", [False, True])
def test_slices_that_have_come_go_through_the_network_together(weights, sizes, check, with_maps):
    given = list(coils(arrived(), header())) if with_maps else arrived()
    alone = list(network(given, header(), weights=weights, check=check))
    assert set(sizes) == {1}
    sizes.clear()
    together = list(network(given, header(), weights=weights, check=check, batch=3))
    runs = 1 if check == "off" else 2
    assert sizes == [3] * runs + [2] * runs
    for one, other in zip(together, alone, strict=True):
        assert same(one, other)
        assert described(one) == described(other)
        assert (one.trust is None) == (check == "off")
        if one.trust is not None:
            assert one.trust.prediction == pytest.approx(other.trust.prediction, rel=1e-4)


@cache
def measured(echoes):
    """Slices of a simulated brain with noise, each of another place, up to their sensitivities; and the header."""
    settings = Settings(coils=6, matrix=48, slices=4, thickness=12.0, acceleration=2.0, calibration=16, echoes=echoes)
    xml, items, _ = make_scan(replace(settings, snr=40.0, seed=1))
    head = read_header(xml).header
    stream = coils(compress(sort(noise(items, head), head), head), head)
    found = [frame for frame in stream if isinstance(frame, Frame)]
    return head, [replace(frame, behind=len(found) - 1 - n) for n, frame in enumerate(found)]


@pytest.mark.parametrize("name", store.shipped())
def test_the_results_of_networks_that_ship_do_not_depend_on_the_batch(name, sizes):
    task = store.describe(store.header(name)["network"]).task
    head, given = measured(3 if task == "quantitative" else 1)
    if task == "segmentation":
        images = network(given, head, name="zerofilled", check="off")
        given = [replace(image, behind=frame.behind) for image, frame in zip(images, given, strict=True)]
    alone, together = (list(network(given, head, weights=name, check="off", batch=most)) for most in (1, len(given)))
    assert max(sizes) == (1 if task == "segmentation" else len(given)), "labels of slices are made one by one"
    for one, other in zip(alone, together, strict=True):
        assert not one.fallback
        wanted, found = (parts(frame.estimate) for frame in (one, other))
        assert wanted.keys() == found.keys()
        for part, x in wanted.items():
            assert torch.linalg.vector_norm(found[part] - x) <= 1e-5 * torch.linalg.vector_norm(x), part


def parts(estimate):
    """The images of an estimate by name."""
    own = {"image": estimate.image, "logits": estimate.logits, **estimate.maps}
    return {name: x for name, x in own.items() if x is not None}


def test_slices_that_have_not_come_are_not_waited_for(weights):
    """The next one is made only when the image of the one before has been taken."""
    taken = []

    def one_by_one():
        for n, frame in enumerate(frames(slices=3)):
            assert len(taken) == n
            yield frame

    for frame in network(coils(one_by_one(), header(), batch=4), header(), weights=weights, batch=4, check="off"):
        taken.append(frame)
    assert len(taken) == 3


def test_a_slice_on_which_the_network_fails_costs_no_other(weights, monkeypatch):
    """The stand-in fails on the slice that has a sample in the corner of k-space."""
    given = arrived(4)
    mask = given[2].raw.mask.copy()
    mask[..., 1, 0] = True
    given[2] = replace(given[2], raw=replace(given[2].raw, mask=mask))
    assert not given[1].raw.mask[..., 1, 0].any()
    made = module.Model

    def model(*args, **kwargs):
        def fail(_, args):
            if args[0].mask[..., 1, 0].any():
                raise ZeroDivisionError("a sample in the corner")

        one = made(*args, **kwargs)
        if one.preparation is not None:
            one.module.register_forward_pre_hook(fail)
        return one

    monkeypatch.setattr(module, "Model", model)
    found = list(network(given, header(), weights=weights, batch=4, check="off"))
    assert [frame.fallback for frame in found] == [False, False, True, False]
    assert any("a sample in the corner" in note for note in found[2].notes)
    alone = list(network(given[:2] + given[3:], header(), weights=weights, check="off"))
    for one, other in zip(found[:2] + found[3:], alone, strict=True):
        assert same(one, other)


def test_a_slice_that_contradicts_the_weights_ends_the_chain_after_those_before_it(weights):
    given = arrived(3)
    given[1] = replace(given[1], raw=replace(given[1].raw, calibration=None))
    made = network(given, header(), weights=weights, batch=3, check="off")
    assert isinstance(next(made), Frame)
    with pytest.raises(InputError, match="calibration"):
        next(made)


def test_maps_are_estimated_together(monkeypatch):
    calls = []
    original = stages.espirit.espirit_and_folded

    def counted(lines, *args, **more):
        calls.append(len(lines))
        return original(lines, *args, **more)

    monkeypatch.setattr(stages.espirit, "espirit_and_folded", counted)
    alone = list(coils(arrived(), header()))
    assert calls == [1] * SLICES
    calls.clear()
    together = list(coils(arrived(), header(), batch=3))
    assert calls == [3, 2]
    for one, other in zip(together, alone, strict=True):
        assert np.linalg.norm(one.raw.sens - other.raw.sens) <= 1e-5 * np.linalg.norm(other.raw.sens)
        assert (one.history, one.failed) == (other.history, other.failed)


def test_a_slice_has_a_second_set_of_maps_only_if_it_has_one_alone(monkeypatch):
    """The stand-in finds the two brightest of the slices folded, and their second set is the first once more."""
    espirit = stages.espirit.espirit
    bright = np.sort([np.abs(frame.raw.calibration).max() for frame in arrived()])[-2]

    def once(lines, shape, options, noise, finite):
        share = (np.abs(lines).max(axis=(1, 2, 3)) >= bright).astype(np.float32)
        return espirit(lines, shape, options, noise=noise, finite=finite), share

    def twice(lines, shape, options, noise, finite, maps):
        assert maps == 2
        return np.repeat(espirit(lines, shape, options, noise=noise, finite=finite)[:, None], 2, axis=1)

    monkeypatch.setattr(stages.espirit, "espirit_and_folded", once)
    monkeypatch.setattr(stages.espirit, "espirit", twice)
    alone = [frame.raw.sens for frame in coils(arrived(), header())]
    together = [frame.raw.sens for frame in coils(arrived(), header(), batch=4)]
    assert sorted(sens.shape[1] for sens in alone) == [1, 1, 1, 2, 2]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_maps_that_fail_cost_no_other_slice():
    given = arrived(3)
    calibration = given[1].raw.calibration
    given[1] = replace(given[1], raw=replace(given[1].raw, calibration=np.full_like(calibration, np.inf)))
    first, second, third = coils(given, header(), batch=3)
    assert first.raw.sens is not None
    assert second.raw.sens is None
    assert third.raw.sens is not None
    assert "NaN or infinite" in second.failed
    (image,) = network([second], header(), name="cgsense")
    np.testing.assert_allclose(image.estimate.image.abs().numpy(), rss(ifftc(second.raw.kspace)), atol=1e-5)


def groups(items, most):
    return [[item if isinstance(item, str) else item.behind for item in batch] for batch in in_batches(items, most)]


def test_batches_keep_the_order_and_the_other_items():
    a, b, c, d = arrived(4)
    assert groups([a, b, c, d], 3) == [[3, 2, 1], [0]]
    assert groups([replace(a, behind=0), b, c, d], 9) == [[0], [2, 1], [0]]
    assert groups([a, "text", b, c, d], 9) == [[3], ["text"], [2, 1], [0]]
    assert groups([], 3) == []


@pytest.mark.parametrize(("most", "sizes"), [(1, [1] * 15), (3, [3] * 5), (16, [8, 4, 2, 1]), (12, [12, 2, 1])])
def test_batches_have_few_sizes(most, sizes):
    """A device makes plans and graphs for each size."""
    assert [len(batch) for batch in groups(arrived(15), most)] == sizes


def test_a_device_gets_several_frames_unless_told_otherwise():
    given = arrived(20)
    there = [replace(f, raw=replace(f.raw, kspace=torch.empty(f.raw.kspace.shape, device="meta"))) for f in given]
    assert [len(batch) for batch in in_batches(given, 0)] == [1] * 20
    assert [len(batch) for batch in in_batches(there, 0)] == [16, 4]
    assert [len(batch) for batch in in_batches(there, 2)] == [2] * 10


def test_slices_of_another_form_are_in_another_batch():
    a, b, c = arrived(3)
    failed = replace(b, failed="no maps")
    other = replace(b, raw=replace(b.raw, calibration=b.raw.calibration[..., 1:]))
    for odd in (failed, other, replace(volume(), behind=1)):
        assert [len(batch) for batch in in_batches([a, odd, c], 9)] == [1, 1, 1]


ASKING = ("__bool__", "__float__", "__int__", "__array__", "item", "tolist", "cpu")
"""Methods that make the host wait for values of a tensor on a device."""


@pytest.fixture
def questions(monkeypatch):
    """Counts what a device would be asked: the library takes the processor for one."""
    asked = []
    for name in ASKING:
        original = getattr(torch.Tensor, name)

        def ask(self, *args, _name=name, _original=original, **options):
            asked.append(_name)
            return _original(self, *args, **options)

        monkeypatch.setattr(torch.Tensor, name, ask)
    fetch = torch.Tensor.to

    def to(self, *args, **options):
        if options.get("non_blocking") and args == ("cpu",):
            asked.append("to")
        return fetch(self, *args, **options)

    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(conjugate, "on_host", lambda x: False)
    return asked


FETCH = ["to"]
"""The image. Whether it is finite is asked of the copy on the host."""


@pytest.mark.parametrize(("check", "asked"), [("off", FETCH), ("warn", ["cpu", "tolist", *FETCH])])
def test_a_device_is_asked_as_often_for_a_batch_as_for_a_slice(weights, questions, check, asked):
    """For the self-check: the mask, and the measures."""
    given = [replace(frame, raw=replace(frame.raw, whitened=True)) for frame in coils(arrived(4), header())]
    list(network(given[:1], header(), weights=weights, check=check))
    for batch, batches in ((1, 4), (2, 2), (4, 1)):
        questions.clear()
        list(network(given, header(), weights=weights, check=check, batch=batch))
        assert questions == asked * batches


@pytest.mark.parametrize("gadget", [coils, partial(network, name="zerofilled")])
def test_a_batch_of_less_than_none_is_refused(gadget):
    with pytest.raises(InputError, match="batch must be 0 or more"):
        list(gadget(frames(), header(), batch=-1))
