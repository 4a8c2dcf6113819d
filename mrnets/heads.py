"""The head that comes with nilearn: the ICBM152 2009a template, for simulated scans and for tissue priors."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal

from mrnets.errors import InputError
from mrnets.extras import install

__all__ = ["icbm152"]


def icbm152(volume: Literal["t1", "gm", "wm"] = "t1") -> Path:
    """Return the NIfTI file of the T1 image, or of the probability of grey or of white matter.

    Raises InputError where nilearn is not installed.
    """
    try:
        folder = resources.files("nilearn.datasets")
    except ModuleNotFoundError:
        raise InputError(f"the head ICBM152 comes with nilearn, which is not installed: {install('demo')}") from None
    return Path(str(folder / "data" / f"mni_icbm152_{volume}_tal_nlin_sym_09a_converted.nii.gz"))
