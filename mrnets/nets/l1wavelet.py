"""Compressed sensing with wavelets, no weights."""

from __future__ import annotations

from torch import nn

from mrnets.blocks.checks import number, whole
from mrnets.blocks.consistency import sparse
from mrnets.blocks.encoding import encoded
from mrnets.contract import Estimate, Scan
from mrnets.physics.wavelets import FINE
from mrnets.traits import Traits

__all__ = ["L1Wavelet"]

TRAITS = Traits(
    task="reconstruction",
    title="compressed sensing with wavelets, no weights",
    paper="Lustig et al., MRM 2007",
    learns=False,
    breaks_graph="the shifts of its wavelets are drawn by NumPy",
    small={"iterations": 5},
)


class L1Wavelet(nn.Module):
    """Image of sparse wavelet coefficients that fits the data; its threshold follows from the noise level of the scan.

    iterations, levels, regularisation: as in `mrnets.physics.wavelets.l1_wavelet`. Where the noise level of a scan is
    not known, it comes from the details of the zero-filled image.
    Raises InputError where the scan lacks k-space, mask or sensitivities.
    """

    def __init__(self, *, iterations: int = 60, levels: int = 3, regularisation: float = FINE) -> None:
        super().__init__()
        self.iterations = whole("iterations", iterations, 1, 1000)
        self.levels = whole("levels", levels, 1, 8)
        self.regularisation = number("regularisation", regularisation, 0.0, 1e6)

    def forward(self, scan: Scan) -> Estimate:
        """image (batch, echo, y, x) complex64."""
        encoding = encoded(scan, self, sets=True)
        image = sparse(
            encoding,
            scan.noise,
            iterations=self.iterations,
            levels=self.levels,
            regularisation=self.regularisation,
        )
        return encoding.estimate(image)
