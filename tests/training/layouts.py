"""Tiny data sets in the exact layouts that are published: k-space of reconstruction data sets.

Each writer makes `subjects` files below a folder, of random blobs seen by a few smooth coils; k-space is computed by
NumPy's Fourier transforms alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ismrmrd import xsd
from ismrmrd.hdf5 import acquisition_dtype
from numpy.typing import NDArray

from tests.training.cases import Case

Complex = NDArray[np.complex64]

__all__ = [
    "CASES",
    "cc359_kspace",
    "centred_kspace",
    "coil_images",
    "header",
    "write_accelerated",
    "write_cc359",
    "write_cc359_masks",
    "write_fastmri",
    "write_fastmri_singlecoil",
    "write_ismrmrd",
    "write_knees",
    "write_knees_converted",
    "write_scan",
]


def coil_images(rng: np.random.Generator, coils: int, shape: tuple[int, ...]) -> Complex:
    """(coil, *shape) complex64: a blob with structure, smooth coils and a smooth phase; no symmetry."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = sum(((a - 0.15) / 0.7) ** 2 for a in axes)
    image = (radius < 1) * (1 + 0.5 * np.sin(sum((2 + i) * a for i, a in enumerate(axes)))) + 0.02
    seen = []
    for _ in range(coils):
        centre = rng.uniform(-1, 1, len(shape))
        distance = sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True))
        seen.append(image * np.exp(-distance / 2 + 1j * rng.uniform(-1, 1) * axes[-1] + 1j * rng.uniform(-3, 3)))
    return np.asarray(seen, np.complex64)


def centred_kspace(images: Complex, axes: tuple[int, ...] = (-2, -1)) -> Complex:
    """Centred, orthonormal Fourier transform, by NumPy."""
    shifted = np.fft.ifftshift(images, axes=axes)
    return np.fft.fftshift(np.fft.fftn(shifted, axes=axes, norm="ortho"), axes=axes).astype(np.complex64)


def write_cc359(folder: Path, rng: np.random.Generator, subjects: int = 3, coils: int = 4) -> None:
    """Train and Val; 104 slices, of which three are neither trimmed nor empty. The zero frequency is in the middle, and
    ifft2 without shifts gives the images; the last part of x is not sampled. Masks for 5-fold in Masks."""
    for number in range(subjects):
        part = folder / ("Train" if number < max(subjects - 1, 1) else "Val")
        part.mkdir(parents=True, exist_ok=True)
        with h5py.File(part / f"e{number}_P{number}.7.h5", "w") as file:
            shape = (104, 24, 20, 2 * coils)
            data = file.create_dataset("kspace", shape, np.float32, chunks=(1, *shape[1:]), compression="gzip")
            for index in (51, 52, 53):
                kspace = cc359_kspace(coil_images(rng, coils, (24, 20)))
                kspace[..., 17:] = 0
                data[index] = np.stack([kspace.real, kspace.imag], -1).transpose(1, 2, 0, 3).reshape(24, 20, 2 * coils)


