"""Questions of the host to its device, transfers and launches, from sorted k-space to the image. Each is named here.

The processor stands for the device; see `tests.questions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ismrmrd import xsd

from gadgets.coils import coils
from gadgets.compress import compress
from gadgets.frame import Frame
from gadgets.network import network
from gadgets.sort import sort
from mrnets import store
from mrnets.mrd import strength
from mrnets.mrd.lines import Lines
from mrnets.physics import compress as compression
from mrnets.physics import conjugate, espirit
from mrnets.prepare import Preparation
from mrnets.tensors import tensors, to_torch
from tests import test_one_reading as scans
from tests.gadgets import synthetic
from tests.gadgets.frames import SIZE, disc, frames, header, kspace
from tests.questions import Seen, seen

SMALL: dict[str, dict[str, Any]] = {
    "varnet": {"cascades": 1, "channels": 2, "pooling_layers": 1},
    "l1varnet": {"cascades": 2, "start_iterations": 2, "channels": 4, "pooling_layers": 1, "blocks": 1},
}
NAMES = ("l1wavelet", "cgsense", *SMALL)

MAPS = {
    "noise.levels": 1,  # the noise in the calibration lines: LAPACK on the host has the eigenvalues
    "stages._espirit": 1,  # finite? with a background? larger than the field of view? The three decide what is made
}
FETCH = {"estimate.here": 1}
"""The image. Whether it is finite is asked of the copy on the host."""
CHECK = {
    "trial._chosen": 1,  # the mask: which samples to leave out is worked out on the host
    "trust.measured": 1,  # the measures, which decide whose image it is
}


def odd(name: str) -> list[Lines]:
    """All lines of a slice, with noise, and something wrong with them."""
    parts = np.random.default_rng(5).standard_normal((2, 6, 1, SIZE, SIZE)).astype(np.float32)
    noise = parts[0] + 1j * parts[1]
    data = noise if name == "noise" else kspace(disc()) + 1e-3 * noise
    if name == "backwards":
        data[..., 1::2, :] = np.roll(data[..., 1::2, ::-1], 1, axis=-1)
    if name == "moved":
        data = np.roll(data, 9, axis=-2)
    data[:, :, 5] *= {"strong": 1000, "noise": 1e-3}.get(name, 1)
    ys = [y for y in range(SIZE) if name != "no centre" or abs(y - SIZE // 2) > 3]
    lines = synthetic.lines(data, ys)
    return [lines, synthetic.lines(3 * data, [SIZE // 2])] if name == "differs" else [lines]


ODD = {
    "backwards": "every second line seems to run backwards",
    "strong": "line 5 is much stronger",
    "noise": "line 5 is much weaker",
    "moved": "the strongest k-space along kspace_encode_step_1 is 9 after",
    "no centre": "where the centre 16 lies",
    "differs": "the lines that came twice differ by",
}
"""Slices with something wrong, and what is said of them."""


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor is taken for a device."""
    for module in (conjugate, espirit):
        monkeypatch.setattr(module, "on_host", lambda x: False)


