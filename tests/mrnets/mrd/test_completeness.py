"""The rule on what a scan lacks, and each of its exceptions."""

import pytest

from mrnets.mrd.completeness import Arrivals
from mrnets.mrd.images import Key
from mrnets.mrd.limits import announced
from tests.gadgets import synthetic


def header(**maxima):
    """A header that announces counters from 0 to these."""
    limits = {name: (0, last, 0) for name, last in maxima.items()}
    return synthetic.header(synthetic.encoding((16, 12, 1), limits=limits))


def lacks(announced, images, *, repeats=1, contrasts=(0,)):
    """The missing parts of images, (counters, samples) each."""
    arrivals = Arrivals()
    for counters, samples in images:
        key = Key(**{"repetition": 0, "set": 0, "phase": 0, "slice": 0, "encoding": 0, **counters})
        arrivals.add(key, list(contrasts), samples, calibrated=True, repeats=repeats)
    return arrivals.lacks(announced)


def series(name, values, samples=100):
    return [({name: value}, samples) for value in values]


@pytest.mark.parametrize("name", ["slice", "phase", "set", "repetition"])
def test_a_value_that_did_not_come(name):
    assert lacks(header(**{name: 3}), series(name, range(4))) == []
    for came, absent in (([0, 1], "2 to 3"), ([0], "1 to 3"), ([0, 2], "1, 3")):
        (words,) = lacks(header(**{name: 3}), series(name, came))
        assert words == f"{name} {absent} did not come, and 0 to 3 are announced"


def test_a_contrast_that_did_not_come():
    assert lacks(header(contrast=2), series("slice", [0]), contrasts=[0, 1, 2]) == []
    (words,) = lacks(header(contrast=2), series("slice", [0]), contrasts=[0, 1])
    assert words == "contrast 2 did not come, and 0 to 2 are announced"


def test_many_values_are_counted():
    (words,) = lacks(header(slice=40), series("slice", range(0, 41, 2)))
    assert words == "slice 1, 3, 5, 7, 9, 11, 13, 15 and 12 more did not come, and 0 to 40 are announced"


def test_a_label_that_the_converter_did_not_set_lacks_nothing():
    """Three echoes without their label: each line came three times."""
    assert lacks(header(contrast=2), series("slice", [0]), repeats=3) == []
    assert lacks(header(contrast=2), series("slice", [0]), repeats=2) != []


@pytest.mark.parametrize("name", ["average", "segment"])
def test_averages_and_segments_say_nothing(name):
    assert lacks(header(**{name: 12}), series("slice", [0])) == []


def test_more_than_was_announced_lacks_nothing():
    assert lacks(header(repetition=0), series("repetition", range(5))) == []


def test_without_limits_nothing_is_lacking():
    bare = synthetic.header(synthetic.encoding((16, 12, 1), all_limits=False))
    assert lacks(bare, series("slice", [3])) == []


def test_the_last_repetition_of_a_scan_that_was_stopped():
    whole = [({"slice": s, "repetition": r}, 100) for r in range(2) for s in range(3)]
    assert lacks(header(), whole) == []
    assert lacks(header(), whole[:-1]) == ["repetition 1 lacks 1 images that repetition 0 has"]
    first_is_larger = [({"slice": s}, 100) for s in range(4)] + [({"slice": 0, "repetition": r}, 100) for r in (1, 2)]
    assert lacks(header(), first_is_larger) == [], "a first repetition of its own is by design"


def test_an_image_with_fewer_samples_than_the_others():
    (words,) = lacks(header(), [*series("slice", range(3)), ({"slice": 3}, 70)])
    assert words.startswith("1 of 4 images have fewer samples than the others (")
    assert "slice 3" in words
    assert lacks(header(), [({"slice": n}, 90 + n) for n in range(6)]) == [], "random sampling varies by design"


def test_a_space_without_images_lacks_nothing():
    two = synthetic.header(
        synthetic.encoding((16, 12, 1)), synthetic.encoding((16, 12, 1), limits={"slice": (0, 9, 0)})
    )
    assert lacks(two, series("slice", [0])) == []


def test_an_absurd_limit_is_told_and_costs_no_memory():
    made = header(slice=2**40)
    assert announced(made.encoding[0].encodingLimits, "slice") == range(65536)
