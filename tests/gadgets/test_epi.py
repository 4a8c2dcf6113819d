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


def described(made: Any, **times: float) -> Any:
    """The header with a trajectory description as converters write it."""
    whole = {name: int(value) for name, value in times.items() if name != "dwellTime"}
    made.encoding[0].trajectoryDescription = xsd.trajectoryDescriptionType(
        identifier="ConventionalEPI",
        userParameterLong=[xsd.userParameterLongType(name=name, value=value) for name, value in whole.items()],
        userParameterDouble=[xsd.userParameterDoubleType(name="dwellTime", value=times["dwellTime"])],
    )
    return made


TIMES = {"rampUpTime": 100, "flatTopTime": 240, "rampDownTime": 100, "acqDelayTime": 30, "dwellTime": 5.0}
PIXELS = 24
"""Pixels of the images. The encoded field of view is twice theirs."""


class OnRamps:
    """A readout with samples on ramps, simulated: k-space of pixels at the places that the gradient leads to."""

    def __init__(self, **times: float) -> None:
        self.times = TIMES | times
        delay, dwell = self.times["acqDelayTime"], self.times["dwellTime"]
        whole = sum(self.times[name] for name in ("rampUpTime", "flatTopTime", "rampDownTime"))
        self.samples = int(self.times.get("numSamples", (whole - 2 * delay) / dwell))
        self.times["numSamples"] = self.samples
        fine = np.linspace(0, whole, 44_001)
        gradient = np.interp(
            fine, [0, self.times["rampUpTime"], whole - self.times["rampDownTime"], whole], [0.0, 1.0, 1.0, 0.0]
        )
        area = np.cumsum(gradient) * fine[1]
        self.area = np.interp(delay + dwell * (np.arange(self.samples) + 0.5), fine, area)
        first, last = np.interp([delay, delay + dwell * self.samples], fine, area)
        self.area = self.area * 2 * PIXELS / (last - first)

    def header(self, nz: int = 1) -> Any:
        fov = (4.0 * PIXELS, 2.0 * NY, 2.0 * nz)
        made = header(2 * PIXELS, nz, fov=fov, recon=(PIXELS, NY, nz), recon_fov=(2.0 * PIXELS, *fov[1:]))
        return described(made, **self.times)

    def lines(self, images: Any, ys: Any = None, *, reverse: bool = False, **options: Any) -> Lines:
        """Lines of images (coil, z, y, x); reversed ones as the scanner sends them, with the centre mirrored."""
        centre = self.samples // 2
        places = self.area - self.area[centre]
        places = -places if reverse else places  # the gradient has the other sign
        x = np.arange(PIXELS) - PIXELS // 2
        encode = np.exp(-2j * np.pi * np.outer(x, places) / (2 * PIXELS)) / np.sqrt(2 * PIXELS)
        space = fftc(images, axes=(-3, -2)) @ encode
        made = synthetic.lines(space, ys, centre=centre, **options)
        if reverse:
            made.headers["flags"] |= np.uint64(1 << (Flag.IS_REVERSE - 1))
        return made


def images(seed: int, nz: int = 1) -> Any:
    return synthetic.coil_images(np.random.default_rng(seed), COILS, NY, PIXELS, nz)


