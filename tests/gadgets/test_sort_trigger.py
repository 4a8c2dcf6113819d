"""When slices are finished, and scans that end early."""

from __future__ import annotations

import ismrmrd
import numpy as np
import pytest

from gadgets.frame import Frame
from gadgets.sort import sort
from gadgets.speaker import IncompleteError
from mrnets.errors import InputError
from mrnets.mrd.flags import Flag
from mrnets.mrd.lines import take
from tests.gadgets import synthetic
from tests.gadgets.sorting import NX, NY, counted, frames, images, plain


class TestTrigger:
    """When slices are finished: as early as is safe, and never too early."""

    def order(self, stream, header, **options):
        """Positions in the stream after which frames came, by consumption."""
        taken = []

        def counting():
            for n, item in enumerate(stream):
                taken.append(n)
                yield item

        return [(len(taken), int(f.headers["idx"]["slice"][0, 0])) for f in sort(counting(), header, **options)]

    def slices(self, rng, **options):
        kspace = synthetic.to_kspace(images(rng))
        return [synthetic.lines(kspace, slice=n, **options) for n in range(3)]

    def test_last_in_slice_finishes_at_once(self, rng):
        stream = self.slices(rng, last=[Flag.LAST_IN_SLICE])
        assert self.order(stream, plain()) == [(1, 0), (2, 1), (3, 2)]
        assert self.order(stream, plain(), trigger="repetition") == [(3, 0), (3, 1), (3, 2)]

    def test_last_in_repetition_finishes_all_slices(self, rng):
        stream = self.slices(rng)
        stream[2].headers["flags"][-1] |= np.uint64(1 << (Flag.LAST_IN_REPETITION - 1))
        taken = list(sort([*stream, ismrmrd.Waveform()], plain()))
        assert [type(item).__name__ for item in taken] == ["Frame"] * 3 + ["Waveform"]

    def test_a_later_repetition_finishes_the_earlier_slice_by_slice(self, rng):
        stream = self.slices(rng) + self.slices(rng, repetition=1)
        assert self.order(stream, plain()) == [(4, 0), (5, 1), (6, 2), (6, 0), (6, 1), (6, 2)]
        assert self.order(stream, plain(), trigger="measurement") == [(6, n) for n in (0, 1, 2, 0, 1, 2)]

    @pytest.mark.parametrize("counter", ["average", "contrast", "segment"])
    def test_flags_of_all_but_the_last_count_are_not_believed(self, rng, counter):
        kspace = synthetic.to_kspace(images(rng))
        last = [Flag.LAST_IN_SLICE, Flag.LAST_IN_REPETITION]
        stream = [synthetic.lines(kspace, last=last, **{counter: n}) for n in range(2)]
        assert self.order(stream, counted(**{counter: 1})) == [(2, 0)]

    def test_flags_are_not_believed_without_limits(self, rng):
        stream = self.slices(rng, last=[Flag.LAST_IN_SLICE])
        assert self.order(stream, plain(all_limits=False)) == [(3, 0), (3, 1), (3, 2)]

    def test_lines_that_come_too_late_are_an_error(self, rng):
        late = self.slices(rng, last=[Flag.LAST_IN_SLICE], first_counter=7)[0]
        with pytest.raises(InputError, match=r"acquisition 7 belongs to .*slice 0.* set sort.trigger"):
            list(sort([late, late], plain()))

    def test_a_few_lines_that_come_too_late_cost_no_image(self, rng, caplog):
        """As one line whose slice counter is damaged. The scan ends with an error all the same."""
        stream = self.slices(rng, last=[Flag.LAST_IN_SLICE])
        late = take(stream[0], np.arange(3))
        late.headers["scan_counter"] = [40, 41, 42]
        found = frames([stream[0], late, *stream[1:]], plain(), incomplete="warn")
        assert [int(frame.headers[0, 0]["idx"]["slice"]) for frame in found] == [0, 1, 2]
        assert "3 lines came too late and were left out; the first: acquisition 40 belongs to" in caplog.text
        given = sort([stream[0], late, *stream[1:]], plain())
        assert len([next(given) for _ in range(3)]) == 3
        with pytest.raises(IncompleteError, match=r"3 lines came too late .* sort.incomplete to warn if that is right"):
            next(given)


class TestCutShort:
    def test_nothing_is_said_of_whole_scans(self, rng):
        kspace = synthetic.to_kspace(images(rng))
        stream = [
            synthetic.lines(kspace, [0, 2, 4, 5, 6, 7, 8, 10], repetition=0),
            synthetic.lines(kspace, range(0, NY, 2), repetition=1),
            synthetic.lines(kspace, range(1, NY, 2), repetition=2),
        ]
        assert [frame.notes for frame in frames(stream, plain(mode="embedded"))] == [(), (), ()]

    def test_a_repetition_of_fewer_lines(self, rng, caplog):
        kspace = synthetic.to_kspace(images(rng))
        stream = [synthetic.lines(kspace, repetition=0), synthetic.lines(kspace, range(9), repetition=1)]
        out = frames(stream, plain(), incomplete="warn")
        assert out[0].notes == ()
        assert out[1].notes == ("cut short? 144 samples came, and 192 for an earlier image of the slice",)
        assert "repetition 1" in caplog.text

    def test_lines_that_the_header_announces(self, rng):
        kspace = synthetic.to_kspace(images(rng, y=64))
        header = synthetic.header(synthetic.encoding((NX, 64, 1)))
        (frame,) = frames([synthetic.lines(kspace, range(40))], header)
        assert frame.notes == ("cut short? lines 0 to 39 came where 0 to 63 were announced",)

    def test_contrasts(self, rng):
        stream = [synthetic.lines(synthetic.to_kspace(images(rng)))]
        (frame,) = frames(stream, counted(contrast=2), incomplete="warn")
        assert frame.notes == ("cut short? 1 of 3 contrasts came",)

    def test_a_slice_that_ended_before_its_centre_loses_no_other_slice(self, rng):
        """Slices are interleaved, and the scan is stopped while the second half of them is measured."""
        kspace = synthetic.to_kspace(images(rng, y=64))
        header = synthetic.header(synthetic.encoding((NX, 64, 1), limits={"slice": (0, 2, 0)}))
        stream = [synthetic.lines(kspace, slice=0), synthetic.lines(kspace, slice=2)]
        made = sort([*stream, synthetic.lines(kspace, range(20), slice=1)], header)
        assert [int(next(made).headers[0, 0]["idx"]["slice"]) for _ in range(2)] == [0, 2]
        with pytest.raises(InputError, match="slice 1 is cut short: it ended before the centre of its k-space"):
            next(made)

    def test_the_end_says_what_is_lacking_after_the_images(self, rng):
        """The images come before the error, which names the property that allows it."""
        stream = [synthetic.lines(synthetic.to_kspace(images(rng)))]
        made = sort(stream, counted(slice=2))
        assert isinstance(next(made), Frame)
        with pytest.raises(InputError, match="slice 1 to 2 did not come, and 0 to 2 are announced; set sort"):
            next(made)
        frames(stream, counted(slice=2), incomplete="warn")
