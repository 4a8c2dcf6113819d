"""Image series in ISMRMRD's HDF5 files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import ismrmrd
import numpy as np
from ismrmrd.hdf5 import image_header_dtype

from gadgets.messages import IMAGE_TYPES
from mrnets.errors import InputError
from mrnets.files import Draft
from mrnets.hdf5 import whole_hdf5
from mrnets.mrd.files import append_waveform, hdf5
from mrnets.mrd.lines import Item
from mrnets.mrd.records import explained
from mrnets.mrd.xml import text_of
from mrnets.physics.arrays import Array

__all__ = ["ImageFile", "read_images", "write_images"]

_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
_DECLARED = re.compile(r"^<\?xml[^>]*\?>\s*")


@contextmanager
def write_images(path: str | Path, group: str = "dataset", header: object = None) -> Iterator[ImageFile]:
    """An image file to append to. It is `path` only when all went well, replacing a file that is there.

    header: the ISMRMRD header of the scan as it came, for viewers and converters; None: the file has none.

    If anything but the disk fails after the first image, the images until then stay as `path`.partial. Where that file
    exists, they get another such name. Raises InputError as `mrnets.files.whole` does, and for a group without a name.
    """
    if not group:
        raise InputError(f"cannot write {path}: the group of the images has no name")
    with whole_hdf5(path) as (file, draft):
        images = ImageFile(file.create_group(group), draft)
        if header is not None:
            xml = images.group.create_dataset("xml", (1,), h5py.special_dtype(vlen=bytes))
            text, _ = text_of(header, "ISMRMRD header")
            xml[0] = (_DECLARATION + _DECLARED.sub("", text)).encode()
        yield images


@dataclass
class ImageFile:
    """Image series in ISMRMRD's layout: `group/image_N` with data, header and attributes, N the series index.

    Images of one series that differ in shape or type go to `image_N_1`, `image_N_2`, and so on.
    """

    group: h5py.Group
    draft: Draft
    count: int = 0
    """Images so far."""

    def append(self, item: Item) -> None:
        """Add an image to its series, or a waveform. Raises TypeError for anything else, InputError for a full disk."""
        if isinstance(item, ismrmrd.Waveform):
            append_waveform(self.group, item)
        elif isinstance(item, ismrmrd.Image):
            self._append_image(item)
        else:
            raise TypeError(f"an image file has no place for a {type(item).__name__}")

    def _append_image(self, image: ismrmrd.Image) -> None:
        head = image.getHead()
        pixels = np.asarray(image.data, IMAGE_TYPES[head.data_type])
        stored = pixels.view(_stored(pixels.dtype))
        series = self._series(f"image_{head.image_series_index}", stored)
        attributes = image.attribute_string.encode("ascii", "xmlcharrefreplace")
        head.attribute_string_len = len(attributes)
        for name, row in (("data", stored), ("header", np.frombuffer(bytes(head), image_header_dtype)[0])):
            series[name].resize(len(series[name]) + 1, axis=0)
            series[name][-1] = row
        series["attributes"].resize(len(series["attributes"]) + 1, axis=0)
        series["attributes"][-1] = attributes.decode("ascii")
        self.count += 1
        self.draft.keep = True
        self.draft.check()

    def _series(self, name: str, pixels: Array) -> h5py.Group:
        number, found = 0, name
        while found in self.group:
            data = self.group[found]["data"]
            if data.shape[1:] == pixels.shape and data.dtype == pixels.dtype:
                return self.group[found]
            number += 1
            found = f"{name}_{number}"
        series = self.group.create_group(found)
        for key, shape, dtype in (
            ("data", pixels.shape, pixels.dtype),
            ("header", (), image_header_dtype),
            ("attributes", (), h5py.special_dtype(vlen=str)),
        ):
            series.create_dataset(key, (0, *shape), dtype, maxshape=(None, *shape), chunks=(1, *shape))
        return series


def _stored(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """ISMRMRD stores complex numbers as records of real and imag."""
    if dtype.kind != "c":
        return dtype
    part = f"<f{dtype.itemsize // 2}"
    return np.dtype([("real", part), ("imag", part)])


def read_images(path: str | Path, group: str = "dataset") -> Iterator[tuple[str, Array]]:
    """Name and pixels (image, channel, z, y, x) of each series in `group`. Raises InputError."""
    with hdf5(path) as file, explained(path):
        folder = file.get(group)
        if not isinstance(folder, h5py.Group):
            raise InputError(f'{path}: there is no group "{group}".')
        for name, series in folder.items():
            if isinstance(series, h5py.Group) and "header" in series and "data" in series:
                pixels = series["data"][()]
                yield name, pixels.view(f"<c{pixels.dtype.itemsize}") if pixels.dtype.names else pixels
