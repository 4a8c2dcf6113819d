"""Classical methods to stand beside networks; each is given the best of several settings for each image, by its error,
which no scanner could choose."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrnets import store
from mrnets.contract import Estimate, Scan
from mrnets.errors import InputError
from mrnets.physics.arrays import to_numpy
from mrnets.physics.maps import MAPS
from mrnets.physics.relaxation import fit
from training.data import Example

__all__ = ["REGULARISATIONS", "WAVELET", "images", "l1_wavelet", "maps"]

REGULARISATIONS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Of CG-SENSE."""
WAVELET = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
"""Regularisations of l1-wavelet, relative to the largest magnitude of the zero-filled image."""


def images(example: Example, *, wavelet: bool = False) -> dict[str, Estimate]:
    """ "zerofilled" and, where the scan has sensitivities, "cgsense"; with `wavelet`, BART's "l1-wavelet"."""
    made = {"zerofilled": _zerofilled(example.scan)}
    if example.scan.sens is not None:
        made["cgsense"] = _cgsense(example)
        if wavelet:
            made["l1-wavelet"] = _best(example, (l1_wavelet(example.scan, r) for r in WAVELET))
    return {name: Estimate(image=image) for name, image in made.items()}


def maps(example: Example) -> dict[str, Estimate]:
    """ "fit": voxel by voxel, to the echoes that CG-SENSE gives."""
    if example.scan.sens is None:
        return {}
    fitted = fit(_cgsense(example), example.scan.echo_times)
    return {"fit": Estimate(maps=dict(zip(MAPS, fitted.unbind(1), strict=True)))}


def l1_wavelet(scan: Scan, regularisation: float, *, iterations: int = 50) -> Tensor:
    """Parallel imaging with l1-regularised wavelets (Lustig 2007) by the program `bart` (Uecker 2015), slice by slice;
    image (batch, echo, y, x) complex64. Raises InputError where `bart` is not installed or fails, and for odd sizes,
    where its Fourier transform is centred elsewhere."""
    if shutil.which("bart") is None:
        raise InputError("l1-wavelet needs the program bart, which is not on the PATH")
    assert scan.kspace is not None
    assert scan.sens is not None
    if any(n % 2 for n in scan.kspace.shape[-2:]):
        raise InputError(f"l1-wavelet by bart needs even sizes, not {tuple(scan.kspace.shape[-2:])}")
    start = _zerofilled(scan)
    scale = start.abs().amax(dim=(1, 2, 3))
    slices = [
        [_pics(echo, sens[0], regularisation, float(top), iterations) for echo in kspace]
        for kspace, sens, top in zip(scan.kspace, scan.sens, scale, strict=True)
    ]
    image = torch.from_numpy(np.array(slices)).to(scan.kspace.device)
    turned = torch.vdot(image.flatten(), start.flatten())  # its Fourier transform has a sign that depends on the size
    return image * (turned / turned.abs() if turned.abs() > 0 else 1)


def _pics(kspace: Tensor, sens: Tensor, regularisation: float, scale: float, iterations: int) -> NDArray[np.complex64]:
    """One slice; k-space and sensitivities (coil, y, x)."""
    with tempfile.TemporaryDirectory() as folder:
        for name, values in (("kspace", kspace), ("sens", sens)):
            _write_cfl(Path(folder) / name, to_numpy(values).transpose(1, 2, 0)[:, :, None])
        command = ["bart", "pics", "-S", "-w", f"{scale:g}", "-i", str(iterations)]
        command += ["-R", f"W:3:0:{regularisation:g}", "kspace", "sens", "image"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 our words
        if done.returncode:
            raise InputError(f"bart pics failed: {' '.join((done.stderr or done.stdout).split())[-200:]}")
        image = np.fromfile(Path(folder) / "image.cfl", np.complex64)
    return image.reshape(kspace.shape[-2:], order="F")


def _write_cfl(path: Path, values: NDArray[np.complex64]) -> None:
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, values.shape)) + "\n", encoding="ascii")
    values.astype(np.complex64).ravel(order="F").tofile(path.with_suffix(".cfl"))


def _zerofilled(scan: Scan) -> Tensor:
    image: Tensor = store.create("zerofilled")(scan).image
    return image


def _cgsense(example: Example) -> Tensor:
    return _best(example, (store.create("cgsense", regularisation=r)(example.scan).image for r in REGULARISATIONS))


def _best(example: Example, tried: Iterable[Tensor]) -> Tensor:
    """Of several images the one whose magnitude is nearest to the target's."""
    assert example.target is not None
    target = example.target.abs()
    return min(tried, key=lambda image: float(((image.abs() - target) ** 2).sum()))
