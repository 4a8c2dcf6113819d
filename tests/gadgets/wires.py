"""Messages of Gadgetron's protocol, and all that a stream holds."""

import io

import ismrmrd
import numpy as np

from gadgets.messages import (
    IMAGE_TYPES,
    ReconBuffer,
    SamplingDescription,
)
from gadgets.protocol import Incoming, State

CLOSE = b"\4\0"


def read_all(data: bytes) -> list:
    return list(Incoming(io.BytesIO(data), State.ITEMS).items())


def image(dtype="<f4", meta=None) -> ismrmrd.Image:
    pixels = np.arange(24).reshape(1, 2, 3, 4)
    head = ismrmrd.ImageHeader()
    head.data_type = next(code for code, known in IMAGE_TYPES.items() if known == np.dtype(dtype))
    head.channels, head.matrix_size[:] = 1, (4, 3, 2)
    made = ismrmrd.Image(bytes(head))
    made.data[...] = pixels
    made.meta = meta or {}
    return made


def buffer(shape=(4, 3, 1, 2, 1, 1, 1), trajectory=False) -> ReconBuffer:
    rng = np.random.default_rng(0)
    headers = np.empty((*shape[1:3], *shape[4:]), object)
    for n, index in enumerate(np.ndindex(headers.shape)):
        headers[index] = ismrmrd.AcquisitionHeader()
        headers[index].scan_counter = n
    data = np.asfortranarray(rng.standard_normal((*shape, 2)).astype(np.float32).view(np.complex64)[..., 0])
    sampling = SamplingDescription()
    sampling.encoded_matrix[:] = 4, 3, 1
    sampling.sampling_limits[0].center = 2
    path = rng.standard_normal((2, *shape[:3], *shape[4:])).astype(np.float32) if trajectory else None
    return ReconBuffer(data, path, None, headers, sampling)
