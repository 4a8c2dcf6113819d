"""Variational network that starts at the l1-wavelet image and knows the noise."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from mrnets.blocks.checks import whole
from mrnets.blocks.complex import to_channels, to_complex
from mrnets.blocks.conditioned import SMALL, ConditionedUnet
from mrnets.blocks.consistency import solved, sparse
from mrnets.blocks.encoding import Encoding, encoded
from mrnets.contract import Estimate, Scan
from mrnets.physics.wavelets import detail_noise
from mrnets.traits import Traits

__all__ = ["L1VarNet"]

TRAITS = Traits(
    task="reconstruction",
    title="variational network that starts at the l1-wavelet image and knows the noise",
    paper="this project, 2026",
    steps=1,
    breaks_graph="conjugate gradients stop when the residual is small, which depends on the data",
    small={"cascades": 2, "start_iterations": 3, "channels": 8, "blocks": 1},
    aliases={"iterations": "consistency_iterations"},
    narrow={"cascades": 3, "start_iterations": 20, "channels": 24, "pooling_layers": 3, "blocks": 1},
    learning_rate=3e-4,
)

_ERROR = 0.008
"""Error of the image before a cascade, relative to an image whose maximum is 1, at the start of training."""
_CHANGE = 0.03
"""Size of a cascade's change, in the same units, at the start of training."""
_RANGE = 4.0
"""Logarithm of the largest factor between the two sizes and where they started: training may not run away with them."""
_TURNS: tuple[tuple[int, ...], ...] = ((), (-2, -1), (-2,), (-1,))
"""Axes along which the image is flipped, for each orientation."""
_LEAST = 8e-4
"""The lowest noise level that the network is told, for an image whose maximum is 1. Below it the error of sensitivities
exceeds the noise, and steps in units of the noise are too large. On scans of SNR 3000 the error is then twice as large,
and without noise the cascades diverge."""
_LARGE = 0.1
"""One over the gradient, in units of the noise, above which its size is compressed."""


