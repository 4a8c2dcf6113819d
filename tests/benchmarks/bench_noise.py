"""Noise of images against what is said of it: many realisations of one small scan, through the gadgets.

python tests/benchmarks/bench_noise.py [--scans 200] [--networks zerofilled sense cgsense] [--fixed-maps]

Object, coils, sampling and noise measurement stay; the noise of the lines is new in each scan. What is said: the
standard deviation of whitened samples, the g-factor of the report, and the trust residual. `sense` is cgsense with the
regularisation of the g-factor, and as many iterations as it needs; `cgsense` is regularised as its chain is. There is
one set of coil maps: with two of them images have more noise, and the g-factor is that of one.
Axes: image (y, x); k-space (coil, y, x).
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from ismrmrd.xsd import CreateFromDocument
from numpy.typing import NDArray

from gadgets.coils import coils
from gadgets.compress import compress
from gadgets.frame import Frame
from gadgets.network import network
from gadgets.noise import noise
from gadgets.simulate.scan import make_scan
from gadgets.simulate.settings import Settings
from gadgets.sort import sort
from mrnets import store
from mrnets.contract import Raw
from mrnets.mrd.flags import Flag, has_flag
from mrnets.mrd.lines import Lines
from mrnets.physics import simulate
from mrnets.physics.arrays import to_numpy
from mrnets.physics.gfactor import REGULARISATION, g_factor
from mrnets.physics.whiten import RELATIVE_BANDWIDTH

CLEAN = 1e7
"""The SNR of a scan without noise."""
BRIGHT = 0.2
"""Of the brightest pixel: where the deviation of the magnitude is that of the real part."""


def realisations(settings: Settings, count: int) -> tuple[Any, Iterator[list[Lines]]]:
    """Return the header, and the lines of `count` scans that differ by their noise alone."""
    header, lines, _ = make_scan(dataclasses.replace(settings, snr=CLEAN))
    clean = list(lines)
    covariance = simulate.random_covariance(np.random.default_rng([settings.seed, 3]), settings.coils)
    covariance = np.asarray(covariance / np.float32(settings.snr) ** 2)

    def scans() -> Iterator[list[Lines]]:
        for n in range(count):
            rng = np.random.default_rng(n + 1)
            yield [_noisy(block, covariance, rng) for block in clean]

    return CreateFromDocument(header), scans()


def _noisy(block: Lines, covariance: NDArray[np.complex64], rng: np.random.Generator) -> Lines:
    measures = bool(has_flag(block.headers, Flag.IS_NOISE_MEASUREMENT).all())
    lines, channels, samples = block.data.shape
    scale = np.float32(RELATIVE_BANDWIDTH / 2) if measures else np.float32(1)
    rng = np.random.default_rng(0) if measures else rng
    drawn = simulate.noise(rng, covariance * scale, (lines, channels, 1, samples))[:, :, 0]
    return dataclasses.replace(block, data=drawn if measures else block.data + drawn)


@dataclasses.dataclass
class Sums:
    """Mean and variance of arrays that come one by one (Welford 1962)."""

    count: int = 0
    mean: Any = 0.0
    square: Any = 0.0

    def add(self, values: Any) -> None:
        """Take one more array."""
        self.count += 1
        before = values - self.mean
        self.mean = self.mean + before / self.count
        self.square = self.square + np.real(np.conj(before) * (values - self.mean))

    @property
    def deviation(self) -> Any:
        """Of a sample."""
        return np.sqrt(self.square / (self.count - 1))


@dataclasses.dataclass
class Seen:
    """What the scans gave."""

    kspace: Sums = dataclasses.field(default_factory=Sums)
    magnitude: dict[str, Sums] = dataclasses.field(default_factory=dict)
    residual: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    fallbacks: dict[str, int] = dataclasses.field(default_factory=dict)
    last: Frame | None = None


def measure(settings: Settings, networks: dict[str, dict[str, Any]], count: int, *, fixed: bool = False) -> Seen:
    """Reconstruct `count` realisations by each network. fixed: all with the coil maps of the first one."""
    header, scans = realisations(settings, count)
    seen = Seen()
    for lines in scans:
        (frame,) = sort(noise(lines, header), header)
        seen.kspace.add(to_numpy(frame.raw.kspace)[0, 0])
        (mapped,) = coils(compress([frame], header, coils=settings.coils), header, sets=1)
        if fixed and seen.last is not None:
            mapped = dataclasses.replace(mapped, raw=dataclasses.replace(mapped.raw, sens=seen.last.raw.sens))
        seen.last = mapped
        for name, options in networks.items():
            (made,) = network([mapped], header, **options)
            seen.magnitude.setdefault(name, Sums()).add(np.abs(to_numpy(made.estimate.image)[0, 0]).astype(np.float64))
            if made.trust is not None and made.trust.residual is not None:
                seen.residual.setdefault(name, []).append(float(made.trust.residual))
            seen.fallbacks[name] = seen.fallbacks.get(name, 0) + made.fallback
    return seen


def stated(seen: Seen) -> tuple[float, NDArray[np.float64], float]:
    """Return the standard deviation of a whitened sample, the g-factor (y, x), and the share of k-space sampled."""
    raw, sens, mask = _last(seen)
    found = g_factor(sens, mask, np.random.default_rng(0)).astype(np.float64)
    return float(np.sqrt(raw.variance)), found, float(mask.mean())


def _last(seen: Seen) -> tuple[Raw, NDArray[np.complex64], NDArray[np.bool_]]:
    assert seen.last is not None
    raw = seen.last.raw
    mask = np.broadcast_to(to_numpy(raw.mask)[0, 0, 0], raw.kspace.shape[-2:])
    return raw, to_numpy(raw.sens)[0, 0], mask


def ratios(seen: Seen, name: str, method: str) -> NDArray[np.float64]:
    """Return the deviation of the magnitude over what is stated, for all bright pixels.

    SENSE: g / sqrt(share of k-space) of that of a full scan, which is that of a sample over the norm of the coil maps.
    zerofilled: sqrt(share) of that of a sample, times the norm."""
    sigma, g, share = stated(seen)
    norm = np.sqrt((np.abs(_last(seen)[1].astype(np.complex128)) ** 2).sum(axis=0))
    mean, deviation = seen.magnitude[name].mean, seen.magnitude[name].deviation
    inside = (mean > BRIGHT * mean.max()) & (g > 0)
    gain = np.sqrt(share) * norm[inside] if method == "zerofilled" else g[inside] / np.sqrt(share) / norm[inside]
    return np.asarray(deviation[inside] / (sigma / np.sqrt(2) * gain))


def options(name: str) -> dict[str, Any]:
    if name == "sense":
        return {"name": "cgsense", "options": f"iterations=100, regularisation={REGULARISATION}"}
    return {"name": name} if name in store.names() else {"weights": name}


def main() -> None:
    """Print a row for what is stated, and a row for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=200)
    parser.add_argument("--networks", nargs="+", default=["zerofilled", "sense", "cgsense", "l1varnet_general"])
    parser.add_argument("--acceleration", type=float, default=2.0)
    parser.add_argument("--matrix", type=int, default=48)
    parser.add_argument("--snr", type=float, default=50.0)
    parser.add_argument("--fixed-maps", action="store_true", help="coil maps of the first scan for all")
    args = parser.parse_args()
    settings = Settings(
        matrix=args.matrix, coils=6, acceleration=args.acceleration, calibration=16, snr=args.snr, noise_lines=64
    )
    seen = measure(settings, {name: options(name) for name in args.networks}, args.scans, fixed=args.fixed_maps)
    sigma, g, share = stated(seen)
    sampled = seen.kspace.deviation[..., seen.kspace.deviation.sum(axis=(0, 2)) > 0, :]
    print(f"{args.scans} scans, {args.matrix} x {args.matrix}, 6 coils, {1 / share:.2f}-fold, SNR {args.snr:g}")
    rms = float(np.sqrt((sampled**2).mean()))
    print(f"whitened sample: stated {sigma:.4f}, sample deviation {rms:.4f}, ratio {rms / sigma:.4f}")
    print(f"g-factor in the object: median {np.median(g[g > 0]):.3f}, largest {g.max():.3f}")
    for name in args.networks:
        found = ratios(seen, name, name)
        low, middle, high = np.percentile(found, (5, 50, 95))
        text = (
            f"{name}: deviation of the magnitude over the stated one: {middle:.3f}, 5 to 95 %: {low:.3f} to {high:.3f}"
        )
        trust = seen.residual.get(name)
        text += f"; TrustResidual {np.mean(trust):.4f} +- {np.std(trust):.4f}" if trust else ""
        print(f"{text}; {seen.fallbacks[name]} fallbacks", flush=True)


if __name__ == "__main__":
    main()
