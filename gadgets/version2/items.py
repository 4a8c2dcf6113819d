"""Acquisitions, waveforms and images of MRD version 2 as those of ISMRMRD, and images and waveforms the other way.

Times: version 2.2 has ns; ISMRMRD has ms for stamps and µs for samples, as mrd-python's own converters take them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ismrmrd
import numpy as np
from numpy.typing import NDArray

from gadgets.messages import IMAGE_TYPES
from mrnets.errors import InputError
from mrnets.mrd.lines import ACQUISITION_HEADER, Item, Line
from mrnets.physics.arrays import Array

__all__ = ["from_version_2", "to_version_2"]

STAMP = 1_000_000
"""ns in the unit of a time stamp."""
SAMPLE = 1000
"""ns in the unit of a sample time."""
_COUNTERS = (
    *("kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast", "phase", "repetition", "set"),
    "segment",
)
_IMAGE_COUNTERS = ("average", "slice", "contrast", "phase", "repetition", "set", "image_index", "image_series_index")
_DIRECTIONS = {"read_dir": "col_dir", "phase_dir": "line_dir"}
"""Names of an image's directions: in ISMRMRD, and in version 2."""
_PLACES = ("field_of_view", "position", "read_dir", "phase_dir", "slice_dir", "patient_table_position")


def from_version_2(item: Any) -> Line | Item:
    """Return a stream item of version 2 as an acquisition, a waveform or an image of ISMRMRD.

    Raises InputError for another item, and for values that ISMRMRD has no room for."""
    tag = type(item).__name__
    if tag.endswith("Acquisition"):
        return _acquisition(item.value)
    if tag.endswith("WaveformUint32"):
        return _waveform(item.value)
    if "Image" in tag and not tag.endswith("ImageArray"):
        return _image(item.value)
    raise InputError(f"The stream holds {tag}, of which no chain can make an image.")


def to_version_2(item: Item, mrd: Any) -> Any:
    """Return an image or a waveform of ISMRMRD as a stream item of version 2.

    mrd: the package mrd-python. Raises InputError for other items."""
    if isinstance(item, ismrmrd.Waveform):
        return mrd.StreamItem.WaveformUint32(_waveform_of(item, mrd))
    if isinstance(item, ismrmrd.Image):
        name = _UNIONS[np.dtype(item.data.dtype).name]
        pixels = np.ascontiguousarray(item.data, np.int32 if name == "ImageInt32" else None)
        image = mrd.Image(head=_head_of(item, mrd), data=pixels, meta=_meta_of(item, mrd))
        return getattr(mrd.StreamItem, name)(image)
    raise InputError(f"A {type(item).__name__} has no place in a stream of MRD version 2.")


_UNIONS = {
    "uint16": "ImageUint16",
    "int16": "ImageInt16",
    "uint32": "ImageUint32",
    "int64": "ImageInt32",  # ismrmrd 1.15 takes a 32-bit integer for a 64-bit one
    "float32": "ImageFloat",
    "float64": "ImageDouble",
    "complex64": "ImageComplexFloat",
    "complex128": "ImageComplexDouble",
}


def _acquisition(acquisition: Any) -> Line:
    own, data = acquisition.head, acquisition.data
    trajectory = _trajectory(np.asarray(acquisition.trajectory), data.shape[1])
    row = np.zeros(1, ACQUISITION_HEADER)
    head = row[0]
    values = {
        "version": 1,
        "flags": int(own.flags.value),
        "acquisition_time_stamp": _time(own, "acquisition_time_stamp", STAMP),
        "number_of_samples": data.shape[1],
        "available_channels": data.shape[0],
        "active_channels": data.shape[0],
        "trajectory_dimensions": trajectory.shape[1],
    }
    names = ("measurement_uid", "scan_counter", "discard_pre", "discard_post", "center_sample", "encoding_space_ref")
    for name, value in {**values, **{name: getattr(own, name) for name in names}}.items():
        _set(head, name, value)
    for name in _COUNTERS:
        _set(head["idx"], name, getattr(own.idx, name))
    head["sample_time_us"] = _time(own, "sample_time_us", SAMPLE)
    for name in _PLACES[1:]:
        head[name] = getattr(own, name)
    stamps = _times(own, "physiology_time_stamp")
    for field, some in (("physiology_time_stamp", stamps), ("user_int", own.user_int), ("user_float", own.user_float)):
        head[field][: len(some)] = some[: head[field].size]
    user = own.idx.user[: head["idx"]["user"].size]
    head["idx"]["user"][: len(user)] = np.minimum(user, np.iinfo(np.uint16).max)

    def fill(samples: Array, places: Array) -> None:
        samples[...], places[...] = data, trajectory

    return Line(row.tobytes(), fill)


def _trajectory(trajectory: NDArray[Any], samples: int) -> NDArray[Any]:
    """(sample, dimension). The schema has (dimension, sample); mrd-python's converter leaves ISMRMRD's order."""
    if not trajectory.size:
        return np.zeros((samples, 0), np.float32)
    turned = trajectory if trajectory.shape[0] == samples else trajectory.T
    if turned.shape[0] != samples:
        raise InputError(f"An acquisition has {samples} samples, and a trajectory of the shape {trajectory.shape}.")
    return turned


