"""How every network ends, in training and on scanners alike: consistent with the data, each echo by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from mrnets.blocks.consistency import solved
from mrnets.blocks.encoding import Encoding, initial_image
from mrnets.contract import Estimate, Scan
from mrnets.echoes import each_echo
from mrnets.physics.coils import norm
from mrnets.physics.maps import scaled
from mrnets.preparation import Preparation
from mrnets.traits import Echoes

__all__ = ["consistent", "ended", "weighted"]

CONSISTENCY_ITERATIONS = 10
"""Iterations of conjugate gradients, from the network's image. What they have not reached then is below the noise."""

LEAST = 1e-12
"""Squared norm of maps, in which nothing is seen."""


def consistent(estimate: Estimate, scan: Scan, preparation: Preparation) -> Estimate:
    """`estimate` of `scan` with an image that keeps the measured samples, as `Preparation.consistency` says.

    Differentiable. The estimate stays as it is without an image, sensitivities or noise level.
    """
    level, image, kspace, mask, sens = preparation.consistency, estimate.image, scan.kspace, scan.mask, scan.sens
    if level is None or image is None or kspace is None or mask is None or sens is None or scan.noise is None:
        return estimate
    weight = (scan.noise / level)[:, None, None, None] ** 2
    gradient = Encoding(kspace, mask, sens, initial_image(kspace, mask, sens)).gradient(image)
    # In this unit maps have norm 1 again. A fully sampled scan then takes one iteration, whatever their norm was.
    unit = (norm(sens) ** 2 + weight).clamp_min(LEAST).rsqrt()
    even = Encoding(kspace, mask, sens * unit[:, :, None], gradient)
    change = unit * solved(-unit * gradient, even, weight * unit**2, iterations=CONSISTENCY_ITERATIONS)
    return dataclasses.replace(estimate, image=image + change)


def ended(network: Callable[[Scan], Estimate], preparation: Preparation, echoes: Echoes) -> Callable[[Scan], Estimate]:
    """`network` as training and scanners run it: followed by the consistency of its preparation.

    At last the image is `weighted`. So it is zero where no data tell anything of it.

    echoes: of its traits; "each" takes the echoes of a scan one by one, each with its own phase (`mrnets.echoes`).
    """

    def run(scan: Scan) -> Estimate:
        return weighted(consistent(network(scan), scan, preparation), scan)

    return each_echo(run) if echoes == "each" else run


def weighted(estimate: Estimate, scan: Scan) -> Estimate:
    """`estimate` with its image, and maps in its scale, multiplied with the norm of the sensitivities of `scan`."""
    if estimate.image is None or scan.sens is None:
        return estimate
    weight = norm(scan.sens)
    return dataclasses.replace(
        estimate,
        image=estimate.image * weight,
        unweighted=estimate.image,
        maps=scaled(estimate.maps, weight[:, 0]),
        steps=tuple(weighted(step, scan) for step in estimate.steps),
    )