class L1VarNet(nn.Module):
    """Cascades of z = x + u D(x, g) and x = argmin ||E x - y||^2 + (noise / e)^2 ||x - z||^2.

    The first x is the l1-wavelet image. D is one U-Net for all cascades. It sees the image x and the gradient
    g = E^H (E x - y) in units of the noise. It is told the noise level, the acceleration and the cascade. The sizes u
    and e follow from these conditions. The result is the last z, to which the preparation's consistency belongs.

    cascades: their number. consistency_iterations: of conjugate gradients in each. start_iterations: of l1-wavelet.
    channels, pooling_layers, blocks: of the U-Net, see `ConditionedUnet`. conditions: width of the layer that mixes the
    conditions. orientations: 1 to 4 in which the U-Net sees the image once it is trained. The result is the mean over
    them, and each takes as long as the first.
    Where there are two sets of maps, D sees the image and the gradient of the first. It changes that image alone. The
    image of the second set comes from the data: a U-Net that changes both is 0 to 6 dB worse.

    An unknown noise level comes from the details of the zero-filled image. Raises InputError where the scan lacks
    k-space, mask or sensitivities.
    """

    def __init__(
        self,
        *,
        cascades: int = 5,
        consistency_iterations: int = 6,
        start_iterations: int = 40,
        channels: int = 48,
        pooling_layers: int = 2,
        blocks: int = 2,
        conditions: int = 64,
        orientations: int = 1,
    ) -> None:
        super().__init__()
        self.cascades = whole("cascades", cascades, 1, 64)
        self.consistency_iterations = whole("consistency_iterations", consistency_iterations, 1, 1000)
        self.start_iterations = whole("start_iterations", start_iterations, 1, 1000)
        whole("conditions", conditions, 1, 4096)
        self.orientations = whole("orientations", orientations, 1, len(_TURNS))
        self.mix = nn.Linear(2, conditions)
        self.step = nn.Parameter(0.1 * torch.randn(cascades, conditions))
        self.sizes = nn.Linear(conditions, 2)
        nn.init.normal_(self.sizes.weight, std=SMALL)
        nn.init.zeros_(self.sizes.bias)
        self.unet = ConditionedUnet(
            4, 2, channels=channels, pooling_layers=pooling_layers, blocks=blocks, conditions=conditions
        )

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64; steps: the estimates of the earlier cascades."""
        encoding = encoded(scan, self, sets=True)
        with torch.no_grad():
            noise = detail_noise(encoding.start).amax(dim=(1, 2, 3)) if scan.noise is None else scan.noise
            noise = noise.clamp_min(_LEAST)
            x = sparse(encoding, noise, iterations=self.start_iterations)
        turns = _TURNS[: 1 if self.training else self.orientations]
        # A device has room for more than one image. On a processor all at once take 1.1 times as long as one by one.
        together = x.device.type == "cuda" and not encoding.sets
        groups = [turns] if together else [(turn,) for turn in turns]
        runs = [self._cascaded(x, encoding, noise, group) for group in groups]
        if self.training:
            return encoding.estimate(*runs[0], steps=True)
        last = [image for run in runs for image in run[-1].chunk(len(turns) // len(groups), dim=1)]
        return encoding.estimate(torch.stack(last).mean(dim=0))

    def _cascaded(
        self, x: Tensor, encoding: Encoding, noise: Tensor, turns: tuple[tuple[int, ...], ...]
    ) -> list[Tensor]:
        """z of every cascade, (batch, turn * echo, y, x); the U-Net sees all flipped along the axes of each turn.

        With two sets of maps, which have the axis of the echoes, one turn only.
        """
        x, start = (image.repeat(1, len(turns), 1, 1) for image in (x, encoding.start))
        encoding = dataclasses.replace(encoding, start=start)
        level = noise[:, None, None, None]
        images = []
        for n, features in enumerate(self._features(noise, encoding.mask)):
            change, error = self.sizes(features).clamp(-_RANGE, _RANGE)[..., None, None, None].unbind(1)
            gradient = encoding.gradient(x) / level
            gradient = gradient / (1 + _LARGE * gradient.abs())
            seen = slice(0, 1) if encoding.sets else slice(None)
            step = _turned(self._change(_turned(x[:, seen], turns), _turned(gradient[:, seen], turns), features), turns)
            z = x.clone()
            z[:, seen] += _CHANGE * change.exp() * step
            images.append(z)
            if n < self.cascades - 1:
                weight = (level / (_ERROR * error.exp())) ** 2
                x = z + solved(-encoding.gradient(z), encoding, weight, iterations=self.consistency_iterations)
        return images

    def _features(self, noise: Tensor, mask: Tensor) -> Tensor:
        """(cascade, batch, conditions): what the U-Net is told."""
        sampled = mask.float().mean(dim=(1, 2, 3, 4)).clamp_min(1e-3).log().neg().expand(len(noise))
        told = torch.stack((noise.log() / 2 + 2, sampled), dim=-1)
        return functional.silu(self.mix(told) + self.step[:, None])

    def _change(self, x: Tensor, gradient: Tensor, features: Tensor) -> Tensor:
        """D (batch, echo, y, x) complex; echoes go through it one by one."""
        both = torch.stack((x, gradient), dim=2).flatten(0, 1)
        told = features.repeat_interleave(x.shape[1], dim=0)
        return to_complex(self.unet(to_channels(both), told)).reshape(x.shape)


def _turned(x: Tensor, turns: tuple[tuple[int, ...], ...]) -> Tensor:
    """The images (batch, turn * echo, y, x) of each turn flipped along its axes. It is its own inverse."""
    parts = zip(x.chunk(len(turns), dim=1), turns, strict=True)
    return torch.cat([part.flip(turn) for part, turn in parts], dim=1)
