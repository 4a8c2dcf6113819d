"""Files without an ISMRMRD scan, in the layouts of public data sets and of other programs, and what a user reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from gadgets.__main__ import main
from tests.gadgets.export.images import image, written

ARRAYS = "mrnets.reconstruct in Python takes its arrays"


def _hdf5(**arrays: np.ndarray) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with h5py.File(path, "w", userblock_size=512 if path.suffix == ".mat" else 0) as file:
            for name, values in arrays.items():
                file[name] = values

    return write


def _bytes(start: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(start.ljust(400, b"\0")) and None


def _images(path: Path) -> None:
    written(path, [image(np.zeros((6, 8), np.float32))])


def kspace(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.complex64)


FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "fastmri.h5": (_hdf5(kspace=kspace(2, 4, 8, 8), ismrmrd_header=np.bytes_("<x/>")), "recipes fastmri_brains, "),
    "skmtea.h5": (
        _hdf5(kspace=kspace(2, 8, 8, 2, 4), maps=kspace(2, 8, 8, 4, 1)),
        "those of SKM-TEA, no ISMRMRD scan; python -m training reads it by the recipes skmtea_reconstruction, ",
    ),
    "labels.h5": (_hdf5(echo1=np.zeros(3), echo2=np.zeros(3), seg=np.zeros(3)), "by the recipe skmtea_segmentation."),
    "ahead.h5": (_hdf5(kspace=kspace(2, 4, 3, 8, 8), sensitivity_map=kspace(2, 3, 8, 8)), "recipes ahead, ahead_maps"),
    "cc359.h5": (_hdf5(kspace=np.zeros((2, 8, 8, 24), np.float32)), "by the recipe cc359, and " + ARRAYS),
    "cmrxrecon.mat": (_hdf5(kspace_full=kspace(2, 2, 4, 8, 8)), "is a MATLAB file (kspace_full), no ISMRMRD scan; "),
    "other.h5": (_hdf5(kspace_acs=kspace(8, 8)), f"is a file of arrays (kspace_acs), no ISMRMRD scan; {ARRAYS}"),
    "images.h5": (_images, "is a file of images, no raw data; python -m gadgets export takes it"),
    "nothing.h5": (_hdf5(a=np.zeros(3)), 'there is no scan in the group "dataset"; groups with scans: none'),
    "old.mat": (_bytes(b"MATLAB 5.0 MAT-file, Platform"), f"is a MATLAB file, no ISMRMRD scan; {ARRAYS}"),
    "a.npy": (_bytes(b"\x93NUMPY\x01\x00"), "is an array of NumPy"),
    "a.npz": (_bytes(b"PK\x03\x04"), "is a file of NumPy's arrays"),
    "a.cfl": (_bytes(b""), "is an array of BART"),
    "a.nii.gz": (_bytes(b"\x1f\x8b"), "is a NIfTI image, no raw data; python -m gadgets segment takes images"),
    "1.dcm": (_bytes(bytes(128) + b"DICM"), "is a DICOM file, no raw data"),
    "P12345.7": (_bytes(b"\x00\x00\xd0\x41"), "first: ge_to_ismrmrd"),
    "a.raw": (_bytes(b"\x01\x02\x03\x04\x05\x06\x07\x08"), "first: philips_to_ismrmrd"),
    "a.txt": (_bytes(b"something else"), "cut short, corrupt or not HDF5"),
}


@pytest.mark.parametrize("command", [["inspect"], ["replay", "-c", "cgsense"]])
@pytest.mark.parametrize("name", FILES)
def test_a_user_reads_what_a_file_is_and_what_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write, sentence = FILES[name]
    write(Path(name))
    assert main([*command, name]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gadgets {command[0]}: {name}: ")
    assert sentence in line


def test_links_to_other_files_are_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _hdf5(kspace=np.zeros((2, 8, 8, 24), np.float32))(tmp_path / "cc359.h5")
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["kspace"] = h5py.ExternalLink("cc359.h5", "kspace")
    assert main(["inspect", str(tmp_path / "link.h5")]) == 1
    assert "groups with scans: none" in capsys.readouterr().err
