"""Contrasts are taken from names only where they are sure."""

import pytest

from mrnets.contrasts import in_order, named
from mrnets.errors import InputError


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("BraTS-GLI-00005-000-t1c.nii.gz", "t1c"),
        ("BraTS-GLI-00005-000-t1n.nii.gz", "t1"),
        ("BraTS-GLI-00005-000-t2f.nii.gz", "flair"),
        ("BraTS-GLI-00005-000-t2w.nii.gz", "t2"),
        ("BraTS20_Training_001_t1ce.nii", "t1c"),
        ("sub-strokecase0001_ses-0001_adc.nii.gz", "adc"),
        ("sub-01_T1w.nii.gz", "t1"),
        ("AX T1 POST GAD", "t1c"),
        ("t1_mprage_sag +C", "t1c"),
        ("t2_tse_tra", "t2"),
        ("t2_tirm_tra_dark-fluid FLAIR", "flair"),
        ("ep2d_diff_b1000_TRACEW", "dwi"),
        ("resolve DWI ADC", "adc"),
        ("t1_c.nii", None),
        ("T1 pre contrast", None),
        ("t1_flair", None),
        ("t1_t2", None),
        ("T2*", None),
        ("t2_star_map", None),
        ("t1_map", None),
        ("flair_mask.nii.gz", None),
        ("lesion_flair", None),
        ("mprage", None),
        ("localizer", None),
        ("", None),
    ],
)
def test_names_tell_contrasts(text, name):
    assert named(text) == name


def test_an_order_has_our_names():
    assert in_order("t1c, t1n,t2f,t2w") == ("t1c", "t1", "flair", "t2")
    assert in_order(["adc", "dwi", "flair"]) == ("adc", "dwi", "flair")
    assert in_order("") == ()


@pytest.mark.parametrize(("text", "words"), [("t1, pd", "'pd' is no contrast"), ("t1, t1n", "t1 is given twice")])
def test_an_order_that_cannot_be_is_refused(text, words):
    with pytest.raises(InputError, match=words):
        in_order(text)