@pytest.fixture(params=NAMES)
def options(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The network, as properties of its gadget: by name, or small weights."""
    name = request.param
    if name not in SMALL:
        return {"name": name, "options": "iterations=2"}
    torch.manual_seed(0)
    path = tmp_path / f"{name}.safetensors"
    made = store.create(name, **SMALL[name])
    store.save(path, made, name=name, options=SMALL[name], preparation=Preparation(consistency=0.035).to_json())
    return {"weights": str(path)}


def arrived(count: int) -> list[Frame]:
    """Whitened slices that have all come, as tensors."""
    found = [replace(frame, raw=to_torch(replace(frame.raw, whitened=True))) for frame in frames(slices=count)]
    return [replace(frame, behind=count - 1 - n) for n, frame in enumerate(found)]


def test_compression_asks_once_for_matrices_and_twice_for_their_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compression, "on_host", lambda x: False)
    (given,) = arrived(1)
    with seen() as found:
        (made,) = compress([given], header(), coils=1)
    assert made.raw.compressed == "gdcc"
    assert found.asked == {"compress._gram": 1}  # finite?
    with seen() as found:
        list(compress([given], header()))
    # The second are the eigenvalues, from which the number of coils follows. It is that of the scan here.
    assert found.asked == {"compress._gram": 1, "compress._fewest": 1}


def with_maps(count: int) -> tuple[list[Frame], Seen]:
    given = arrived(count)
    with seen() as found:
        made = list(coils(given, header(), batch=count))
    return made, found


def imaged(given: list[Frame], options: dict[str, str]) -> Seen:
    """Return what was seen while the network made images. It was loaded before."""
    options = {"check": "off", **options}
    list(network((), header(), **options))
    with seen() as found:
        (image, *_) = network(given, header(), batch=len(given), **options)
    assert not image.fallback
    return found


@pytest.mark.parametrize("count", [1, 3])
def test_maps_ask_as_often_for_a_batch_as_for_a_slice(count: int) -> None:
    _, found = with_maps(count)
    assert found.asked == MAPS


def test_maps_send_what_does_not_change_once() -> None:
    with_maps(1)
    _, found = with_maps(1)
    assert not found.sent


def test_launches_of_maps_do_not_grow_with_the_batch() -> None:
    one, many = (with_maps(count)[1].launches for count in (1, 4))
    assert many.total() < 1.02 * one.total()  # the slices are put together


@pytest.mark.parametrize("check", ["off", "warn"])
def test_a_network_asks_for_its_image_alone(options: dict[str, str], check: str) -> None:
    given, _ = with_maps(2)
    found = imaged(given, {**options, "check": check})
    checked = check != "off" and "weights" in options
    assert found.asked == {**FETCH, **(CHECK if checked else {})}
    found = imaged(given, {**options, "check": check})
    assert found.sent == ({"trial._chosen": 2} if checked else {})  # the samples that are left out


def test_launches_of_a_network_do_not_grow_with_the_batch(options: dict[str, str]) -> None:
    given, _ = with_maps(4)
    one, many = (imaged(some, options).launches for some in (given[:1], given))
    assert many.total() < one.total() + 12  # the slices are put together


def test_the_stand_in_sees_questions_and_transfers() -> None:
    values = torch.arange(4)
    with seen() as found:
        values[values > 1].tolist()
        values.cpu()
        torch.tensor([1, 2])
    assert (found.asked, found.sent) == ({"tests": 3}, {"tests": 1})
    with torch.inference_mode(), seen() as found:
        values.to("cpu", non_blocking=True)
        assert bool(values.sum() > 1)
        assert int(values[1]) == 1
    assert found.asked == {"tests": 3}


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_small_arrays_are_sent_without_waiting() -> None:
    torch.cuda.set_sync_debug_mode("error")
    try:
        (times,) = tensors([np.ones(3, np.float32)], "cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert times.tolist() == [1, 1, 1]


class TestSort:
    """`sort` where lines lie on a device. torch is in CuPy's place."""

    @pytest.fixture(autouse=True)
    def cupy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The real and imaginary parts of torch's arrays, whose strides are not called as those of NumPy and CuPy."""
        own = strength._real
        there = torch.Tensor
        monkeypatch.setattr(strength, "_real", lambda x: viewed(x) if isinstance(x, there) else own(x))

    @pytest.mark.parametrize("count", [1, 3])
    def test_a_block_asks_once_and_the_end_of_a_slice_once(self, count: int) -> None:
        given = [synthetic.lines(kspace((n + 1) * disc()), slice=n) for n in range(count)]
        with seen() as found:
            assert len(list(sort(there(given), header()))) == count
        assert found.asked == {"lines.peaks": count, "measures.measured": count}

    def test_echo_times_stay_on_the_host(self) -> None:
        """Three gadgets compare those of slices, and each image tells its own: a device would be asked each time."""
        told = header()
        told.sequenceParameters = xsd.sequenceParametersType(TE=[5.0])
        (frame,) = sort(there([synthetic.lines(kspace(disc()))]), told)
        assert isinstance(frame.raw.kspace, torch.Tensor)
        assert isinstance(frame.raw.echo_times, np.ndarray)
        assert frame.raw.echo_times == pytest.approx([5e-3])

    @pytest.mark.parametrize("make", [scans.echoes, scans.averages, scans.volume], ids=lambda make: make.__name__)
    def test_images_with_echoes_and_averages_and_volumes_ask_once(self, make: Callable[..., Any]) -> None:
        case = make(np.random.default_rng(3))
        with seen() as found:
            made = list(sort(there(case.lines), case.header))
        assert found.asked == {"lines.peaks": len(case.lines), "measures.measured": len(made)}

    @pytest.mark.parametrize("name", ODD)
    def test_notes_are_those_of_the_host(self, name: str) -> None:
        given, words = odd(name), ODD[name]
        (host,), (device,) = (sort(some, header(), incomplete="warn") for some in (given, there(given)))
        assert isinstance(device.raw.kspace, torch.Tensor)
        assert [note for note in host.notes if words in note], host.notes
        assert device.notes == host.notes
        assert np.array_equal(device.raw.mask.numpy(), host.raw.mask)
        np.testing.assert_allclose(device.raw.kspace.numpy(), host.raw.kspace, atol=1e-6)


def viewed(lines: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(lines).flatten(-2)


def there(given: Iterable[Lines]) -> list[Lines]:
    """Lines on the device."""
    return [replace(lines, data=torch.from_numpy(lines.data)) for lines in given]
