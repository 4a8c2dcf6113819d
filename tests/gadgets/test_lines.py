import ctypes
import itertools

import ismrmrd
import ismrmrd.constants
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrnets.errors import InputError
from mrnets.mrd import lines as lines_module
from mrnets.mrd.flags import Flag, has_flag
from mrnets.mrd.lines import ACQUISITION_HEADER, Batch, Line, Lines, coalesce, with_data
from tests.gadgets import toys
from tests.gadgets.toys import from_acquisitions, to_acquisitions


def test_the_header_is_laid_out_as_ismrmrd_lays_it_out():
    assert ACQUISITION_HEADER.itemsize == ctypes.sizeof(ismrmrd.AcquisitionHeader) == 340
    for name, _ in ismrmrd.AcquisitionHeader._fields_:
        assert ACQUISITION_HEADER.fields[name][1] == getattr(ismrmrd.AcquisitionHeader, name).offset


def test_flags_are_ismrmrds():
    for flag in Flag:
        assert getattr(ismrmrd.constants, f"ACQ_{flag.name}") == flag


def test_has_flag_is_true_for_any_of_several():
    headers = np.zeros(3, ACQUISITION_HEADER)
    headers["flags"] = [0, 1 << 18, 1 << 7 | 1 << 63]
    assert has_flag(headers, Flag.IS_NOISE_MEASUREMENT).tolist() == [False, True, False]
    assert has_flag(headers, Flag.IS_NOISE_MEASUREMENT, Flag.LAST_IN_SLICE).tolist() == [False, True, True]


def sizes(acquisitions):
    return [len(run) for run in from_acquisitions(acquisitions)]


def test_a_run_ends_after_the_last_line_of_slice_repetition_or_measurement():
    for flag in (Flag.LAST_IN_SLICE, Flag.LAST_IN_REPETITION, Flag.LAST_IN_MEASUREMENT):
        assert sizes([*toys.acquisitions(3, flags=(flag,)), *toys.acquisitions(2)]) == [3, 2]
    assert sizes([*toys.acquisitions(3, flags=(Flag.LAST_IN_SEGMENT,)), *toys.acquisitions(2)]) == [5]


def test_a_run_ends_after_the_first_line_of_a_later_repetition_of_its_slice():
    def counted(*places):
        for (slice_, repetition), one in zip(places, toys.acquisitions(len(places)), strict=True):
            one.idx.slice, one.idx.repetition = slice_, repetition
            yield one

    assert sizes(counted((0, 0), (0, 0), (0, 1), (0, 1), (0, 2))) == [3, 2]
    assert sizes(counted((0, 0), (1, 0), (0, 1), (1, 1), (0, 1), (1, 1))) == [3, 1, 2]
    assert sizes(counted((0, 3), (0, 2), (0, 3), (0, 3))) == [4]


@pytest.mark.parametrize(
    "change", [{"coils": 3}, {"samples": 8}, {"encoding_space_ref": 1}, {"flags": (Flag.IS_NOISE_MEASUREMENT,)}]
)
def test_a_run_ends_before_another_shape_encoding_or_kind(change):
    assert sizes([*toys.acquisitions(3), *toys.acquisitions(1, **change), *toys.acquisitions(2)]) == [3, 1, 2]


def test_a_run_has_at_most_256_lines_and_4_mebibytes():
    assert sizes(toys.acquisitions(300, coils=1, samples=2)) == [256, 44]
    raw = toys.lines(1, coils=3, samples=65535).headers.tobytes()  # 1.5 MiB a line
    assert [len(run) for run in coalesce(Line(raw, lambda data, path: None) for _ in range(5))] == [2, 2, 1]


def test_other_items_pass_in_order_and_end_a_run():
    stream = [*toys.acquisitions(2), "text", *toys.acquisitions(1)]
    first, text, last = from_acquisitions(stream)
    assert (len(first), text, len(last)) == (2, "text", 1)


def test_a_source_that_fails_loses_no_error_and_gives_no_short_run():
    def failing():
        yield from toys.acquisitions(2)
        raise OSError("gone")

    stream = from_acquisitions(failing())
    with pytest.raises(OSError, match="gone"):
        next(stream)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([1, 2]), st.sampled_from([0, 7, 8, 14, 19, 25])), max_size=6)
)
def test_runs_hold_every_acquisition_once_and_in_order(parts):
    acquisitions = [
        a
        for seed, (count, coils, flag) in enumerate(parts)
        for a in toys.acquisitions(count, coils, 4, flags=(flag,) if flag else (), seed=seed)
    ]
    back = [a for run in from_acquisitions(acquisitions) for a in to_acquisitions(run)]
    assert back == acquisitions


