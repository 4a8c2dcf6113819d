"""SENSE by conjugate gradients, no weights."""

from __future__ import annotations

from torch import nn

from mrnets.blocks.checks import number, whole
from mrnets.blocks.consistency import solved
from mrnets.blocks.encoding import encoded
from mrnets.contract import Estimate, Scan
from mrnets.traits import Traits

__all__ = ["CGSense"]

TRAITS = Traits(
    task="reconstruction",
    title="SENSE by conjugate gradients, no weights",
    paper="Pruessmann et al., MRM 2001",
    learns=False,
    breaks_graph="conjugate gradients stop when the residual is small, which depends on the data",
    small={"iterations": 5},
)


class CGSense(nn.Module):
    """Image that minimises ||E x - k||^2 + regularisation ||x||^2; `regularisation` is relative to unit-norm maps."""

    def __init__(self, *, iterations: int = 30, regularisation: float = 0.01, tolerance: float = 1e-5) -> None:
        super().__init__()
        self.iterations = whole("iterations", iterations, 1, 1000)
        self.regularisation = number("regularisation", regularisation, 0.0, 1e6)
        self.tolerance = number("tolerance", tolerance, 0.0, 1.0)

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        encoding = encoded(scan, self)
        return encoding.estimate(
            solved(encoding.start, encoding, self.regularisation, iterations=self.iterations, tolerance=self.tolerance)
        )
