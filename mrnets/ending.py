"""How every network ends, in training and on scanners alike: consistent with the data, each echo by itself.

Maps end so, too, through the echoes that they predict. They are 0 where there is no object.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch

from mrnets.blocks.consistency import solved
from mrnets.blocks.encoding import Encoding, has_sets, initial_image
from mrnets.contract import Estimate, Scan
from mrnets.echoes import each_echo
from mrnets.physics.arrays import Array
from mrnets.physics.coils import joined, norm
from mrnets.physics.maps import MAPS, scaled
from mrnets.physics.relaxation import fit, signal, signal_region
from mrnets.preparation import Preparation
from mrnets.traits import Echoes

__all__ = ["consistent", "ended", "maps_of_object", "weighted"]

CONSISTENCY_ITERATIONS = 10
"""Iterations of conjugate gradients, from the network's image. What they have not reached then is below the noise."""

LEAST = 1e-12
"""Squared norm of maps, in which nothing is seen."""


def consistent(estimate: Estimate, scan: Scan, preparation: Preparation) -> Estimate:
    """`estimate` of `scan` with an image, or maps, that keep the measured samples, as `Preparation.consistency` says.

    The echoes that maps predict become consistent, and the maps are fitted to them anew. Differentiable; gradients pass
    through maps as if their correction were a constant. The estimate stays as it is without image and relaxation maps,
    without sensitivities or noise level.
    """
    if estimate.image is not None:
        change = _correction(estimate.image, scan, preparation)
        return estimate if change is None else dataclasses.replace(estimate, image=estimate.image + change)
    if scan.echo_times is None or not MAPS.keys() <= estimate.maps.keys():
        return estimate
    with torch.no_grad():
        echoes = signal(_stacked(estimate.maps), scan.echo_times)
        change = _correction(echoes, scan, preparation)
        if change is None:
            return estimate
        fitted = dict(zip(MAPS, fit(echoes + change, scan.echo_times).unbind(1), strict=True))
    corrected = {name: m + (fitted[name] - m).detach() for name, m in estimate.maps.items() if name in fitted}
    return dataclasses.replace(estimate, maps={**estimate.maps, **corrected})


def _correction(image: Array, scan: Scan, preparation: Preparation) -> Array | None:
    """Return the change of `image` (batch, echo, y, x); None where preparation or scan lack what it takes."""
    level, kspace, mask, sens = preparation.consistency, scan.kspace, scan.mask, scan.sens
    if level is None or kspace is None or mask is None or sens is None or scan.noise is None:
        return None
    weight = (scan.noise / level)[:, None, None, None] ** 2
    gradient = Encoding(kspace, mask, sens, initial_image(kspace, mask, sens)).gradient(image)
    # In this unit maps have norm 1 again. A fully sampled scan then takes one iteration, whatever their norm was.
    unit = (norm(sens) ** 2 + weight).clamp_min(LEAST).rsqrt()
    even = Encoding(kspace, mask, sens * unit[:, :, None], gradient)
    return unit * solved(-unit * gradient, even, weight * unit**2, iterations=CONSISTENCY_ITERATIONS)


def ended(network: Callable[[Scan], Estimate], preparation: Preparation, echoes: Echoes) -> Callable[[Scan], Estimate]:
    """`network` as training and scanners run it: followed by the consistency of its preparation.

    At last the image is `weighted`. So it is zero where no data tell anything of it. Maps: `maps_of_object`.

    echoes: of its traits; "each" takes the echoes of a scan one by one, each with its own phase (`mrnets.echoes`).
    """

    def run(scan: Scan) -> Estimate:
        estimate = weighted(consistent(network(scan), scan, preparation), scan)
        return dataclasses.replace(estimate, maps=maps_of_object(estimate.maps, scan))

    return each_echo(run) if echoes == "each" else run


def maps_of_object(maps: Mapping[str, Array], scan: Scan) -> dict[str, Array]:
    """Relaxation maps (batch, y, x) of `scan` that are 0 outside the object; other maps as they are.

    The object is where the first echo that the maps predict exceeds the noise (`relaxation.signal_region`). The noise
    is that of the samples times the square root of the acceleration. Nothing is left where all sensitivities are 0.
    """
    if scan.echo_times is None or not MAPS.keys() <= maps.keys():
        return dict(maps)
    noise = scan.noise
    if noise is not None and scan.mask is not None:
        noise = noise / scan.mask.float().mean(dim=(1, 2, 3, 4)).clamp(min=1e-6).sqrt()
    region = signal_region(_stacked(maps), float(scan.echo_times[0]), noise)
    if scan.sens is not None:
        region = region & (scan.sens != 0).flatten(1, -3).any(dim=1)
    return {name: torch.where(region, m, 0) if name in MAPS else m for name, m in maps.items()}


def _stacked(maps: Mapping[str, Array]) -> Array:
    """(batch, 4, y, x)."""
    return torch.stack([maps[name] for name in MAPS], dim=1)


def weighted(estimate: Estimate, scan: Scan) -> Estimate:
    """`estimate` with its image, and maps in its scale, multiplied with the norm of the sensitivities of `scan`.

    Images of several sets of maps become one.
    """
    if scan.sens is None:
        return estimate
    weight, image, unweighted = norm(scan.sens), estimate.image, None
    if image is not None:
        unweighted = image[:, None] if has_sets(scan.sens) else image[:, :, None]
        image = joined(unweighted * weight[:, None])
    return dataclasses.replace(
        estimate,
        image=image,
        unweighted=unweighted,
        maps=scaled(estimate.maps, weight[:, 0]),
        steps=tuple(weighted(step, scan) for step in estimate.steps),
    )
