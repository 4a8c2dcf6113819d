"""Files that hold no ISMRMRD scan, told by their contents: what they are, and which command takes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py

__all__ = ["of_hdf5", "of_start"]

START = 132
"""Bytes that tell a file's kind."""
_ARRAYS = "mrnets.reconstruct in Python takes its arrays"
_STARTS = {
    b"MATLAB 5.0 MAT-file": f"is a MATLAB file, no ISMRMRD scan; {_ARRAYS}",
    b"\x93NUMPY": f"is an array of NumPy, no ISMRMRD scan; {_ARRAYS}",
}
_ENDINGS = {
    ".cfl": f"is an array of BART, no ISMRMRD scan; {_ARRAYS}",
    ".hdr": f"is a header, as of BART's arrays, no ISMRMRD scan; {_ARRAYS}",
    ".npz": f"is a file of NumPy's arrays, no ISMRMRD scan; {_ARRAYS}",
    ".nii": "is a NIfTI image, no raw data; python -m gadgets segment takes images",
    ".nii.gz": "is a NIfTI image, no raw data; python -m gadgets segment takes images",
    ".7": "is raw data of a GE scanner, as its name tells; make an ISMRMRD file of it first: ge_to_ismrmrd",
    ".raw": "is raw data of a Philips scanner, as its name tells; make an ISMRMRD file of it first: philips_to_ismrmrd",
    ".lab": "is raw data of a Philips scanner, as its name tells; make an ISMRMRD file of it first: philips_to_ismrmrd",
}
_LAYOUTS: Mapping[tuple[str, ...], tuple[str, str]] = {
    ("kspace", "ismrmrd_header"): ("fastMRI and M4Raw", "fastmri_brains, fastmri_knees, fastmri_knees_singlecoil"),
    ("kspace", "maps"): ("SKM-TEA", "skmtea_reconstruction, skmtea_joint"),
    ("kspace", "sensitivity_map"): ("AHEAD", "ahead, ahead_maps"),
    ("echo1", "echo2", "seg"): ("SKM-TEA", "skmtea_segmentation"),
}
"""Data sets of public layouts, whose they are, and the recipes that read them."""


def of_start(path: Path, start: bytes) -> str:
    """Return what a file is that is no HDF5, by its first `START` bytes or its name; empty where that is not known."""
    for magic, told in _STARTS.items():
        if start.startswith(magic):
            return told
    if start[128:132] == b"DICM":
        return "is a DICOM file, no raw data; python -m gadgets segment takes folders of them"
    name = path.name.lower()
    return next((told for ending, told in _ENDINGS.items() if name.endswith(ending)), "")


def of_hdf5(file: h5py.File, group: str) -> str:
    """Return what an HDF5 file without a scan in `group` is; empty where that is not known."""
    names = {name for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)}
    for parts, (whose, recipes) in _LAYOUTS.items():
        if names.issuperset(parts):
            return _read_by(whose, recipes, raw="kspace" in parts)
    kspace = file["kspace"] if "kspace" in names else None
    if isinstance(kspace, h5py.Dataset) and kspace.dtype.kind == "f" and kspace.ndim == 4 and kspace.shape[-1] % 2 == 0:
        return _read_by("CC359", "cc359")  # (slice, y, x, channel): real and imaginary parts in turns
    arrays = sorted(name for name in names if name.startswith("kspace") and isinstance(file[name], h5py.Dataset))
    if arrays:
        matlab = "a MATLAB file" if file.userblock_size else "a file of arrays"
        return f"is {matlab} ({', '.join(arrays[:4])}), no ISMRMRD scan; {_ARRAYS}"
    folder = file[group] if group in names else None
    if isinstance(folder, h5py.Group) and any(name.startswith("image_") for name in folder):
        return "is a file of images, no raw data; python -m gadgets export takes it"
    return ""


def _read_by(whose: str, recipes: str, *, raw: bool = True) -> str:
    one = "recipe" if "," not in recipes else "recipes"
    told = f"as those of {whose}, no ISMRMRD scan; python -m training reads it by the {one} {recipes}"
    return f"is a file of arrays {told}, and {_ARRAYS}" if raw else f"is a file of images {told}"
