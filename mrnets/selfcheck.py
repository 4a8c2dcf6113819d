"""The self-check around a network: each image gets its measures of trust, and l1-wavelet's share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from mrnets.contract import Check, Estimate, Scan, Trust
from mrnets.tensors import estimate_of, joined, slices_of
from mrnets.trial import trial_of
from mrnets.trust import classical, examined, measured, mixed

__all__ = ["CHECKED", "checked"]

CHECKED = 16
"""Slices of a frame, at most, that are checked; of a volume: readout positions, evenly spaced."""


def checked(
    forward: Callable[[Scan], Estimate],
    check: Check,
    slices: int,
    simple: Callable[[Scan], Estimate] = classical,
    at_once: int = 0,
) -> Callable[[Scan], Estimate]:
    """Return the network `forward` with the trust of at most `CHECKED` of the `slices` that come, in order.

    "fallback": l1-wavelet has the share in the image that the left-out samples give it. Its share in other slices is
    that of the checked one before them. "off": `forward` as it is. Scans without sensitivities are not checked.
    simple: runs `classical`.
    at_once: slices of one run, at most. Where twice the slices are no more, the runs with and without some samples are
    one run. A device is hardly faster with one slice than with two. 0: two runs.
    """
    if check == "off":
        return forward
    step = math.ceil(slices / CHECKED)
    done = 0
    share: float | None = None

    def run(scan: Scan) -> Estimate:
        nonlocal done, share
        if scan.sens is None or scan.kspace is None:
            return forward(scan)
        size = len(scan.kspace)
        first, done = -done % step, done + size
        reference, trust = None, list[Trust]()
        if step == 1 and 2 * size <= at_once:
            estimate, reference, trust = _in_one_run(forward, scan, simple)
        else:
            estimate = forward(scan)
            if first < size:
                some = slices_of(scan, first, None, step)
                reference = simple(some)
                trust = examined(forward, some, estimate_of(estimate, slice(first, None, step)), reference, simple)
        if check == "fallback":
            shares = [share] * first + [one.share for one in trust for _ in range(step)]
            shares = shares[:size]
            share = shares[-1]
            if step > 1 and any(shares):
                reference = simple(scan)
            estimate = mixed(estimate, reference, shares)
        return dataclasses.replace(estimate, trust=tuple(trust))

    return run


def _in_one_run(
    forward: Callable[[Scan], Estimate], scan: Scan, simple: Callable[[Scan], Estimate]
) -> tuple[Estimate, Estimate, list[Trust]]:
    """Return the estimate of the network and that of l1-wavelet, and the trust of each slice."""
    trial = trial_of(scan)
    assert trial is not None, "only scans with k-space are checked"
    both = joined([scan, trial.scan])
    (estimate, without), (reference, plain) = (_halves(run(both)) for run in (forward, simple))
    return estimate, reference, measured(trial, scan, (estimate, without), (reference, plain))


def _halves(estimate: Estimate) -> tuple[Estimate, Estimate]:
    assert estimate.image is not None
    size = len(estimate.image) // 2
    return estimate_of(estimate, slice(size)), estimate_of(estimate, slice(size, None))
