"""Tiny data sets in the published layouts of AHEAD, BraTS 2023, ISLES 2022 and SKM-TEA, and in those of ATOMMIC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import nibabel
import numpy as np
from ismrmrd.hdf5 import acquisition_dtype
from numpy.typing import NDArray

from tests.training.cases import Case

ECHO_TIMES = np.array([3.0, 11.5, 20.0, 28.5]) * 1e-3
HEADER = """<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><experimentalConditions>
<H1resonanceFrequency_Hz>298000000</H1resonanceFrequency_Hz></experimentalConditions><encoding>
<encodedSpace><matrixSize><x>{x}</x><y>{y}</y><z>{z}</z></matrixSize>
<fieldOfView_mm><x>{x}</x><y>{y}</y><z>{z}</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>{x}</x><y>{y}</y><z>{z}</z></matrixSize>
<fieldOfView_mm><x>{x}</x><y>{y}</y><z>{z}</z></fieldOfView_mm></reconSpace>
<encodingLimits>
<kspace_encoding_step_1><minimum>0</minimum><maximum>{y1}</maximum><center>{yc}</center></kspace_encoding_step_1>
<kspace_encoding_step_2><minimum>0</minimum><maximum>{z1}</maximum><center>{zc}</center></kspace_encoding_step_2>
</encodingLimits><trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"""


def head(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A bright shell around something darker, of any number of axes."""
    axes = np.meshgrid(*((np.arange(n) - n // 2) / (n / 2) for n in shape), indexing="ij")
    radius = np.sqrt(sum(a**2 for a in axes))
    return (0.6 * (radius < 0.6) + 1.0 * ((radius > 0.72) & (radius < 0.85))).astype(np.float32)


def echoes_and_maps(rng: np.random.Generator, shape: tuple[int, ...], coils: int) -> tuple[Any, Any]:
    """Images (echo, *shape) and smooth maps (coil, *shape), complex64."""
    decay = np.exp(-ECHO_TIMES * 40 + 2j * np.pi * ECHO_TIMES * 10).reshape(-1, *[1] * len(shape))
    axes = np.meshgrid(*((np.arange(n) - n // 2) / n for n in shape), indexing="ij")
    maps = [
        np.exp(sum(a * rng.normal() for a in axes)) * np.exp(1j * sum(a * rng.normal() for a in axes))
        for _ in range(coils)
    ]
    return (decay * head(shape)).astype(np.complex64), np.stack(maps).astype(np.complex64)


def write_ahead(folder: Path, rng: np.random.Generator, subjects: int = 3, coils: int = 4) -> None:
    """As published: ISMRMRD of each echo, sensitivities beside. (x, y, z) = (8, 24, 20)."""
    shape = (8, 24, 20)
    folder.mkdir(parents=True, exist_ok=True)
    for subject in range(1, subjects + 1):
        images, maps = echoes_and_maps(rng, shape, coils)
        axes = (-3, -2, -1)
        for echo, image in enumerate(images):
            shifted = np.fft.ifftshift(maps * image, axes=axes)
            kspace = np.fft.fftshift(np.fft.fftn(shifted, axes=axes, norm="ortho"), axes=axes).astype(np.complex64)
            _ismrmrd(folder / f"mp2rageme_{subject:03}_inv2_te{echo + 1}.h5", kspace)
        with h5py.File(folder / f"coilsens_{subject:03}.h5", "w") as file:
            stored = maps.transpose(0, 3, 2, 1)
            file["0real"], file["1imag"] = stored.real.copy(), stored.imag.copy()


def _ismrmrd(path: Path, kspace: NDArray[Any]) -> None:
    """(coil, x, y, z): a noise line, then a line for each y and z. At once, since ismrmrd appends line by line."""
    coils, x, y, z = kspace.shape
    sizes = {"x": x, "y": y, "z": z, "y1": y - 1, "z1": z - 1, "yc": y // 2, "zc": z // 2}
    noise = np.full((1, coils, x), 7, np.complex64)
    lines = np.concatenate((noise, kspace.transpose(2, 3, 0, 1).reshape(-1, coils, x)))
    records = np.zeros(len(lines), acquisition_dtype)
    heads = records["head"]
    heads["version"], heads["number_of_samples"], heads["center_sample"] = 1, x, x // 2
    heads["active_channels"] = heads["available_channels"] = coils
    heads["flags"][0] = 1 << (ismrmrd.ACQ_IS_NOISE_MEASUREMENT - 1)
    heads["idx"]["kspace_encode_step_1"][1:] = np.repeat(np.arange(y), z)
    heads["idx"]["kspace_encode_step_2"][1:] = np.tile(np.arange(z), y)
    for record, line in zip(records, lines, strict=True):
        record["traj"] = np.zeros(0, np.float32)
        record["data"] = np.ascontiguousarray(line, np.complex64).view(np.float32).ravel()
    with h5py.File(path, "w") as file:
        file.create_dataset("dataset/data", data=records, dtype=acquisition_dtype)
        text = np.array([HEADER.format(**sizes).encode()], dtype=object)
        file.create_dataset("dataset/xml", data=text, dtype=h5py.special_dtype(vlen=bytes))


def write_ahead_converted(folder: Path, rng: np.random.Generator, subjects: int = 3, coils: int = 4) -> None:
    """As ATOMMIC converts it: slices of 24 x 20, k-space of unshifted images, masks in a parallel folder."""
    for name in ("preprocessed", "segmentation_masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for subject in range(1, subjects + 1):
        images, maps = echoes_and_maps(rng, (2, 24, 20), coils)
        images, maps = 1e4 * images.swapaxes(0, 1), maps.swapaxes(0, 1)  # slice first
        coil_images = images[:, :, None] * maps[:, None]
        kspace = np.fft.fftshift(np.fft.fftn(coil_images, axes=(-2, -1)), axes=(-2, -1))
        name = f"mp2rageme_{subject:03}_axial.h5"
        with h5py.File(folder / "preprocessed" / name, "w") as file:
            file["kspace"] = kspace.astype(np.complex64)
            file["sensitivity_map"] = maps
            file["target"] = np.sum(coil_images * maps[:, None].conj(), axis=2).astype(np.complex64)
        with h5py.File(folder / "segmentation_masks" / name, "w") as file:
            file["anatomy_mask"] = (np.abs(images[:, 0]) > 0).astype(np.float32)


def _nifti(path: Path, values: NDArray[Any], affine: Any = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-1.0, -1, 1, 1]) if affine is None else affine), path)


def tumour(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Labels 1, 2 and 3 in the middle slices of (x, y, slice)."""
    labels = np.zeros(shape, np.uint8)
    labels[8:16, 6:14, 2:-2] = 2
    labels[10:14, 8:12, 2:-2] = 3
    labels[11:13, 9:11, 2:-2] = 1
    return labels


def _contrasts(rng: np.random.Generator, shape: tuple[int, int, int], number: int) -> list[NDArray[np.int16]]:
    """Skull-stripped volumes (x, y, slice) with nothing in the first and the last slice."""
    volumes = [(head(shape) * rng.uniform(500, 1500) + 3 * tumour(shape)).astype(np.int16) for _ in range(number)]
    for volume in volumes:
        volume[..., 0] = volume[..., -1] = 0
    return volumes


def write_brats(folder: Path, rng: np.random.Generator, subjects: int = 3) -> None:
    """As published: 24 x 20 x 7, of which five slices show brain."""
    for subject in range(subjects):
        name = f"BraTS-GLI-{subject:05}-000"
        for kind, values in zip(("t1c", "t1n", "t2f", "t2w"), _contrasts(rng, (24, 20, 7), 4), strict=True):
            _nifti(folder / name / f"{name}-{kind}.nii.gz", values)
        _nifti(folder / name / f"{name}-seg.nii.gz", tumour((24, 20, 7)))


def write_brats_converted(folder: Path, rng: np.random.Generator, subjects: int = 3) -> None:
    for subject in range(subjects):
        name = f"BraTS-GLI-{subject:05}-000"
        values = np.stack(_contrasts(rng, (24, 20, 7), 4)).astype(np.float32)
        stem = "ASNR-MICCAI-BraTS2023-GLI-Challenge-Training"
        _nifti(folder / f"{stem}Data" / f"{name}.nii.gz", (values - values.mean()) / values.std())
        _nifti(folder / f"{stem}Segmentations" / f"{name}-seg.nii.gz", tumour((24, 20, 7)).astype(np.float32))


def write_isles(folder: Path, rng: np.random.Generator, subjects: int = 3) -> None:
    """Write files as published. DWI and ADC are 24 x 20 x 7 of 2 mm. FLAIR is finer in plane and shifted by a voxel."""
    fixed, moving = np.diag([-2.0, -2.0, 2.0, 1.0]), np.diag([-1.0, -1.0, 2.0, 1.0])
    fixed[:3, 3], moving[:3, 3] = (-10, -20, 30), (-9, -20, 30)
    for subject in range(1, subjects + 1):
        name = f"sub-strokecase{subject:04}"
        start = f"{name}/ses-0001/{name}_ses-0001"
        adc, dwi = _contrasts(rng, (24, 20, 7), 2)
        _nifti(folder / f"rawdata/{start}_adc.nii.gz", adc, fixed)
        _nifti(folder / f"rawdata/{start}_dwi.nii.gz", dwi, fixed)
        _nifti(folder / f"rawdata/{start}_flair.nii.gz", (1000 * head((48, 40, 7))).astype(np.float32), moving)
        _nifti(folder / f"derivatives/{start}_msk.nii.gz", (tumour((24, 20, 7)) > 0).astype(np.uint8), fixed)


def write_isles_converted(folder: Path, rng: np.random.Generator, subjects: int = 3) -> None:
    for subject in range(1, subjects + 1):
        name = f"sub-strokecase{subject:04}"
        values = np.stack(_contrasts(rng, (24, 20, 7), 3)).astype(np.float32)[..., 2:-2]
        lesion = (tumour((24, 20, 7)) > 0)[..., 2:-2]
        _nifti(folder / f"data/{name}.nii.gz", values)
        _nifti(folder / f"segmentations/{name}-seg.nii.gz", lesion.astype(np.float64))


def tissues(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Six labels, side by side, on every slice across any axis but the second."""
    labels = np.zeros(shape, np.uint8)
    for label in range(1, 7):
        labels[4:-4, 2 * label : 2 * label + 2, 2:-2] = label
    return labels


def _annotations(folder: Path, names: list[str]) -> None:
    """The official split: the last for testing, the one before for validation."""
    parts = {"train": names[:-2], "val": names[-2:-1], "test": names[-1:]}
    (folder / "annotations" / "v1.0.0").mkdir(parents=True)
    for part, mine in parts.items():
        images = [{"id": n, "file_name": f"{name}.h5", "scan_id": name} for n, name in enumerate(mine)]
        path = folder / "annotations" / "v1.0.0" / f"{part}.json"
        path.write_text(json.dumps({"info": {}, "images": images, "annotations": []}), encoding="utf-8")


def write_skmtea_segmentation(folder: Path, rng: np.random.Generator, subjects: int = 3) -> None:
    """64 slices of 24 x 20, of which three lie between the margins of 30."""
    shape = (24, 20, 64)
    names = [f"MTR_{5 + n:03}" for n in range(subjects)]
    (folder / "image_files").mkdir(parents=True)
    for name in names:
        with h5py.File(folder / "image_files" / f"{name}.h5", "w") as file:
            for echo in ("echo1", "echo2"):
                values = (rng.uniform(300, 900) * head(shape) + 100 * tissues(shape)).astype(np.float32)
                file[echo] = values
                for stat in ("min", "max", "mean", "std"):
                    file[f"stats/{echo}/{stat}"] = getattr(values, stat)()
            file["seg"] = (tissues(shape)[..., None] == np.arange(1, 7)).astype(np.uint8)
    _annotations(folder, names)


def write_skmtea_joint(folder: Path, rng: np.random.Generator, subjects: int = 3, coils: int = 3) -> None:
    """Three positions along the readout; 24 x 20 samples, of which 20 x 16 were acquired."""
    shape, acquired = (3, 24, 20), (20, 16)
    names = [f"MTR_{5 + n:03}" for n in range(subjects)]
    (folder / "files_recon_calib-24").mkdir(parents=True)
    ky, kz = (slice((n - m) // 2, (n + m) // 2) for n, m in zip(shape[1:], acquired, strict=True))
    for name in names:
        images, maps = echoes_and_maps(rng, shape, coils)
        coil_images = np.moveaxis(images[:2, None] * maps, (0, 1), (-2, -1))
        axes = (1, 2)
        kspace = np.fft.fftshift(
            np.fft.fftn(np.fft.ifftshift(coil_images, axes=axes), axes=axes, norm="ortho"), axes=axes
        )
        stored = np.zeros_like(kspace)
        stored[:, ky, kz] = kspace[:, ky, kz]
        with h5py.File(folder / "files_recon_calib-24" / f"{name}.h5", "w") as file:
            file["kspace"] = stored.astype(np.complex64)
            file["maps"] = np.moveaxis(maps, 0, -1)[..., None]
            file["target"] = np.moveaxis(images[:2], 0, -1)[..., None]
            for acceleration in (4, 6):
                mask = rng.random(acquired) < 1 / acceleration
                mask[6:14, 4:12] = True
                file[f"masks/poisson_{acceleration}.0x"] = mask.astype(np.float32)
        labels = np.zeros((3, 24, 20), np.uint8)
        labels[:] = tissues((24, 20, 6))[:, :, 3]
        _nifti(folder / "segmentation_masks" / "raw-data-track" / f"{name}.nii.gz", labels)
    _annotations(folder, names)


CASES = {
    "ahead": Case(write_ahead, "reconstruction"),
    "ahead_maps": Case(write_ahead, "quantitative"),
    "brats": Case(write_brats, "segmentation"),
    "isles": Case(write_isles, "segmentation"),
    "skmtea_segmentation": Case(write_skmtea_segmentation, "segmentation"),
    "skmtea_joint": Case(write_skmtea_joint, "joint"),
    "skmtea_reconstruction": Case(write_skmtea_joint, "reconstruction", ("reader.options.acceleration=[4, 6]",)),
}
