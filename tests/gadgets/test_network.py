from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from ismrmrd.xsd import CreateFromDocument

from gadgets import assemble
from gadgets.coils import coils
from gadgets.compress import compress
from gadgets.hosts.library import load
from gadgets.hosts.scan import reconstructed
from gadgets.network import network as checked_network
from gadgets.noise import noise
from gadgets.simulate import Settings, make_scan
from gadgets.sort import sort
from mrnets import store, tensors
from mrnets.errors import InputError
from mrnets.physics.coils import rss
from mrnets.physics.fourier import ifftc
from mrnets.preparation import Preparation
from tests.gadgets.frames import SIZE, disc, frames, header, volume
from tests.gadgets.networks import network

pytestmark = pytest.mark.usefixtures("no_networks_of_other_tests")


def test_cgsense_gives_the_object_in_scanner_units():
    (frame,) = network(frames(), header(), name="cgsense", options="iterations=50, regularisation=1e-4")
    image = frame.estimate.image[0, 0].numpy()
    difference = np.abs(image) - np.abs(disc())
    assert np.linalg.norm(difference) < 0.06 * np.linalg.norm(disc())
    assert frame.history == ("cgsense",)
    assert not frame.fallback


def test_contrasts_of_raw_data_are_refused():
    with pytest.raises(InputError, match="contrasts is for networks on images; cgsense takes raw data"):
        next(network(frames(), header(), name="cgsense", contrasts="t1"))


def test_zerofilled_without_calibration_is_rss():
    (before,) = frames(calibration=0)
    (frame,) = network([before], header(), name="zerofilled")
    expected = rss(ifftc(before.raw.kspace))
    np.testing.assert_allclose(frame.estimate.image.numpy().real, expected, atol=1e-5)


@pytest.mark.parametrize("method", ["rss", "unitary"])
def test_networks_without_weights_take_the_maps_of_the_chain(method):
    given = list(coils(frames(), header(), method=method))
    (frame,) = network(given, header(), name="zerofilled")
    expected = np.sum(np.conj(given[0].raw.sens) * ifftc(given[0].raw.kspace), axis=-3)
    np.testing.assert_allclose(np.abs(frame.estimate.image.numpy()), np.abs(expected), atol=1e-5)


def test_weights_complete_the_preparation_and_batches_do_not_matter(weights):
    scan = [volume()]
    whole, parts = (next(network(scan, header(), weights=weights, batch=n)) for n in (16, 3))
    assert whole.estimate.image.shape == (16, 1, SIZE, SIZE)
    np.testing.assert_allclose(whole.estimate.image.numpy(), parts.estimate.image.numpy(), atol=1e-5)
    assert whole.history[-1] == "small"


def test_units_of_the_scanner(weights):
    (frame,) = frames()
    bright = replace(
        frame, raw=replace(frame.raw, kspace=1000 * frame.raw.kspace, calibration=1000 * frame.raw.calibration)
    )
    one, thousand = (next(network([f], header(), weights=weights)).estimate.image for f in (frame, bright))
    np.testing.assert_allclose(thousand.numpy(), 1000 * one.numpy(), rtol=1e-3, atol=1e-2)


def test_units_and_labels_of_the_weights_go_with_the_frame(weights):
    (frame,) = network(frames(), header(), weights=weights)
    assert frame.units == {"R2*": "1/s"}
    assert frame.labels == ("background", "grey matter")


def test_unwhitened_data_are_noted(weights):
    (frame,) = network(frames(), header(), weights=weights)
    assert "no noise measurement" in frame.notes[0]
    (frame,) = frames()
    (frame,) = network([replace(frame, raw=replace(frame.raw, whitened=True))], header(), weights=weights)
    assert frame.notes == ()


@pytest.mark.parametrize("options", [{}, {"sens_net": True, "sens_channels": 2, "sens_region": "rows"}])
def test_images_of_atommic_s_networks_say_so(tmp_path, options):
    options = {"iterations": 2, "channels": 2, "hidden_layers": 1, "transposed": True, **options}
    preparation = Preparation(sens="none" if "sens_net" in options else "espirit", normalise="coils")
    path = str(tmp_path / "crnn.safetensors")
    store.save(
        path,
        store.create("atommic.crnn", **options),
        name="atommic.crnn",
        options=options,
        preparation=preparation.to_json(),
    )
    # Maps of the network's own are none to compare with: nothing is checked.
    gadget = checked_network if "sens_net" in options else network
    (frame,) = gadget(frames(), header(), weights=path)
    assert frame.estimate.image.shape == (1, 1, SIZE, SIZE)
    assert not frame.fallback
    text = " ".join(frame.notes)
    assert "atommic.crnn: as ATOMMIC, not as the paper: its hidden state is always zero" in text
    assert ("sees the measured lines" in text) == ("sens_net" in options)


def test_half_precision(weights):
    (frame,) = network(frames(), header(), weights=weights, precision="bfloat16")
    (exact,) = network(frames(), header(), weights=weights)
    assert frame.estimate.image.dtype == torch.complex64
    difference = frame.estimate.image - exact.estimate.image
    assert torch.linalg.vector_norm(difference) < 0.05 * torch.linalg.vector_norm(exact.estimate.image)


