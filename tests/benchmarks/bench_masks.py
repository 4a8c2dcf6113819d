"""Variable-density Poisson-disc masks, 256 x 256, beside SigPy's and BART's.

python tests/benchmarks/bench_masks.py
"""

from __future__ import annotations

import numpy as np
from timing import bart, race

from mrnets.physics import masks

try:
    from sigpy.mri import poisson
except ImportError:
    poisson = None

SHAPE = (256, 256)


def main() -> None:
    for acceleration in (5, 10):
        side = acceleration**0.5
        race(
            f"Poisson disc, 256 x 256, {acceleration}-fold, 20 x 20 centre",
            {
                "poisson2d": lambda a=acceleration: masks.poisson2d(SHAPE, a, np.random.default_rng(0), centre=20),
                "SigPy poisson": poisson and (lambda a=acceleration: poisson(SHAPE, a, calib=(20, 20), seed=0)),
                "BART poisson -v": bart(f"poisson -v -Y256 -Z256 -y{side} -z{side} -C20 mask"),
            },
            repeats=3,
        )
        made = masks.poisson2d(SHAPE, acceleration, np.random.default_rng(0), centre=20)
        print(f"  acceleration of poisson2d: {made.size / made.sum():.4f}")
    others = (masks.equispaced1d, masks.random1d, masks.gaussian1d, masks.equispaced2d, masks.gaussian2d)
    race(
        "Other masks, 256 x 256, 5-fold",
        {f.__name__: lambda f=f: f(SHAPE, 5, np.random.default_rng(0)) for f in others},
    )


if __name__ == "__main__":
    main()
