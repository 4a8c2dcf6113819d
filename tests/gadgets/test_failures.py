"""A computation that fails costs its slice at most: the slice is made another way and says so, or it is lacking."""

import logging
import sys
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch

import gadgets.coils
import gadgets.compress
import gadgets.estimate
import gadgets.failures
import mrnets.prepare
from gadgets.coils import coils
from gadgets.compress import compress
from gadgets.estimate import Runner
from gadgets.failures import lost_device
from gadgets.images import images
from gadgets.models import Model
from gadgets.network import network
from gadgets.speaker import IncompleteError
from mrnets import store
from mrnets.contract import Estimate
from mrnets.physics.coils import rss
from mrnets.physics.fourier import ifftc
from mrnets.tensors import release_spare
from tests.gadgets.frames import SIZE, frames, header, volume
from tests.gadgets.networks import save_small

pytestmark = pytest.mark.usefixtures("no_networks_of_other_tests")


def failing_once(monkeypatch, module, name, error):
    """Let the function of that name in a gadget's module fail on the second frame."""
    function, calls = getattr(module, name), []

    def sometimes(*args):
        calls.append(args)
        if len(calls) == 2:
            raise error
        return function(*args)

    monkeypatch.setattr(f"{module.__name__}.{name}", sometimes)


def comments(stream):
    return [image.meta["ImageComments"] for image in images(stream, header())]