def _waveform(waveform: Any) -> ismrmrd.Waveform:
    head = ismrmrd.WaveformHeader()
    head.channels, head.number_of_samples = waveform.data.shape
    for name in ("flags", "measurement_uid", "scan_counter", "waveform_id"):
        setattr(head, name, int(getattr(waveform, name)))
    head.time_stamp = int(_time(waveform, "time_stamp", STAMP))
    head.sample_time_us = float(_time(waveform, "sample_time_us", SAMPLE))
    return ismrmrd.Waveform(head, np.ascontiguousarray(waveform.data, np.uint32))


def _image(image: Any) -> ismrmrd.Image:
    own, data = image.head, image.data
    head = ismrmrd.ImageHeader()
    head.version = 1
    head.data_type = next((code for code, kind in IMAGE_TYPES.items() if kind == data.dtype), 0)
    head.channels, (z, y, x) = data.shape[0], data.shape[1:]
    head.matrix_size = (x, y, z)
    head.flags, head.measurement_uid = int(own.flags.value), int(own.measurement_uid)
    head.image_type = int(own.image_type.value)
    for name in _IMAGE_COUNTERS:
        setattr(head, name, int(getattr(own, name) or 0))
    for name in _PLACES:
        setattr(head, name, tuple(map(float, getattr(own, _DIRECTIONS.get(name, name)))))
    head.acquisition_time_stamp = int(_time(own, "acquisition_time_stamp", STAMP))
    stamps = _times(own, "physiology_time_stamp")
    for field, some in (("physiology_time_stamp", stamps), ("user_int", own.user_int), ("user_float", own.user_float)):
        room = getattr(head, field)
        room[: len(some[: len(room)])] = some[: len(room)]
    lists = {name: [str(value.value) for value in values] for name, values in image.meta.items()}
    meta = {name: values[0] if len(values) == 1 else values for name, values in lists.items()}
    made = ismrmrd.Image(bytes(head), meta=ismrmrd.Meta(meta))
    made.data[...] = data
    return made


def _head_of(image: ismrmrd.Image, mrd: Any) -> Any:
    own = image.getHead()
    head = mrd.ImageHeader(image_type=mrd.ImageType(own.image_type or ismrmrd.IMTYPE_MAGNITUDE))
    head.flags, head.measurement_uid = mrd.ImageFlags(own.flags), own.measurement_uid
    for name in _IMAGE_COUNTERS:
        setattr(head, name, getattr(own, name))
    for name in _PLACES:
        getattr(head, _DIRECTIONS.get(name, name))[:] = getattr(own, name)
    _set_time(head, "acquisition_time_stamp", own.acquisition_time_stamp, STAMP)
    _set_times(head, "physiology_time_stamp", list(own.physiology_time_stamp), STAMP)
    head.user_int, head.user_float = list(own.user_int), list(own.user_float)
    return head


def _meta_of(image: ismrmrd.Image, mrd: Any) -> dict[str, list[Any]]:
    """The meta attributes as texts, as ISMRMRD has them."""
    lists = {name: value if isinstance(value, list) else [value] for name, value in image.meta.items()}
    return {name: [mrd.ImageMetaValue.String(str(value)) for value in values] for name, values in lists.items()}


def _waveform_of(waveform: ismrmrd.Waveform, mrd: Any) -> Any:
    own = waveform.getHead()
    made = mrd.WaveformUint32(data=np.ascontiguousarray(waveform.data, np.uint32))
    for name in ("flags", "measurement_uid", "scan_counter", "waveform_id"):
        setattr(made, name, getattr(own, name))
    _set_time(made, "time_stamp", own.time_stamp, STAMP)
    _set_time(made, "sample_time_us", own.sample_time_us, SAMPLE)
    return made


def _set(head: Any, name: str, value: Any) -> None:
    """Set a whole number. Raises InputError where ISMRMRD's field is too small for it; None is 0."""
    most = np.iinfo(head[name].dtype).max
    if not 0 <= int(value or 0) <= most:
        raise InputError(f"An acquisition has {name} {value}; ISMRMRD's field takes {most} at most.")
    head[name] = int(value or 0)


def _in_ns(name: str) -> str:
    return f"{name.removesuffix('_us')}_ns"


def _time(own: Any, name: str, unit: int) -> float:
    """A time in ISMRMRD's unit, by its name in version 2.1; 2.2 has it in ns. 0: not known."""
    ns = getattr(own, _in_ns(name), None)
    if ns is not None:
        return int(ns) // unit % (1 << 32) if unit == STAMP else int(ns) / unit
    return getattr(own, name, None) or 0


def _times(own: Any, name: str) -> Sequence[int]:
    ns = getattr(own, _in_ns(name), None)
    return list(getattr(own, name)) if ns is None else [int(value) // STAMP for value in ns]


def _set_time(made: Any, name: str, value: float, unit: int) -> None:
    in_ns = hasattr(made, _in_ns(name))
    setattr(made, _in_ns(name) if in_ns else name, round(value * unit) if in_ns else value)


def _set_times(made: Any, name: str, values: list[int], unit: int) -> None:
    in_ns = hasattr(made, _in_ns(name))
    setattr(made, _in_ns(name) if in_ns else name, [value * unit for value in values] if in_ns else values)
