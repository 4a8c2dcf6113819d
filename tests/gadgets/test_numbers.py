import itertools

import ismrmrd
import pytest

from gadgets.numbers import Numbers
from tests.gadgets import synthetic


def header(**counts):
    limits = {name: (0, count - 1, 0) for name, count in counts.items()}
    return synthetic.header(synthetic.encoding((8, 8, 1), limits=limits))


def numbers(counters, header, partitions=1):
    given = Numbers()
    heads = [ismrmrd.ImageHeader(**dict(one)) for one in counters]
    return [given.of(head, header, 0, partitions) for head in heads]


def test_slices_count_whatever_their_order():
    sent = [{"slice": n} for n in (1, 3, 0, 2)]
    assert numbers(sent, header(slice=4)) == [2, 4, 1, 3]


def test_contrasts_count_more_slowly_than_slices():
    """As Gadgetron's own chain gives them: slice 0 of four echoes gets 1, 3, 5 and 7."""
    sent = [{"slice": s, "contrast": c} for s in range(2) for c in range(4)]
    assert numbers(sent, header(slice=2, contrast=4)) == [1, 3, 5, 7, 2, 4, 6, 8]


def test_every_counter_counts():
    names = ("average", "repetition", "set", "phase", "contrast", "slice")
    counts = dict(zip(names, (1, 2, 2, 3, 2, 3), strict=True))
    sent = [dict(zip(names, one, strict=True)) for one in itertools.product(*map(range, counts.values()))]
    assert numbers(sent, header(**counts)) == list(range(1, len(sent) + 1))


def test_a_volume_counts_its_partitions():
    assert numbers([{"contrast": c} for c in range(3)], header(contrast=3), partitions=10) == [1, 11, 21]


@pytest.mark.parametrize("limits", [{}, {"slice": 2}, None])
def test_where_limits_are_wrong_or_missing_every_image_has_a_number_of_its_own(limits):
    made = synthetic.header(synthetic.encoding((8, 8, 1), all_limits=False)) if limits is None else header(**limits)
    sent = [{"slice": s, "contrast": c} for c in range(3) for s in range(4)]
    found = numbers(sent, made)
    assert sorted(found) == list(range(1, 13))


def test_numbers_fit_into_16_bits():
    found = numbers([{"repetition": n} for n in (65534, 65535, 1)], header(repetition=65536))
    assert found[0] == 65535
    assert all(1 <= number <= 65535 for number in found)