ERRORS = [np.linalg.LinAlgError("singular matrix"), MemoryError("too large"), RuntimeError("cusolver error")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_slice_without_sensitivities_is_the_root_of_the_sum_of_squares(monkeypatch, error):
    failing_once(monkeypatch, gadgets.coils, "sense_raw", error)
    scan = frames(3)
    made = list(network(coils(iter(scan), header()), header(), name="cgsense"))
    np.testing.assert_allclose(made[1].estimate.image.abs().numpy(), rss(ifftc(scan[1].raw.kspace)), atol=1e-5)
    first, second, third = comments(made)
    assert f"FALLBACK to zerofilled: coil sensitivities failed ({error})" in second
    assert "FALLBACK" not in first + third


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_volume_without_sensitivities_is_the_root_of_the_sum_of_squares(monkeypatch, error):
    def failing(*args):
        raise error

    monkeypatch.setattr(mrnets.prepare, "sense_raw", failing)
    (made,) = network(coils([volume()], header()), header(), name="cgsense")
    np.testing.assert_allclose(made.estimate.image.abs().numpy(), rss(ifftc(volume().raw.kspace)), atol=1e-5)
    assert f"FALLBACK to zerofilled: the network cgsense failed ({error})" in comments([made])[0]


def test_without_a_fallback_a_failure_of_sensitivities_ends_the_chain(monkeypatch):
    failing_once(monkeypatch, gadgets.coils, "sense_raw", ERRORS[0])
    made = network(coils(frames(2), header()), header(), name="cgsense", fallback="none")
    assert not next(made).fallback
    with pytest.raises(RuntimeError, match="coil sensitivities failed"):
        next(made)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_slice_whose_compression_fails_keeps_all_coils(monkeypatch, error):
    failing_once(monkeypatch, gadgets.compress, "compress_raw", error)
    made = list(compress(frames(3), header(), coils=3))
    assert [frame.raw.kspace.shape[-3] for frame in made] == [3, 6, 3]
    first, second, third = comments(network(coils(iter(made), header()), header(), name="cgsense"))
    assert f"coil compression failed ({error}); all coils were kept" in second
    assert "failed" not in first + third


@pytest.mark.parametrize("strength", [1e20, np.inf], ids=["its squares overflow", "its samples have overflowed"])
@pytest.mark.parametrize("stages", ["coils", "compress coils", ""])
def test_a_slice_that_is_absurdly_strong_loses_no_other_slice(stages, strength):
    """No method gives an image. The others are as without it, and the scan lacks it."""
    scan = frames(3)
    raw, factor = scan[1].raw, np.float32(strength)
    with np.errstate(invalid="ignore"):
        strong = replace(raw, kspace=factor * raw.kspace, calibration=factor * raw.calibration)
    scan[1] = replace(scan[1], raw=strong)

    def made(some):
        stream = iter(some)
        for name in stages.split():
            stream = compress(stream, header(), coils=3) if name == "compress" else coils(stream, header())
        return network(stream, header(), name="cgsense")

    alone = [next(made([scan[n]])) for n in (0, 2)]
    run = made([scan[0], scan[2], scan[1]])
    for expected in alone:
        assert torch.equal(next(run).estimate.image, expected.estimate.image)
    with pytest.raises(IncompleteError, match=r"slice 1 of repetition 0 could not be reconstructed: .*failed"):
        next(run)


# Memory


def out_of_memory_above(batch, monkeypatch, path):
    """Let the network of a weights file be out of memory for more slices at once. Returns the sizes that were tried."""
    tried = []

    class Large(torch.nn.Module):
        def forward(self, scan):
            tried.append(len(scan.kspace))
            if len(scan.kspace) > batch:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return Estimate(image=(scan.sens[:, 0, :].conj()[:, None] * ifftc(scan.kspace)).sum(-3))

    trained = store.load(path)
    monkeypatch.setattr(store, "load", lambda *_: replace(trained, network=Large()))
    return tried


def test_batches_are_halved_until_they_fit_and_stay_so(tmp_path, monkeypatch, caplog):
    path = save_small(tmp_path / "v.safetensors")
    tried = out_of_memory_above(2, monkeypatch, path)
    with caplog.at_level(logging.WARNING):
        first, second = network([volume(), volume()], header(), weights=path, batch=16, check="off")
    assert not first.fallback
    assert first.estimate.image.shape == (16, 1, SIZE, SIZE)
    assert torch.equal(first.estimate.image, second.estimate.image)
    assert tried == [16, 8, 4, *[2] * 16]
    assert "out of memory; going on with batches of 2" in caplog.text


def test_a_slice_that_does_not_fit_falls_back(tmp_path, monkeypatch):
    path = save_small(tmp_path / "v.safetensors")
    tried = out_of_memory_above(0, monkeypatch, path)
    (frame,) = network(frames(), header(), weights=path, batch=16)
    assert tried == [1]
    assert frame.fallback
    assert any("out of memory" in note for note in frame.notes)


SHORT = (
    torch.cuda.OutOfMemoryError("CUDA out of memory"),
    MemoryError("of CuPy"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
)
"""A lack of memory, as torch, CuPy, NVIDIA's libraries and Triton tell it."""


@pytest.mark.parametrize("error", SHORT)
def test_a_device_without_memory_gives_way_to_the_cpu(error):
    here, there = (Model("large", torch.nn.Identity(), None, torch.device(name)) for name in ("cpu", "cuda"))
    runner = Runner(there, 4, "float16", lambda: here)

    def work():
        if runner.model is there:
            raise error
        return runner.batch, runner.precision

    assert runner._in_memory(work, 3) == (1, "float32")


def test_another_failure_of_a_device_is_no_lack_of_memory():
    model = Model("broken", torch.nn.Identity(), None, torch.device("cpu"))

    def work():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        Runner(model, 4, "float32", lambda: model)._in_memory(work, 4)


ILLEGAL = "CUDA error: an illegal memory access was encountered"


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError(ILLEGAL), ILLEGAL),
        (RuntimeError("CUDA error: unspecified launch failure"), "CUDA error: unspecified launch failure"),
        (RuntimeError("CUDA error: out of memory"), ""),
        (RuntimeError("CUDA error: operation not permitted when stream is capturing"), ""),
        (None, ""),
    ],
)
def test_a_device_that_cannot_be_waited_for_is_lost(monkeypatch, error, lost):
    waits = mock.Mock(side_effect=error)
    device = {"is_initialized": lambda: True, "device_count": lambda: 2, "memory_reserved": [0, 5].__getitem__}
    for name, function in {**device, "synchronize": waits}.items():
        monkeypatch.setattr(torch.cuda, name, function)
    assert lost_device() == lost
    waits.assert_called_once_with(1)  # nothing is on the other device


def test_a_device_that_cupy_alone_uses_is_waited_for_by_cupy(monkeypatch):
    cupy = mock.Mock(**{"cuda.runtime.deviceSynchronize.side_effect": RuntimeError(ILLEGAL)})
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    cupy.get_default_memory_pool().total_bytes.return_value = 0
    assert not lost_device()
    cupy.get_default_memory_pool().total_bytes.return_value = 512
    assert lost_device() == ILLEGAL


@pytest.mark.parametrize(("module", "name"), [(gadgets.coils, "sense_raw"), (gadgets.estimate, "_estimate")])
def test_a_scan_ends_where_its_device_is_lost(monkeypatch, module, name):
    """Each fallback has its data on the same device."""
    failing_once(monkeypatch, module, name, RuntimeError(ILLEGAL))
    monkeypatch.setattr(gadgets.failures, "lost_device", lambda: ILLEGAL)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        list(network(coils(iter(frames(3)), header()), header(), name="cgsense", batch=1))


def test_memory_that_cupy_keeps_is_given_back(monkeypatch):
    pool = mock.Mock()
    monkeypatch.setitem(sys.modules, "cupy", mock.Mock(get_default_memory_pool=lambda: pool))
    release_spare()
    pool.free_all_blocks.assert_called_once_with()
