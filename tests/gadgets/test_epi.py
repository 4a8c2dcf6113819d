"""Echo-planar scans: the two directions of the readout brought into phase by phase-correction lines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ismrmrd import xsd

from gadgets.frame import Frame
from gadgets.noise import noise
from gadgets.sort import sort
from mrnets.errors import InputError
from mrnets.mrd.encoding import encoding_of
from mrnets.mrd.epi import GHOSTS, phase_difference
from mrnets.mrd.flags import Flag
from mrnets.mrd.lines import Lines, with_data
from mrnets.physics.fourier import fftc, ifftc
from tests.gadgets import synthetic

COILS, NX, NY, NZ = 3, 24, 16, 4
CONSTANT, SLOPE = 0.7, 2 * np.pi * 0.8 / NX
"""Phase between the directions: rad, and rad per pixel for a delay of 0.4 samples each way."""


def header(nx: int = NX, nz: int = 1, trajectory: str = "epi", **options: Any) -> Any:
    return synthetic.header(synthetic.encoding((nx, NY, nz), trajectory=trajectory, **options), bandwidth=0.79)


def kspace(seed: int, nx: int = NX, nz: int = 1) -> Any:
    return synthetic.to_kspace(synthetic.coil_images(np.random.default_rng(seed), COILS, NY, nx, nz))


def delayed(space: Any, sign: float, pixels: int | None = None, phase: float = 0.0) -> Any:
    """k-space of lines of one direction: half of the difference, and a phase."""
    size = space.shape[-1]
    slope = SLOPE * (pixels or size) / size
    turn = np.exp(1j * (sign / 2 * (CONSTANT + slope * (np.arange(size) - size // 2)) + phase))
    return fftc(ifftc(space, axes=(-1,)) * turn, axes=(-1,)).astype(np.complex64)


def train(space: Any, **counters: int) -> list[Lines]:
    """The image's lines: even ones forwards, odd ones backwards."""
    forwards = synthetic.lines(delayed(space, -1), range(0, NY, 2), **counters)
    backwards = synthetic.lines(delayed(space, 1), range(1, NY, 2), reverse=True, **counters)
    return [forwards, backwards]


