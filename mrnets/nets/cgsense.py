"""SENSE by conjugate gradients, no weights."""

from __future__ import annotations

from torch import Tensor, nn

from mrnets.blocks.checks import number, whole
from mrnets.blocks.consistency import noise_level, solved
from mrnets.blocks.encoding import encoded
from mrnets.contract import Estimate, Scan
from mrnets.physics.coils import regularisation_of
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
    """Image that minimises ||E x - k||^2 + regularisation ||x||^2, relative to maps of unit norm.

    regularisation: None takes it from the noise level of the scan, see `mrnets.physics.coils.regularisation_of`. Where
    that level is not known, it comes from the details of the zero-filled image.
    iterations, tolerance: of conjugate gradients.
    Raises InputError where the scan lacks k-space, mask or sensitivities.
    """

    def __init__(self, *, iterations: int = 30, regularisation: float | None = None, tolerance: float = 1e-5) -> None:
        super().__init__()
        self.iterations = whole("iterations", iterations, 1, 1000)
        self.regularisation = None if regularisation is None else number("regularisation", regularisation, 0.0, 1e6)
        self.tolerance = number("tolerance", tolerance, 0.0, 1.0)

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        encoding = encoded(scan, self, sets=True)
        weight: Tensor | float | None = self.regularisation
        if weight is None:
            start = encoding.start[:, :1] if encoding.sets else encoding.start
            weight = regularisation_of(start, noise_level(encoding, scan.noise))
        return encoding.estimate(
            solved(encoding.start, encoding, weight, iterations=self.iterations, tolerance=self.tolerance)
        )
