"""One wrong field, and one wrong line, is found: it is left out, or the comment of the image says so."""

from dataclasses import replace

import numpy as np
import pytest

from gadgets.sort import sort
from gadgets.speaker import IncompleteError
from mrnets.mrd.encoding import Space
from mrnets.mrd.lines import Lines
from mrnets.mrd.plausible import beyond_field, off_pattern
from mrnets.physics import masks
from mrnets.physics.fourier import ifftc
from tests.gadgets import synthetic
from tests.gadgets.frames import SIZE, coil_maps, disc

HEADER = synthetic.header(synthetic.encoding((SIZE, SIZE, 1)))


def scan(**counters: int) -> Lines:
    """All lines of a disc under six coils, with a little noise: no line is zero by nature."""
    rng = np.random.default_rng(7)
    noise = rng.standard_normal((2, 6, 1, SIZE, SIZE))
    kspace = synthetic.to_kspace((coil_maps() * disc())[:, None]) + 1e-3 * (noise[0] + 1j * noise[1])
    return synthetic.lines(kspace.astype(np.complex64), **counters)


def with_headers(lines: Lines, field: str, values, which=slice(None)) -> Lines:
    headers = lines.headers.copy()
    (headers["idx"] if field in headers["idx"].dtype.names else headers)[field][which] = values
    return replace(lines, headers=headers)


def with_line(lines: Lines, n: int, factor: float) -> Lines:
    data = lines.data.copy()
    data[n] *= factor
    return replace(lines, data=data)


def notes(*stream: Lines, header=HEADER, **options) -> tuple[str, ...]:
    return tuple(note for frame in sort(stream, header, **options) for note in frame.notes)


def test_a_scan_in_order_has_no_notes():
    assert notes(scan()) == ()