def test_so_many_threads_that_openmp_would_end_the_process_are_refused(weights):
    with pytest.raises(InputError, match="threads 0 to 128, got 0 and 65536"):
        list(network(frames(), header(), weights=weights, threads=65536))


def test_the_number_of_threads_is_set_and_changes_nothing(weights):
    before = torch.get_num_threads()
    try:
        one, three = (next(network(frames(), header(), weights=weights, threads=n)) for n in (1, 3))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    difference = three.estimate.image - one.estimate.image
    assert torch.linalg.vector_norm(difference) < 1e-5 * torch.linalg.vector_norm(one.estimate.image)


def test_other_items_pass():
    assert list(network(["text"], header(), name="zerofilled")) == ["text"]


def test_a_pipe_for_weights_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(InputError, match="is not a file that weights can be read from"):
        list(network([], header(), weights=str(tmp_path / "pipe.safetensors")))


def test_a_network_without_weights_is_measured_before_it_takes_memory(monkeypatch):
    """Its first construction is on the meta device, where tensors have no memory."""
    devices = []

    class Large(torch.nn.Module):
        def __init__(self):
            super().__init__()
            table = torch.empty(2**40)
            devices.append(table.device.type)
            self.register_buffer("table", table)

    monkeypatch.setattr(store, "create", lambda name, **options: Large())
    with pytest.raises(InputError, match="cgsense with these options takes 4194304 MiB; at most 256 MiB"):
        list(network([], header(), name="cgsense"))
    assert devices == ["meta"]


@pytest.mark.gpu
def test_the_device_gives_the_same(weights):
    pytest.importorskip("cupy")
    (here,) = network(frames(), header(), weights=weights, device="cpu")
    (there,) = network(frames(), header(), weights=weights, device="cuda")
    assert not there.estimate.image.is_cuda  # it was fetched with the answer whether it is finite
    np.testing.assert_allclose(there.estimate.image.numpy(), here.estimate.image.numpy(), atol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize(("chain", "tolerance"), [("l1wavelet", 1e-3), ("varnet", 1e-2)])  # TF32 in convolutions
def test_a_whole_chain_on_the_device_gives_the_same(chain, tolerance):
    """Lines are sorted while images of others are computed: no memory may be used again too early."""
    pytest.importorskip("cupy")
    header, lines, _ = make_scan(Settings(slices=40, coils=6, matrix=128, acceleration=2.0))
    blocks, cpu = list(lines), ["noise.device=cpu", "network.device=cpu"]
    here = [image.data for image in reconstructed(load(chain, cpu), blocks, header)]
    for _ in range(2):
        there = [image.data for image in reconstructed(load(chain), blocks, header)]
        for one, other in zip(there, here, strict=True):
            assert np.linalg.norm(one - other) <= tolerance * np.linalg.norm(other)


def test_frames_on_a_device_are_torchs(monkeypatch):
    """NumPy's arrays are taken for CuPy's: torch takes both over in their memory."""
    for place in (assemble, tensors):
        monkeypatch.setattr(place, "is_cupy_array", lambda x: isinstance(x, np.ndarray))
    monkeypatch.setattr(tensors, "is_numpy_array", lambda x: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    text, lines, _ = make_scan(Settings(slices=1, coils=2, matrix=48, acceleration=2, calibration=16))
    head = CreateFromDocument(text)
    (frame,) = coils(compress(sort(noise(lines, head), head), head, coils=1), head)
    raw = frame.raw
    assert all(isinstance(x, torch.Tensor) for x in (raw.kspace, raw.mask, raw.calibration, raw.sens))


def test_a_torch_that_sees_no_device_takes_copies_of_what_lies_there(monkeypatch):
    class OfCupy:
        """An array that torch for processors cannot take over."""

        def get(self):
            return np.ones(3, np.complex64)

    monkeypatch.setattr(tensors, "is_cupy_array", lambda x: isinstance(x, OfCupy))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (made,) = tensors.tensors([OfCupy()])
    assert torch.equal(made, torch.ones(3, dtype=torch.complex64))


@pytest.mark.slow
def test_the_shipped_network_does_not_diverge_without_noise():
    """The error of the sensitivities is then all that there is, and it is no noise."""
    options = {"coils": 6, "matrix": 64, "calibration": 16, "acceleration": 3.0, "noise_lines": 0, "oversampling": 1}
    header, lines, truth = make_scan(Settings(snr=1e6, seed=2, **options))
    blocks, errors = list(lines), {}
    for name in ("reconstruct", "l1wavelet"):
        (image,) = reconstructed(load(name, ["network.check=off"] if name == "reconstruct" else []), blocks, header)
        found = image.data.squeeze() * (image.data.squeeze() * truth[0][0]).sum() / (image.data**2).sum()
        errors[name] = np.linalg.norm(found - truth[0][0])
    assert errors["reconstruct"] < 1.1 * errors["l1wavelet"]