@st.composite
def headers_of_lines(draw):
    """Headers that change now and then in what ends a run."""
    found = np.zeros(draw(st.integers(1, 30)), ACQUISITION_HEADER)
    names = ("active_channels", "number_of_samples", "trajectory_dimensions", "encoding_space_ref")
    for header in found:
        for name in names:
            header[name] = draw(st.sampled_from([1, 1, 1, 1, 2]))
        for name in ("slice", "phase", "set"):
            header["idx"][name] = draw(st.sampled_from([0, 0, 0, 1]))
        header["idx"]["repetition"] = draw(st.integers(0, 3))
        flag = draw(st.sampled_from([0, 0, 0, 0, 1 << 18, 1 << 18 | 1 << 7, 1 << 7, 1 << 13, 1 << 24, 1 << 16]))
        header["flags"] = flag
    found["scan_counter"] = np.arange(len(found))
    return found


@settings(deadline=None, max_examples=200)
@given(headers_of_lines(), st.lists(st.integers(0, 29), max_size=3), st.sampled_from([3, 256]))
def test_batches_of_lines_make_the_runs_that_single_lines_make(headers, cuts, most):
    """The first repetition of a slice, flags, shapes and the room of a run end runs in both."""

    def fill(first, data, trajectory):
        for n, (samples, path) in enumerate(zip(data, trajectory, strict=True), first):
            samples[...], path[...] = n, -n

    def one(n):
        return Line(headers[n].tobytes(), lambda *arrays: fill(n, *(array[None] for array in arrays)))

    whole, edges = Batch(headers, fill), sorted({0, len(headers), *(cut for cut in cuts if cut < len(headers))})
    batches = [whole.part(start, stop) for start, stop in itertools.pairwise(edges)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "MAX_LINES", most)
        found, expected = list(coalesce(batches)), list(coalesce(map(one, range(len(headers)))))
    assert toys.blob(found) == toys.blob(expected)
    assert [len(run) for run in found] == [len(run) for run in expected]
    mixed = [batches[0], *map(one, range(edges[1], len(headers)))]
    assert toys.blob(coalesce(mixed)) == toys.blob(coalesce(map(one, range(len(headers)))))


def test_a_run_of_a_batch_is_there_before_the_next_line_is_read():
    read = []
    headers = toys.lines(5).headers
    headers["flags"][1] = 1 << (Flag.LAST_IN_SLICE - 1)
    stream = coalesce([Batch(headers, lambda first, data, path: read.extend(range(first, first + len(data))))])
    assert len(next(stream)) == 2
    assert read == [0, 1]


def test_trajectories_come_and_go_with_their_lines():
    run = toys.lines(3, dimensions=2)
    (back,) = from_acquisitions(to_acquisitions(run))
    np.testing.assert_array_equal(back.trajectory, run.trajectory)
    np.testing.assert_array_equal(back.headers, run.headers)


def test_a_line_of_absurd_size_is_refused_before_memory_is_taken():
    for coils, samples in ((2000, 1), (1024, 65535)):
        raw = toys.lines(1, coils=1, samples=1).headers
        raw["active_channels"], raw["number_of_samples"] = coils, samples
        with pytest.raises(InputError, match=f"{coils} coils of {samples} samples"):
            list(coalesce([Line(raw.tobytes(), lambda data, path: None)]))


def test_lines_whose_headers_and_arrays_disagree_cannot_be_made():
    run = toys.lines(3, coils=4)
    with pytest.raises(ValueError, match="active_channels"):
        Lines(run.headers, run.data[:, :2])


def test_with_data_keeps_headers_and_arrays_in_step():
    run = toys.lines(3, coils=4, samples=6, dimensions=2)
    fewer = with_data(run, run.data[:, :2])
    assert fewer.headers["active_channels"].tolist() == [2, 2, 2]
    assert fewer.trajectory is run.trajectory
    shorter = with_data(run, run.data[..., :3])
    assert shorter.headers["number_of_samples"].tolist() == [3, 3, 3]
    assert shorter.trajectory is None
    assert shorter.headers["trajectory_dimensions"].tolist() == [0, 0, 0]
    assert run.headers["number_of_samples"].tolist() == [6, 6, 6]
