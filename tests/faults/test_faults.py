"""Seeded faults in each host: no wrong image without a word, no hang, no traceback, no crash."""

import itertools
from collections import Counter

import pytest

from tests.faults.hosts import HOSTS
from tests.faults.judge import BAD
from tests.faults.work import kind_of, run


def numbers(host):
    """The numbers of the cases in a host, without end."""
    return (n for n in itertools.count() if kind_of(n).host == host)


def require_no_bad(host, count, seed):
    cases = list(run(itertools.islice(numbers(host), count), seed))
    assert len(cases) == count
    assert [case for case in cases if case.verdict in BAD] == []
    verdicts = Counter(case.verdict for case in cases)
    assert verdicts["refused"] > count / 4  # the harness reaches the hosts, and the judge tells classes apart
    assert verdicts["right"] > count / 20
    assert verdicts["marked"] > 0


@pytest.mark.parametrize("host", HOSTS)
def test_no_fault_is_silent(host):
    require_no_bad(host, 500, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("host", HOSTS)
def test_no_fault_of_many_is_silent(host):
    require_no_bad(host, 2500, seed=2)