@pytest.mark.parametrize("n", [0, 3, SIZE // 2, SIZE - 1])
def test_lines_that_are_zero_are_left_out(n):
    (frame,) = sort([with_line(scan(), n, 0.0)], HEADER)
    assert frame.notes == ("1 lines are all zero and were left out",)
    assert np.flatnonzero(~np.asarray(frame.raw.mask[0, 0, 0]).all(axis=1)).tolist() == [n]


def test_an_image_of_zeros_is_lacking_and_the_others_come():
    zero = replace(scan(slice=1), data=0 * scan().data)
    made = sort([scan(slice=0), zero, scan(slice=2)], HEADER)
    assert [int(next(made).headers[0, 0]["idx"]["slice"]) for _ in range(2)] == [0, 2]
    with pytest.raises(IncompleteError, match="all lines of repetition 0, set 0, phase 0, slice 1 are zero"):
        next(made)


@pytest.mark.parametrize("n", [0, 5, SIZE // 2, SIZE // 2 + 3, SIZE - 1])
def test_one_line_a_thousand_times_too_strong(n):
    expected = f"line {n} is much stronger than the lines beside it; it may be damaged"
    assert expected in notes(with_line(scan(), n, 1000.0))


def test_lines_differ_by_nature_at_the_centre_of_undersampled_scans():
    for spacing in (2, 4, 8):
        lines = scan()
        which = np.arange(0, SIZE, spacing)
        assert notes(Lines(lines.headers[which], lines.data[which])) == ()


@pytest.mark.parametrize("factor", [1.0, 1.02, 3.0])
def test_the_same_line_twice_with_other_samples(factor):
    """The number is that of the image: half of the difference, relative to all of k-space."""
    lines, n = scan(), SIZE // 2
    again = Lines(lines.headers[n : n + 1], factor * lines.data[n : n + 1])
    plain, differ = notes(lines, again)
    assert plain == "lines that came twice with the same counters were averaged"
    mean = lines.data.copy()
    mean[n] *= (1 + factor) / 2
    expected = np.linalg.norm(mean[n] - lines.data[n]) / np.linalg.norm(mean)
    assert differ.startswith("the lines that came twice differ by ")
    assert float(differ.split()[-5]) == pytest.approx(100 * expected, rel=0.06, abs=1e-3)


def test_averages_that_nothing_announces():
    one, two = scan(), with_headers(scan(), "average", 1)
    assert notes(one, two) == ("2 averages came, and the header announces 1",)
    announced = synthetic.header(synthetic.encoding((SIZE, SIZE, 1), limits={"average": (0, 1, 0)}))
    assert notes(one, two, header=announced) == ()


def test_averages_that_differ_by_more_than_noise():
    announced = synthetic.header(synthetic.encoding((SIZE, SIZE, 1), limits={"average": (0, 1, 0)}))
    lines = scan()
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((2, *lines.data.shape)).astype(np.float32)
    moved = with_headers(replace(lines, data=lines.data + noise[0] + 1j * noise[1]), "average", 1)
    assert notes(lines, moved, header=announced, whitened=True) == ()
    moved = replace(moved, data=np.roll(lines.data, 2, axis=0) * 100)
    (note,) = notes(lines, moved, header=announced, whitened=True)
    assert note.startswith("averages of the same line differ by ")


def test_dwell_times_that_differ():
    lines = with_headers(scan(), "sample_time_us", 2.4, [3])
    assert notes(lines) == ("the dwell times of its lines differ, from 2.4 to 5 µs",)


def test_a_dwell_time_that_some_lines_lack_is_told():
    """Whitening scales lines by it, and those without it are not scaled."""
    lines = with_headers(scan(), "sample_time_us", 0.0, slice(None, None, 2))
    assert notes(lines) == ("the dwell times of its lines differ, from 0 to 5 µs",)
    assert notes(with_headers(scan(), "sample_time_us", 0.0)) == (), "the header does not say"


@pytest.mark.parametrize("dwell", [5e-6, 5000.0])
def test_dwell_times_that_are_absurd(dwell):
    (note,) = notes(with_headers(scan(), "sample_time_us", dwell))
    assert note == f"the dwell time of its lines is {dwell:g} µs, which is absurd"


def test_counters_beyond_the_limits():
    announced = synthetic.header(synthetic.encoding((SIZE, SIZE, 1), limits={"repetition": (0, 1, 0)}))
    stream = [scan(repetition=n) for n in range(3)]
    assert notes(*stream, header=announced) == ("repetition 2 came, and 0 to 1 are announced",)
    assert notes(*stream) == (), "converters fill limits with 0"


@pytest.mark.parametrize(
    ("limits", "te", "last"),
    [
        ({}, (), None),
        ({"contrast": (0, 0, 0)}, (), None),
        ({"contrast": (0, 0, 0)}, (2.0,), 0),
        ({"contrast": (0, 1, 0)}, (), 1),
        ({"contrast": (0, 1, 0)}, (2.0,), 1),
        ({"contrast": (0, 0, 0)}, (2.0, 4.0), 1),
        ({"contrast": (0, 0, 0)}, (2.0, 4.0, 6.0), None),
    ],
)
def test_contrasts_beyond_the_limits_and_the_echo_times(limits, te, last):
    announced = synthetic.header(synthetic.encoding((SIZE, SIZE, 1), limits=limits), te=te)
    stream = [scan(contrast=n) for n in range(3)]
    beyond = () if last is None else range(last + 1, 3)
    found = [note for note in notes(*stream, header=announced) if note.startswith("contrast")]
    assert found == [f"contrast {n} came, and 0 to {last} are announced" for n in beyond]


@pytest.mark.parametrize("n", range(0, SIZE, 3))
def test_a_line_with_less_than_the_noise_is_told(n):
    """Also at the centre, where lines differ much by nature. Beyond it, what a weak line lacks is not seen."""
    found = notes(with_line(scan(), n, 1e-3))
    expected = f"line {n} is much weaker than the lines beside it; it may be damaged"
    assert found == ((expected,) if abs(n - SIZE // 2) < SIZE // 4 else found)


@pytest.mark.parametrize(("wanted", "told"), [(600.0, True), (500.0, False), (17.0, False), (16.0, True)])
def test_images_of_another_field_of_view_are_told(wanted, told):
    encoded, images = (Space((32, 32, 1), (256.0, y, 5.0)) for y in (256.0, wanted))
    words = f"the images are to show {wanted:g} mm along y, and 256 mm were encoded"
    assert list(beyond_field(encoded, images)) == ([words] if told else [])


@pytest.mark.parametrize(("samples", "fov", "told"), [(64, 256.0, True), (64, 512.0, False), (48, 256.0, False)])
def test_an_oversampled_readout_of_the_images_field_of_view_is_told(samples, fov, told):
    encoded, images = Space((samples, 32, 1), (fov, 256.0, 5.0)), Space((32, 32, 1), (256.0, 256.0, 5.0))
    found = list(beyond_field(encoded, images))
    assert [note.startswith("the header encodes 64 samples along x over the same 256 mm") for note in found] == told * [
        True
    ]


SIDE = 48
BLOCK = range(SIDE // 2 - 6, SIDE // 2 + 6)


def pattern(step: int, start: int = 0) -> np.ndarray:
    """How many lines each place (z, y) got: one in `step`, and a full block around the centre."""
    counts = np.zeros((1, SIDE), np.int32)
    counts[0, start::step] = 1
    counts[0, BLOCK] = 1
    return counts


@pytest.mark.parametrize("announced", [1, 2, 3, 4])
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_regular_patterns_have_no_notes(step, announced):
    for start in range(step):
        counts = pattern(step, start)
        assert list(off_pattern(counts, announced)) == []
        counts[0, : SIDE // 5] = 0  # partial Fourier
        assert list(off_pattern(counts, announced)) == []


@pytest.mark.parametrize("step", [2, 3, 4])
def test_a_line_with_another_counter_is_told(step):
    """A line that comes to lie at the border of the block makes a larger block, so that only its gap is seen."""
    there = np.flatnonzero(pattern(step))
    for source in there[(there > 0) & (there < SIDE - step) & ~np.isin(there, BLOCK)]:
        for target in set(range(step, SIDE - step)) - {*there, *range(BLOCK[0] - 2, BLOCK[-1] + 3)}:
            counts = pattern(step)
            counts[0, source], counts[0, target] = 0, 1
            told = " ".join(off_pattern(counts, step))
            assert f"line {target} came, and is not in the regular pattern of the others (one line in {step})" in told
            assert f"line {source} did not come" in told


def test_a_hole_in_a_fully_sampled_scan_is_told():
    counts = np.ones((1, 96), np.int32)
    counts[0, 20] = 0
    assert list(off_pattern(counts, 1)) == [
        "line 20 did not come, and is in the regular pattern of the others (all lines)"
    ]


def test_a_plane_of_a_volume_that_differs_from_the_others_is_told():
    counts = np.repeat(pattern(2), 12, axis=0)
    counts[5, 4], counts[5, 7] = 0, 1
    assert list(off_pattern(counts, 1)) == [], "nothing announces the pattern"
    assert list(off_pattern(counts, 2)) == [
        "line 7 of partition 5 came, and is not in the regular pattern of the others (one line in 2)",
        "line 4 of partition 5 did not come, and is in the regular pattern of the others (one line in 2)",
    ]


@pytest.mark.parametrize("name", masks.names())
def test_no_mask_is_taken_for_a_damaged_pattern(name):
    kind, rng = masks.kind(name), np.random.default_rng(11)
    for size in (48, 64):
        for acceleration in (2, 3, 4):
            drawn = kind.draw((size, size if kind.axes == 2 else 1), acceleration, rng, centre=8)
            counts = (drawn if kind.axes == 2 else drawn.T).astype(np.int32)
            assert list(off_pattern(counts, acceleration if kind.by_distance else 1)) == []


def test_what_is_left_in_is_what_it_was():
    (frame,) = sort([scan()], HEADER)
    expected = (coil_maps() * disc())[:, None]
    np.testing.assert_allclose(ifftc(np.asarray(frame.raw.kspace))[0, 0], expected[:, 0], atol=0.02)