class TestRamps:
    @pytest.mark.parametrize(
        "times",
        [
            {},
            {"acqDelayTime": 0},
            {"rampUpTime": 60, "rampDownTime": 130},
            {"dwellTime": 2.5},
            {"flatTopTime": 0, "dwellTime": 2.5},
            {"acqDelayTime": 50, "numSamples": 72},  # the end of the ramp down is not sampled
        ],
    )
    @pytest.mark.parametrize("nz", [1, NZ])
    def test_lines_are_regridded(self, times: dict[str, float], nz: int) -> None:
        scanner, object_ = OnRamps(**times), images(11, nz)
        frame = only([scanner.lines(object_)], scanner.header(nz))
        (expected,) = sort([synthetic.lines(synthetic.to_kspace(object_))], header(PIXELS, nz))
        np.testing.assert_allclose(frame.raw.kspace, expected.raw.kspace, atol=2e-3 * np.abs(expected.raw.kspace).max())
        assert frame.raw.mask.all()
        assert not frame.notes

    @pytest.mark.parametrize("how", ["auto", "kept", "mirrored"])
    def test_reversed_lines_and_navigators(self, how: str) -> None:
        """The window of samples is not in the middle of the gradient: lines of both directions lie at other places.

        What is taken for the centre of reversed lines shifts them, and the navigators bring them back. The object has
        nothing at the ends of k-space, which each direction samples at one side only."""
        scanner, space = OnRamps(acqDelayTime=50, numSamples=72), fftc(images(12), axes=(-1,))
        space[..., [0, 1, -2, -1]] = 0
        object_ = ifftc(space, axes=(-1,))
        turned = object_ * np.exp(1j * CONSTANT)
        blocks = [scanner.lines(object_, range(0, NY, 2)), scanner.lines(turned, range(1, NY, 2), reverse=True)]
        for n, direction in enumerate("+-+"):
            one = {"flags": [Flag.IS_PHASECORR_DATA], "first_counter": n, "reverse": direction == "-"}
            blocks.insert(n, scanner.lines(turned if direction == "-" else object_, [NY // 2], **one))
        (frame,) = sort(blocks, scanner.header(), reversed_centre=how)
        assert frame.history == ("regridding along the readout", "epi phase correction")
        found, expected = np.abs(ifftc(frame.raw.kspace[0, 0])), np.abs(object_[:, 0])
        np.testing.assert_allclose(found, expected, atol=4e-3 * expected.max())

    def test_an_object_beyond_the_field_of_view_does_not_fold_in(self) -> None:
        """Pixels beyond the field of view of the images, which the encoded one holds."""
        scanner = OnRamps(dwellTime=2.5)
        wide = np.zeros((COILS, 1, NY, 2 * PIXELS), np.complex64)
        wide[..., PIXELS // 2 : -PIXELS // 2] = images(13)
        wide[..., 6] = 3
        x = np.arange(2 * PIXELS) - PIXELS
        places = scanner.area - scanner.area[scanner.samples // 2]
        encode = np.exp(-2j * np.pi * np.outer(x, places) / (2 * PIXELS)) / np.sqrt(2 * PIXELS)
        block = synthetic.lines(fftc(wide, axes=(-3, -2)) @ encode, centre=scanner.samples // 2)
        frame = only([block], scanner.header())
        (expected,) = sort([synthetic.lines(synthetic.to_kspace(images(13)))], header(PIXELS))
        np.testing.assert_allclose(frame.raw.kspace, expected.raw.kspace, atol=2e-2 * np.abs(expected.raw.kspace).max())

    @pytest.mark.parametrize("reverse", [False, True])
    def test_an_offset_along_the_readout(self, reverse: bool) -> None:
        """A Siemens receiver shifts the field of view by a frequency, as if the gradient were constant."""
        scanner, object_ = OnRamps(), images(16)
        made = scanner.header()
        made.acquisitionSystemInformation.systemVendor = "SIEMENS"
        block = scanner.lines(object_, reverse=reverse)
        centre = scanner.samples // 2
        places = (scanner.area - scanner.area[centre]) * (-1 if reverse else 1)
        steady = np.abs(np.diff(places)).max() * (np.arange(scanner.samples) - centre) * (-1 if reverse else 1)
        offset = 9.0
        block.headers["position"] = (offset, 0.0, 0.0)
        turn = np.exp(2j * np.pi * offset / (4.0 * PIXELS) * (places - steady)).astype(np.complex64)
        block = replace(block, data=block.data * turn)
        frame = next(iter(sort([block], made, reversed_centre="mirrored")))
        (expected,) = sort([synthetic.lines(synthetic.to_kspace(object_))], header(PIXELS))
        np.testing.assert_allclose(frame.raw.kspace, expected.raw.kspace, atol=2e-3 * np.abs(expected.raw.kspace).max())

    def test_noise_after_regridding(self) -> None:
        scanner, rng = OnRamps(), np.random.default_rng(14)
        noise = (rng.standard_normal((2, 40 * COILS, 1, NY, scanner.samples)) * 0.5**0.5).view()
        blocks = [
            synthetic.lines(part[0] + 1j * part[1], centre=scanner.samples // 2) for part in np.split(noise, 40, axis=1)
        ]
        frames = [only([block], scanner.header()) for block in blocks]
        measured = np.mean([np.mean(np.abs(frame.raw.kspace) ** 2) for frame in frames])
        told = frames[0].raw.variance / 2  # of lines whose dwell time is known, and that were whitened, it is 2
        assert measured == pytest.approx(told, rel=0.05)

    @pytest.mark.parametrize(
        ("times", "words"),
        [
            ({"acqDelayTime": 0, "numSamples": 100, "rampDownTime": 10}, "does not tell where they lie"),
            ({"rampDownTime": -1, "numSamples": 76}, "does not tell where they lie"),
            ({"numSamples": 60, "acqDelayTime": 30}, "has 76 samples, and .* says that 60 were taken"),
            (
                {"dwellTime": 38.0, "numSamples": 10},
                r"can tell \d+ pixels of 48 .* the images have 24",
            ),
        ],
    )
    def test_what_cannot_be_regridded_is_refused(self, times: dict[str, float], words: str) -> None:
        block = OnRamps(**({} if times.get("dwellTime", 5.0) == 5.0 else times)).lines(images(15))
        made = described(OnRamps().header(), **(TIMES | times))
        with pytest.raises(InputError, match=words):
            only([block], made)

    def test_samples_on_the_flat_top_are_on_the_grid(self) -> None:
        made, space = header(), kspace(1)
        made = described(made, **(TIMES | {"acqDelayTime": 100, "numSamples": NX, "dwellTime": 10.0}))
        frame = only([*navigators(space), *train(space)], made)
        np.testing.assert_allclose(frame.raw.kspace[0, 0], space[:, 0], atol=2e-4)

    def test_told_by_the_trajectory_of_the_lines(self) -> None:
        block = train(kspace(1))[0]
        path = np.linspace(-0.5, 0.5, NX, dtype=np.float32) * np.ones((len(block), 1), np.float32)
        even = with_data(block, block.data, path[..., None])
        assert only([even], header()).raw.mask.any()
        uneven = replace(even, trajectory=np.sin(path * 3)[..., None])
        with pytest.raises(InputError, match="acquisition 0 of an epi scan has samples that are not evenly spaced"):
            only([uneven], header())