def navigators(space: Any, order: str = "+-+", drift: float = 0.0, **counters: int) -> list[Lines]:
    """Phase-correction lines without phase encoding, in this order; `drift`: phase from line to line, rad."""
    flags = [Flag.IS_PHASECORR_DATA]
    made = []
    for n, direction in enumerate(order):
        turned = delayed(space, 1 if direction == "-" else -1, phase=n * drift)
        options: dict[str, Any] = {"flags": flags, "reverse": direction == "-", "first_counter": n}
        middle = space.shape[1] // 2
        made.append(synthetic.lines(turned, [NY // 2], [middle], **options, **counters))
    return made


def only(stream: Any, made: Any) -> Frame:
    (frame,) = sort(stream, made)
    return frame


@pytest.mark.parametrize("order", ["+-+", "-+-", "+-", "-+", "+-+-+-+"])
@pytest.mark.parametrize("trajectory", ["epi", "cartesian"])
def test_lines_are_brought_into_phase(order: str, trajectory: str) -> None:
    space = kspace(1)
    frame = only([*navigators(space, order), *train(space)], header(trajectory=trajectory))
    np.testing.assert_allclose(frame.raw.kspace[0, 0], space[:, 0], atol=2e-4)
    assert frame.raw.mask.all()
    assert frame.history == ("epi phase correction",)
    assert not frame.notes


def test_a_phase_that_grows_with_time_cancels() -> None:
    space = kspace(2)
    frame = only([*navigators(space, drift=0.3), *train(space)], header())
    np.testing.assert_allclose(frame.raw.kspace[0, 0], space[:, 0], atol=2e-4)


def test_navigators_after_the_image_and_lines_in_any_blocks() -> None:
    space = kspace(3)
    stream = [synthetic.interleave(*train(space)), *navigators(space)]
    np.testing.assert_allclose(only(stream, header()).raw.kspace[0, 0], space[:, 0], atol=2e-4)


def test_slices_and_repetitions_have_their_own_navigators_or_the_nearest() -> None:
    spaces = {(r, s): kspace(10 * r + s) for r in range(2) for s in range(2)}
    stream: list[Lines] = []
    for (repetition, slice_), space in spaces.items():
        counters = {"repetition": repetition, "slice": slice_}
        stream += [*(navigators(space, **counters) if repetition == 0 else []), *train(space, **counters)]
    for frame, space in zip(sort(stream, header()), spaces.values(), strict=True):
        np.testing.assert_allclose(frame.raw.kspace[0, 0], space[:, 0], atol=2e-4)


def test_volumes() -> None:
    space = kspace(4, nz=NZ)
    frame = only([*navigators(space), *train(space)], header(nz=NZ))
    (expected,) = sort([synthetic.lines(space)], header(nz=NZ))
    np.testing.assert_allclose(frame.raw.kspace, expected.raw.kspace, atol=2e-4)


def test_readout_oversampling() -> None:
    space = kspace(5, nx=2 * NX)
    fov = (4.0 * NX, 2.0 * NY, 2.0)
    made = header(2 * NX, fov=fov, recon=(NX, NY, 1), recon_fov=(2.0 * NX, *fov[1:]))
    frame = only([*navigators(space), *train(space)], made)
    (expected,) = sort([synthetic.lines(space)], made)
    np.testing.assert_allclose(frame.raw.kspace, expected.raw.kspace, atol=2e-4)


def test_the_difference_is_what_was_put_in() -> None:
    found = phase_difference(navigators(kspace(6)), encoding_of(header(), 0))
    assert found is not None
    assert found.constant == pytest.approx(CONSTANT, abs=1e-5)
    assert found.slope == pytest.approx(SLOPE, abs=1e-5)


def test_navigators_are_whitened_as_the_lines_are() -> None:
    space, rng = kspace(7), np.random.default_rng(7)
    samples = rng.standard_normal((20, COILS, NX)) + 1j * rng.standard_normal((20, COILS, NX))
    samples[:, 1] += 0.9 * samples[:, 0]
    stream = [synthetic.noise_lines(samples), *navigators(space), *train(space)]
    frame = only(noise(stream, header(), device="cpu"), header())
    (expected,) = sort(noise([stream[0], synthetic.lines(space)], header(), device="cpu"), header())
    np.testing.assert_allclose(frame.raw.kspace, expected.raw.kspace, atol=1e-3)
    assert frame.history == ("prewhitened", "epi phase correction")


@pytest.mark.parametrize("order", ["", "+", "--"])
def test_without_navigators_of_both_directions_images_say_so(order: str) -> None:
    space = kspace(8)
    frame = only([*navigators(space, order), *train(space)], header())
    assert GHOSTS in frame.notes
    assert frame.history == ()


def test_navigators_of_a_scan_of_one_direction_are_said() -> None:
    space = kspace(9)
    frame = only([*navigators(space, "+"), synthetic.lines(space)], header())
    np.testing.assert_allclose(frame.raw.kspace[0, 0], space[:, 0], atol=1e-5)
    assert any("phase-correction lines came and nothing was corrected" in note for note in frame.notes)


class TestRamps:
    @pytest.mark.parametrize(("delay", "refused"), [(0, True), (100, False)])
    def test_described_by_the_header(self, delay: int, refused: bool) -> None:
        made, space = header(), kspace(1)
        values = {"rampUpTime": 100, "flatTopTime": 240, "rampDownTime": 100, "acqDelayTime": delay, "numSamples": NX}
        made.encoding[0].trajectoryDescription = xsd.trajectoryDescriptionType(
            identifier="ConventionalEPI",
            userParameterLong=[xsd.userParameterLongType(name=name, value=value) for name, value in values.items()],
            userParameterDouble=[xsd.userParameterDoubleType(name="dwellTime", value=10.0)],
        )
        stream = [*navigators(space), *train(space)]
        if refused:
            with pytest.raises(InputError, match=r"on the gradients' ramps: they last from 0 to 240 µs"):
                only(stream, made)
        else:
            assert only(stream, made).history

    def test_told_by_the_trajectory_of_the_lines(self) -> None:
        block = train(kspace(1))[0]
        path = np.linspace(-0.5, 0.5, NX, dtype=np.float32) * np.ones((len(block), 1), np.float32)
        even = with_data(block, block.data, path[..., None])
        assert only([even], header()).raw.mask.any()
        uneven = replace(even, trajectory=np.sin(path * 3)[..., None])
        with pytest.raises(InputError, match="acquisition 0 of an epi scan has samples that are not evenly spaced"):
            only([uneven], header())
