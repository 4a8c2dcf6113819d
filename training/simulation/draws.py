"""Random numbers of a batch on the device, all from one generator, without waiting for the device."""

from __future__ import annotations

import math

import torch

__all__ = ["Draws"]

Range = tuple[float, float]


class Draws:
    """Numbers for the slices of a batch."""

    def __init__(self, generator: torch.Generator, batch: int) -> None:
        self.generator = generator
        self.batch = batch

    @property
    def device(self) -> torch.device:
        """Where the numbers are."""
        return self.generator.device

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        """(batch, *shape) float32, uniform."""
        return self._empty(shape).uniform_(low, high, generator=self.generator)

    def log_uniform(self, limits: Range, *shape: int) -> torch.Tensor:
        """(batch, *shape) float32, uniform in the logarithm."""
        return self.uniform(math.log(limits[0]), math.log(limits[1]), *shape).exp_()

    def normal(self, *shape: int) -> torch.Tensor:
        """(batch, *shape) float32, of mean 0 and variance 1."""
        return torch.randn(self.batch, *shape, generator=self.generator, device=self.device)

    def complex_normal(self, *shape: int) -> torch.Tensor:
        """(batch, *shape) complex64, of mean 0 and E|n|^2 = 1."""
        dtype = torch.complex64
        return torch.randn(self.batch, *shape, generator=self.generator, device=self.device, dtype=dtype)

    def chance(self, share: float, *shape: int) -> torch.Tensor:
        """(batch, *shape) float32: 1 with this probability, else 0."""
        return self._empty(shape).bernoulli_(share, generator=self.generator)

    def sign(self, *shape: int) -> torch.Tensor:
        """(batch, *shape) float32: 1 or -1."""
        return 1 - 2 * self.chance(0.5, *shape)

    def integers(self, count: int, *shape: int) -> torch.Tensor:
        """(batch, *shape) int64, from 0 on and below `count`."""
        size = (self.batch, *shape)
        return torch.randint(count, size, generator=self.generator, device=self.device)

    def _empty(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.empty(self.batch, *shape, device=self.device)