def cc359_kspace(images: Complex) -> Complex:
    """(coil, y, x) with the zero frequency at n // 2, whose ifft2 without shifts has the magnitude of `images`."""
    height, width = images.shape[-2:]
    phase = np.exp(2j * np.pi * (height // 2) * np.arange(height) / height)[:, None]
    return np.fft.fft2(images * phase * np.exp(2j * np.pi * (width // 2) * np.arange(width) / width)).astype(
        np.complex64
    )


def write_cc359_masks(folder: Path, rng: np.random.Generator, shape: tuple[int, int] = (24, 20)) -> None:
    """R5_24x20.npy (mask, y, x), and R10_24x20.npy."""
    folder.mkdir(parents=True, exist_ok=True)
    for acceleration in (5, 10):
        np.save(folder / f"R{acceleration}_{shape[0]}x{shape[1]}.npy", rng.random((7, *shape)) < 1 / acceleration)


def write_fastmri_singlecoil(folder: Path, rng: np.random.Generator, subjects: int = 3) -> None:
    """Write singlecoil_train and singlecoil_val: k-space (2, 40, 24) of knees, and reconstruction_esc."""
    for number in range(subjects):
        part = folder / f"singlecoil_{'train' if number < max(subjects - 1, 1) else 'val'}"
        part.mkdir(parents=True, exist_ok=True)
        images = coil_images(rng, 1, (2, 40, 24))[0]
        with h5py.File(part / f"file{1000000 + number}.h5", "w") as file:
            file["ismrmrd_header"] = header((40, 24, 1), (20, 20, 1), 1).toXML().encode()
            file.attrs["acquisition"] = "CORPD_FBK"
            file["kspace"] = centred_kspace(images)
            file["reconstruction_esc"] = np.abs(images[:, 10:30, 2:22])


def write_fastmri(folder: Path, rng: np.random.Generator, subjects: int = 3, *, test: bool = False) -> None:
    """Write multicoil_train and multicoil_val: k-space (2, coil, 40, 24) of 4 to 6 coils, oversampled readout first.

    The outermost line on either side was not sampled. `test`: one file more, in multicoil_test."""
    for number in range(subjects + test):
        name = "test" if number == subjects else "train" if number < max(subjects - 1, 1) else "val"
        part = folder / f"multicoil_{name}"
        part.mkdir(parents=True, exist_ok=True)
        kspace = centred_kspace(coil_images(rng, 4 + number % 3, (2, 40, 24)).swapaxes(0, 1))
        kspace[..., [0, -1]] = 0
        with h5py.File(part / f"file_brain_AXT2_200_{number:03}.h5", "w") as file:
            file["ismrmrd_header"] = header((40, 24, 1), (20, 20, 1), 4).toXML().encode()
            file.attrs["acquisition"] = "AXT2"
            file.attrs["patient_id"] = f"{number:064x}"
            if name == "test":
                mask = np.arange(24) % 4 == 0
                mask[10:14] = True
                file["mask"] = mask
                file["kspace"] = kspace * mask
                continue
            images = np.abs(
                np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=(-2, -1)), norm="ortho"), (-2, -1))
            )
            target = np.sqrt((images**2).sum(1))[:, 10:30, 2:22]
            file["kspace"] = kspace
            file["reconstruction_rss"] = target.astype(np.float32)
            file.attrs["max"], file.attrs["norm"] = target.max(), np.linalg.norm(target)


def write_knees(folder: Path, rng: np.random.Generator, subjects: int = 3, coils: int = 4) -> None:
    """As mridata.org gives them: ISMRMRD, lines of slices, limits that end one beyond the last, rec_std."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(subjects):
        kspace = centred_kspace(coil_images(rng, coils, (3, 20, 24))) * 1e5
        lines = [(kspace[:, s, y], {"slice": s, "kspace_encode_step_1": y}) for s in range(3) for y in range(20)]
        path = folder / f"{number:08}-d0a0-4295-9dd5-74641b3dd7e6.h5"
        write_scan(path, header((24, 20, 3), (24, 20, 3), coils, last=(20, 1, 3)), lines)
        with h5py.File(path, "a") as file:
            file["dataset/rec_std"] = np.arange(1, coils + 1, dtype=np.float32)[None]


def write_knees_converted(folder: Path, rng: np.random.Generator, subjects: int = 3, coils: int = 4) -> None:
    """HDF5 made of the former: kspace (slice, coil, y, x)."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(subjects):
        with h5py.File(folder / f"knee{number}.h5", "w") as file:
            file["kspace"] = centred_kspace(coil_images(rng, coils, (3, 20, 24)).swapaxes(0, 1)) * 1e5


def write_accelerated(folder: Path, rng: np.random.Generator, subjects: int = 3) -> None:
    """As `write_ismrmrd`, with every second line outside the middle ten."""
    write_ismrmrd(folder, rng, subjects, every=2)


def write_ismrmrd(folder: Path, rng: np.random.Generator, subjects: int = 3, coils: int = 4, every: int = 1) -> None:
    """2-D scans of two slices, interleaved, with twofold readout oversampling and noise lines; fully sampled, or each
    line of `every` outside the middle ten."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(subjects):
        images = np.zeros((coils, 2, 20, 48), np.complex64)
        images[..., 12:36] = coil_images(rng, coils, (2, 20, 24))
        kspace = centred_kspace(images)
        noisy = [(_noise(rng, coils, 48), {"flags": 1 << 18}) for _ in range(4)]
        kept = [y for y in range(20) if y % every == 0 or 5 <= y < 15]
        lines = [(kspace[:, s, y], {"slice": s, "kspace_encode_step_1": y}) for y in kept for s in range(2)]
        write_scan(
            folder / f"scan{number}.h5", header((48, 20, 1), (24, 20, 1), coils, patient=f"P{number}"), noisy + lines
        )


def _noise(rng: np.random.Generator, coils: int, samples: int) -> Complex:
    return (1e-3 * (rng.standard_normal((coils, samples)) + 1j * rng.standard_normal((coils, samples)))).astype(
        np.complex64
    )


def write_scan(path: Path, head_of_scan: xsd.ismrmrdHeader, lines: list[tuple[Complex, dict[str, Any]]]) -> None:
    """An ISMRMRD file of lines (coil, sample), each with fields of its header that differ from 0 (or of its idx)."""
    rows = np.zeros(len(lines), acquisition_dtype)
    for number, (row, (data, fields)) in enumerate(zip(rows, lines, strict=True)):
        head = row["head"]
        head["scan_counter"] = number
        head["version"], head["active_channels"], head["number_of_samples"] = 1, *data.shape
        head["available_channels"], head["center_sample"], head["sample_time_us"] = (
            data.shape[0],
            data.shape[1] // 2,
            5.0,
        )
        for name, value in fields.items():
            (head["idx"] if name in head["idx"].dtype.names else head)[name] = value
        row["data"] = np.ascontiguousarray(data, np.complex64).view(np.float32).ravel()
        row["traj"] = np.zeros(0, np.float32)
    with h5py.File(path, "w") as file:
        file.create_dataset("dataset/xml", (1,), h5py.special_dtype(vlen=bytes))[0] = head_of_scan.toXML().encode()
        file.create_dataset("dataset/data", data=rows, dtype=acquisition_dtype, maxshape=(None,), chunks=(16,))


def header(
    encoded: tuple[int, int, int],
    recon: tuple[int, int, int],
    coils: int,
    *,
    last: tuple[int, int, int] | None = None,
    patient: str | None = None,
) -> xsd.ismrmrdHeader:
    """`last`: the announced ends of encode steps 1 and 2 and of the slices, where they are not what they should be."""
    ends = last or (encoded[1] - 1, encoded[2] - 1, 1)
    limits = [xsd.limitType(minimum=0, maximum=n, center=c) for n, c in zip(ends, (encoded[1] // 2, 0, 0), strict=True)]

    def space(matrix: tuple[int, int, int]) -> xsd.encodingSpaceType:
        x, y, z = matrix
        field = xsd.fieldOfViewMm(x=float(x), y=float(y), z=float(z))
        return xsd.encodingSpaceType(matrixSize=xsd.matrixSizeType(x=x, y=y, z=z), fieldOfView_mm=field)

    return xsd.ismrmrdHeader(
        subjectInformation=None if patient is None else xsd.subjectInformationType(patientID=patient),
        experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=127_728_000),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(receiverChannels=coils),
        encoding=[
            xsd.encodingType(
                encodedSpace=space(encoded),
                reconSpace=space(recon),
                trajectory=xsd.trajectoryType.CARTESIAN,
                encodingLimits=xsd.encodingLimitsType(
                    kspace_encoding_step_1=limits[0], kspace_encoding_step_2=limits[1], slice=limits[2]
                ),
            )
        ],
    )


CASES = {
    "cc359": Case(write_cc359, "reconstruction", ("masks.accelerations=[2.5]", "masks.centres=[0.3]")),
    "fastmri_brains": Case(write_fastmri, "reconstruction", ("masks.accelerations=[2, 3]", "masks.centres=[0.2]")),
    "fastmri_knees": Case(write_fastmri, "reconstruction", ("masks.accelerations=[2, 3]", "masks.centres=[0.25]")),
    "fastmri_knees_singlecoil": Case(
        write_fastmri_singlecoil, "reconstruction", ("masks.accelerations=[2, 3]", "masks.centres=[0.25]")
    ),
    "stanford_knees": Case(write_knees, "reconstruction", ("masks.accelerations=[2.5]", "masks.centres=[0.4]")),
    "self_supervised": Case(write_accelerated, "reconstruction"),
    "ismrmrd": Case(write_ismrmrd, "reconstruction", ("masks.accelerations=[2]", "masks.centres=[0.3]")),
}
"""The data are too small for the published accelerations."""
