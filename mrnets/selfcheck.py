"""The self-check around a network: each image gets its measures of trust, and l1-wavelet's share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from mrnets.contract import Check, Estimate, Scan, Trust
from mrnets.tensors import slices_of
from mrnets.trust import classical, examined, mixed

__all__ = ["CHECKED", "checked"]

CHECKED = 16
"""Slices of a frame, at most, that are checked; of a volume: readout positions, evenly spaced."""


def checked(
    forward: Callable[[Scan], Estimate],
    check: Check,
    slices: int,
    simple: Callable[[Scan], Estimate] = classical,
) -> Callable[[Scan], Estimate]:
    """Return the network `forward` with the trust of at most `CHECKED` of the `slices` that come, in order.

    "fallback": l1-wavelet has the share in the image that the left-out samples give it. Its share in other slices is
    that of the checked one before them. "off": `forward` as it is. Scans without sensitivities are not checked.
    simple: runs `classical`.
    """
    if check == "off":
        return forward
    step = math.ceil(slices / CHECKED)
    done = 0
    share: float | None = None

    def run(scan: Scan) -> Estimate:
        nonlocal done, share
        estimate = forward(scan)
        assert estimate.image is not None, "only images are checked"
        if scan.sens is None:
            return estimate
        first, done = -done % step, done + len(estimate.image)
        reference, trust = None, list[Trust]()
        if first < len(estimate.image):
            some = slices_of(scan, first, None, step)
            reference = simple(some)
            trust = examined(forward, some, _every(estimate, first, step), reference, simple)
        if check == "fallback":
            shares = [share] * first + [one.share for one in trust for _ in range(step)]
            shares = shares[: len(estimate.image)]
            share = shares[-1]
            if step > 1 and any(shares):
                reference = simple(scan)
            estimate = mixed(estimate, reference, shares)
        return dataclasses.replace(estimate, trust=tuple(trust))

    return run


def _every(estimate: Estimate, first: int, step: int) -> Estimate:
    """Return an estimate with the images of every `step`-th slice."""
    image, unweighted = estimate.image, estimate.unweighted
    assert image is not None
    return Estimate(image=image[first::step], unweighted=None if unweighted is None else unweighted[first::step])
